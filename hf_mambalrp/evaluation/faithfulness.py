"""``evaluate_faithfulness``: does the model's output follow the tokens that an explanation calls relevant?"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from hf_mambalrp.errors import InputError
from hf_mambalrp.evaluation.evaluator import Evaluator
from hf_mambalrp.evaluation.journal import Journal
from hf_mambalrp.evaluation.result import Evaluation
from hf_mambalrp.evaluation.settings import DEFAULT_METHODS, Settings
from hf_mambalrp.evaluation.summary import summarise
from hf_mambalrp.runs.bad_rows import OnError, bad_row, reasons
from hf_mambalrp.runs.checks import check_on_error, check_sizes
from hf_mambalrp.runs.rows import Columns


def evaluate_faithfulness(
    model: nn.Module,
    dataset: "str | Path | Iterable[Any]",
    *,
    text_column: str = "text",
    id_column: str | None = None,
    target_column: str | None = None,
    methods: Sequence[str] = DEFAULT_METHODS,
    method_options: Mapping[str, Mapping[str, Any]] | None = None,
    tokenizer: Any = None,
    target: Any = None,
    measure: str = "logit",
    replacement: int | str = "auto",
    insertion: str = "remove",
    step: int | float | str = "auto",
    samples: int | None = None,
    ceiling: int = 0,
    batch_tokens: int | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    processes: int = 1,
    on_error: OnError | None = None,
    progress: bool = True,
    output_dir: str | Path | None = None,
    restart: bool = False,
) -> Evaluation:
    """Compare methods by perturbing tokens in the order of their relevance and reading the model's own output.

    Of an example's n perturbable tokens (attended, not special) the k first of an order are perturbed, and A is the
    area under the output over k/n, by the trapezoid rule. MoRF is most relevant first (signed; of equal relevances the
    earlier token first), LeRF its reverse. Higher is better for the first three, lower for the last:

    - delta_flip: A_LeRF - A_MoRF where the k tokens are replaced (MambaLRP, Rezaei Jafari et al. 2024, section 5).
    - delta_insert: A_MoRF - A_LeRF where only the k tokens are there. Absent tokens are removed, so inputs are shorter
      (one replaced token stands for an empty input). Were they replaced, as insertion="replace" does, the insertion
      curve would be the flipping curve of the other order read backwards, and delta_insert equal delta_flip always.
    - comprehensiveness: f(x) - f(x without the top tokens), sufficiency: f(x) - f(only the top tokens); f is the
      probability, others are replaced, and the mean is over the top 1, 5, 10, 20 and 50 %, rounded up to whole tokens
      (AOPC; DeYoung et al. 2020, section 4.2, without its empty bin, which only scales the number).

    Every mean has a percentile interval of a bootstrap over examples, and so has every paired difference to the first
    method. Methods that draw at random get ``seed`` unless ``method_options`` says otherwise. The same inputs and seed
    give the same result, interrupted or not.

    Args:
        model: a classifier, or a language model, whose next token is explained.
        dataset: what ``explain_dataset`` takes, read as it reads it: a ``datasets.Dataset``, an iterable of texts or of
            mappings, or the path of a ``.jsonl``, ``.csv``, ``.parquet`` or ``.txt`` file. Nothing is stripped.
        text_column, id_column: columns of a row; the id is by default column ``id`` where there is one, or the number.
        target_column: column of what is explained, instead of ``target``; read as ``explain_dataset`` does.
        methods: names; the first is the one that the others are compared with. By default all but occlusion.
        method_options: options by method, plain values.
        tokenizer: by default the one beside the model.
        target: class or token: None, the predicted one; an id; a name; or a list with one a row of the dataset.
        measure: "logit" or "probability", what the areas are taken of.
        replacement: "auto", the tokenizer's unknown token, or its end of sequence where it has none (Mamba's have one
            for both), or else "zero"; a token id; a token's text; "zero", a zero embedding. Norm and gate of a zero
            embedding are zero, so at the explained position it removes the whole score unless projections have biases.
        insertion: "remove" or "replace".
        step: k grows by so many tokens, or by this fraction of n; "auto" makes at most 20 steps.
        samples: evaluate so many rows, drawn with ``seed``; None is all.
        ceiling: of the first so many of them, also search the order that is best for each of the first two metrics
            (:func:`hf_mambalrp.evaluation.ceiling.best_orders`), and give every method's share of what it reaches. Of n
            tokens that takes 2 n^2 forwards.
        batch_tokens: tokens of one forward; by default about what a CPU's caches, or a GPU, want.
        confidence: of the intervals.
        resamples: of the bootstrap.
        seed: of the sample, of the methods and of the bootstrap.
        processes: of this machine, each with a copy of the model and one thread; the numbers do not depend on it. A
            model on one GPU is copied to the others in turn.
        on_error: "skip" leaves out a row that cannot be explained, and records it with its reason in ``skipped`` of the
            results; "raise" stops. Default: what the run began with, which is "raise". Rows that cannot be read are
            none that are drawn.
        progress: show a bar.
        output_dir: a new folder for ``results.json``, ``report.html`` and ``report.md``, or that of the run to go on
            with: finished examples are kept there in ``progress.jsonl``.
        restart: begin again in the folder of another run, whose finished examples are removed.

    Returns:
        An :class:`Evaluation`.

    Raises:
        InputError: with "raise" a row that cannot be explained (says which), with "skip" where no other is left; an
            output folder of another run or in use by one.
        RowMemoryError: with "raise" a row that does not fit into memory.
        OptionError: an unknown method or option, a value that is not allowed.
        TargetError: a target of several tokens, or a function; a row whose target the model does not have.
        UnknownArchitectureError: a regression model, or a model without rules.
        WorkerError: one of several processes was killed, or could not begin.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, evaluate_faithfulness
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> evaluation = evaluate_faithfulness(model, ["A dull film."], methods=["mambalrp"], progress=False)
        >>> found = evaluation.results["methods"]["mambalrp"]["delta_flip"]
        >>> round(found["mean"], 2)
        1.44
    """
    check_on_error(on_error)
    check_sizes(batch_tokens=batch_tokens, processes=processes)
    settings = Settings(
        methods=methods,
        method_options=method_options or {},
        measure=measure,
        replacement=replacement,
        insertion=insertion,
        step=step,
        target=target,
        samples=samples,
        ceiling=ceiling,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
    columns = Columns(text_column, id_column, target_column)
    evaluator = Evaluator(model, dataset, settings, columns, tokenizer, batch_tokens)
    if output_dir is None:
        evaluator.on_error = on_error or "raise"
        return _evaluated(evaluator, processes, progress)
    journal = Journal(output_dir, on_error=on_error, restart=restart)
    try:
        journal.open(evaluator.depends_on())
        evaluator.on_error = journal.on_error
        evaluation = _evaluated(evaluator, processes, progress, journal)
        evaluation.write_report(output_dir)
        journal.complete(skipped=evaluation.results["skipped"])
    finally:
        journal.release()
    return evaluation


def _evaluated(evaluator: Evaluator, processes: int, progress: bool, journal: Journal | None = None) -> Evaluation:
    """Examine what is not finished, and put all of it together."""
    skipped = [bad_row(row, error, evaluator.on_error) for row, error in evaluator.unreadable]
    records = evaluator.records(evaluator.examples, processes, journal, progress=progress)
    skipped += [record for record in records if "error" in record]
    measured = [record for record in records if "error" not in record]
    if not measured:
        raise InputError(f"None of {len(skipped)} rows can be evaluated: {reasons(skipped)[0]}.")
    skipped.sort(key=lambda record: int(record["index"]))
    return Evaluation({**evaluator.about(), **summarise(measured, evaluator.settings), "skipped": skipped})
