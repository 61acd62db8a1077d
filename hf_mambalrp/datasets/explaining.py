"""``explain_dataset``: what is wrong with a call is said before a row is read; then every process does its part."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_mambalrp.calls.explain import Options
from hf_mambalrp.calls.inputs import TokenizerSource
from hf_mambalrp.calls.labels import check_targets
from hf_mambalrp.calls.origin import model_id, versions
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.calls.targets import Outputs
from hf_mambalrp.datasets.checks import check_for_all, check_launch, check_options
from hf_mambalrp.datasets.runner import DatasetRun, Share
from hf_mambalrp.datasets.store import Store
from hf_mambalrp.datasets.together import launched
from hf_mambalrp.families.modules import execution_device
from hf_mambalrp.runs.bad_rows import OnError
from hf_mambalrp.runs.checks import check_on_error, check_sizes
from hf_mambalrp.runs.parquet import parquet
from hf_mambalrp.runs.rows import Columns

ONLY_ROUNDING = {"backend": "auto", "chunk_size": "auto", "check_forward": True}
"""Options, with their defaults, that a run may go on with other values of, as it may with another ``batch_tokens``."""
NO_METHOD = {*ONLY_ROUNDING, "position"}
"""Options that are not of the method."""


def explain_dataset(
    model: Any,
    dataset: Any,
    output_dir: str | Path,
    *,
    tokenizer: Any = None,
    text_column: str = "text",
    id_column: str | None = None,
    target: Any = None,
    contrast: Any = None,
    target_column: str | None = None,
    contrast_column: str | None = None,
    columns: Sequence[str] = (),
    method: str = "mambalrp",
    batch_tokens: int = 8192,
    max_tokens: int | None = None,
    window: int = 1024,
    on_error: OnError | None = None,
    restart: bool = False,
    progress: bool = True,
    **explain_options: Any,
) -> DatasetRun:
    """Explain every row of a dataset into Parquet files, on as many processes as were launched.

    The stream of rows is cut into windows, which the processes take in turn; in a window rows of similar length make
    batches. A batch that is done is written while the next is computed. The same call after a kill, on any number of
    processes, goes on where it was, computes no row again that was written, and ends with the rows of an undisturbed
    run in the order of the input.
    It may have another ``batch_tokens``, ``chunk_size`` or ``backend``, which change nothing but rounding.
    The rows are read by :func:`load_explanations`, or as a table by ``datasets.load_dataset("parquet", ...)``.

    Args:
        model: an explainable model (or one that :func:`make_explainable` knows), on this process's device.
        dataset: a ``datasets.Dataset``, an iterable of texts or of mappings, which must give the same rows each time,
            or the path of a ``.jsonl``, ``.csv``, ``.parquet`` or ``.txt`` file (one text a line, blank lines are no
            rows). It is streamed. Texts are explained as they stand there, nothing is stripped.
        output_dir: a new folder, or that of the run to go on with.
        tokenizer: by default the one beside the model.
        text_column, id_column: columns of a row; the id is by default column ``id`` where there is one, or the number.
        target, contrast: for all rows, as in :meth:`MambaLRPMixin.explain`.
        target_column, contrast_column: or one a row, from these columns: ids, labels or texts of tokens. Whole floats
            are ids; for a classifier so are texts of digits, as CSV has them, unless its labels are numbers; names of
            a ``ClassLabel`` that are the model's labels are what its numbers mean. A row without one is a bad row.
        columns: columns of the dataset that travel with a row's explanation, as ``Explanation.columns``.
        method: the attribution method.
        batch_tokens: tokens of a batch, padding included; halved where memory runs out. A row that does not fit
            alone is one that cannot be explained.
        max_tokens: a longer row is not explained; None is no bound.
        window: rows a process takes at a time; it has three windows in memory.
        on_error: "skip" records a row that cannot be explained with its reason; "raise" stops. Default: what the run
            began with, which is "raise" on one process and "skip" on several.
        restart: begin again in the folder of another run, whose files are removed.
        progress: show a bar on the main process.
        **explain_options: ``position``, ``chunk_size``, ``backend``, ``check_forward`` and options of the method.

    Raises:
        InputError: a dataset that cannot be read, a column that no row of the first window has, an output folder of
            another run or in use by one, or one that not all processes share; with "raise" a bad row.
        RowMemoryError: with "raise" a row that does not fit into memory.
        TargetError: a target or contrast for all rows that the model does not have.
        OptionError: an option with a value that is not allowed.
        MissingExtraError: pyarrow is not installed.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, explain_dataset
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> run = explain_dataset(model, ["A dull film.", "A lovely film."], "out/explained", progress=False)
        >>> run.rows, run.skipped
        (2, 0)
    """
    from hf_mambalrp.models.checkpoints import warn_of_random_weights
    from hf_mambalrp.models.given import make_explainable

    parquet()
    state = launched()
    check_launch(state)
    check_on_error(on_error)
    check_sizes(batch_tokens=batch_tokens, window=window, max_tokens=max_tokens)
    check_options(explain_options)
    of_method = {name: value for name, value in explain_options.items() if name not in NO_METHOD}
    of_computing = {name: explain_options.get(name, default) for name, default in ONLY_ROUNDING.items()}
    options = Options(method, False, method_options=of_method, **of_computing).checked("explain_dataset")
    model = make_explainable(model)
    warn_of_random_weights(model)
    subject = subject_of(model)
    network = subject.network()
    tokenizers = TokenizerSource(tokenizer, subject.place())
    tokenizers.get("to read the texts of a dataset")
    fixed = {"target": target, "contrast": contrast, "position": explain_options.get("position")}
    read = Columns(text_column, id_column, target_column, contrast_column, columns)
    outputs = Outputs(network, tokenizers)
    check_for_all(**fixed)
    check_targets({"target": target, "contrast": contrast}, read, outputs)
    settings = {
        "model": model_id(network),
        "versions": versions(),
        "method": method,
        "target": _named(target),
        "contrast": _named(contrast),
        "columns": [text_column, id_column, target_column, contrast_column, *read.kept],
        "max_tokens": max_tokens,
        "window": window,
        "options": {name: _named(explain_options[name]) for name in sorted({*explain_options} - {*ONLY_ROUNDING})},
    }
    run = Share(
        subject=subject,
        store=Store(output_dir, on_error=on_error, restart=restart),
        state=state,
        columns=read,
        outputs=outputs,
        fixed=fixed,
        options=options,
        batch_tokens=batch_tokens,
        common_shapes=execution_device(network.embeddings).type == "cuda",
        max_tokens=max_tokens,
    )
    return run.through(dataset, settings, window, progress)


def _named(value: Any) -> Any:
    """A setting as it stands in the manifest: what JSON has, else its name."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__name__", None) or repr(value)
