"""``explain_dataset``: windows of rows over processes, batches in a window, everything finished kept at once."""

import json
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn
from transformers.utils import logging

from hf_mambalrp.calls.explain import model_id, versions
from hf_mambalrp.calls.inputs import TokenizerSource
from hf_mambalrp.calls.labels import ColumnLabels
from hf_mambalrp.calls.targets import Outputs, resolve_target
from hf_mambalrp.calls.tokenizing import encode
from hf_mambalrp.datasets.arrow import Record, to_records
from hf_mambalrp.datasets.checks import check_launch, check_on_error, check_options, check_sizes, check_targets
from hf_mambalrp.datasets.store import Begun, Reason, Store
from hf_mambalrp.datasets.together import everywhere, on_main
from hf_mambalrp.errors import InputError, MambaLRPError, NonFiniteRelevanceError, RowMemoryError, TargetError
from hf_mambalrp.families import FAMILIES, Network
from hf_mambalrp.methods.memory import out_of_memory
from hf_mambalrp.models.fingerprint import fingerprint
from hf_mambalrp.runs.parquet import parquet
from hf_mambalrp.runs.plan import batches, windows
from hf_mambalrp.runs.rows import Columns, Row, check, check_first, class_names, count, rows
from hf_mambalrp.viz.streams import printable

OnError = Literal["raise", "skip"]
ROW_ERRORS = (InputError, TargetError, NonFiniteRelevanceError)
"""Errors that are of a row, not of the model or of the call."""
ONLY_ROUNDING = {"backend", "chunk_size", "check_forward"}
"""Options that a run may go on with other values of, as it may with another ``batch_tokens``."""
TOGETHER = 64
"""Rows whose tokens are counted in one call."""
POLL_S = 0.1
"""Seconds between looks at whether the other processes have ended."""
LOG_S = 10.0
"""Seconds between lines of the bar where it goes to a file."""


@dataclass(frozen=True)
class DatasetRun:
    """What a run did; the same on every process."""

    output_dir: Path
    rows: int
    """Of the dataset."""
    skipped: int
    """Of these, not explained; the reason of each is in column ``error`` and in the manifest."""
    reasons: tuple[Reason, ...]
    """Why, the most frequent first, with the first ids."""
    computed: int
    """Explained by this call; the others were there from an earlier one."""
    seconds: float
    processes: int

    def __str__(self) -> str:
        """Return what was done, and a line for each reason that rows were skipped for."""
        before = self.rows - self.computed - self.skipped
        said = (
            f"{self.rows} rows in {self.output_dir}: {self.computed} explained now, {self.skipped} skipped, {before} "
            f"there before; {self.seconds:.1f} s on {self.processes} process(es)"
        )
        return printable("\n  ".join([said, *map(str, self.reasons)]))


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
    progress: bool = True,
    **explain_options: Any,
) -> DatasetRun:
    """Explain every row of a dataset into Parquet files, on as many processes as were launched.

    The stream of rows is cut into windows, which the processes take in turn; in a window rows of similar length make
    batches. Rows that are done are kept at once. The same call after a kill, on any number of processes, goes on where
    it was, computes no finished row again, and ends with the rows of an undisturbed run in the order of the input.
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
        window: rows a process takes at a time.
        on_error: "skip" records a row that cannot be explained with its reason; "raise" stops. Default: what the run
            began with, which is "raise" on one process and "skip" on several.
        progress: show a bar on the main process.
        **explain_options: ``position``, ``chunk_size``, ``backend``, ``check_forward`` and options of the method.

    Raises:
        InputError: a dataset that cannot be read, a column that no row of the first window has, an output folder of
            another run or in use by one, or one that not all processes share; with "raise" a bad row.
        RowMemoryError: with "raise" a row that does not fit into memory.
        TargetError: a target or contrast for all rows that the model does not have.
        OptionError: an option with a value that is not allowed.
        MissingExtraError: pyarrow is not installed.
    """
    from hf_mambalrp.models.auto import make_explainable

    parquet()
    state = PartialState(cpu=not torch.cuda.is_available())
    check_launch(state)
    check_on_error(on_error)
    check_sizes(batch_tokens=batch_tokens, window=window, max_tokens=max_tokens)
    check_options(explain_options)
    model = make_explainable(model)
    network = Network(model, FAMILIES)
    tokenizers = TokenizerSource(tokenizer, network)
    fixed = {"target": target, "contrast": contrast}
    read = Columns(text_column, id_column, target_column, contrast_column, columns)
    outputs = Outputs(network, tokenizers)
    check_targets(fixed, explain_options.get("position"), read, outputs)
    settings = {
        "model": model_id(network),
        "versions": versions(),
        "method": method,
        "target": _named(target),
        "contrast": _named(contrast),
        "columns": [text_column, id_column, target_column, contrast_column, *read.kept],
        "max_tokens": max_tokens,
        "window": window,
        "options": {name: _named(explain_options[name]) for name in sorted({*explain_options} - ONLY_ROUNDING)},
    }
    run = _Run(
        model=model,
        tokenizer=tokenizers.get("to read the texts of a dataset"),
        store=Store(output_dir),
        state=state,
        columns=read,
        outputs=outputs,
        fixed=fixed,
        options={"method": method, **explain_options},
        batch_tokens=batch_tokens,
        max_tokens=max_tokens,
        on_error=on_error,
    )
    return run.through(dataset, settings, window, progress)


@dataclass
class _Run:
    """One process's part of a run."""

    model: nn.Module
    tokenizer: Any
    store: Store
    state: Any
    columns: Columns
    outputs: Outputs
    fixed: Mapping[str, Any]
    options: Mapping[str, Any]
    batch_tokens: int
    max_tokens: int | None
    on_error: str | None
    computed: int = 0
    done: int = 0
    """Rows of this process that are finished, by this call or an earlier one."""
    bar: Any = None
    shown: int = 0
    """Rows that the bar stands at."""
    labels: Mapping[str, ColumnLabels] = field(default_factory=dict)
    """What reads ``target`` and ``contrast``, where a column holds one a row."""

    def through(self, dataset: Any, settings: Mapping[str, Any], window: int, progress: bool) -> DatasetRun:
        """Open the folder, explain this process's windows, close the folder."""
        began = time.monotonic()
        everywhere(lambda: check(dataset, self.columns))
        self.labels = {
            name: ColumnLabels(column, class_names(dataset, column), self.outputs)
            for name in ("target", "contrast")
            if (column := getattr(self.columns, name)) is not None
        }
        default = "raise" if self.state.num_processes == 1 else "skip"
        try:
            begun: Begun = on_main(
                self.state,
                lambda: self.store.open({**settings, "weights": fingerprint(self.model)}, self.on_error, default),
            )
            self.on_error = begun.on_error
            everywhere(lambda: self.store.join(begun, self.state.process_index))
            with self._bar(dataset, progress) as self.bar:
                seen = everywhere(lambda: self._explain(dataset, window, begun))
                if seen is None:
                    raise RuntimeError(f"The run was stopped: its files in {self.store.unfinished} were removed.")
                if self.state.is_main_process:
                    self._advance(0)  # others may have ended after this process's last rows
            reasons: list[Reason] = on_main(self.state, lambda: self.store.close(seen))
        finally:
            self.store.release()
        skipped = sum(reason.rows for reason in reasons)
        if skipped == seen > 0:
            warnings.warn(f"None of the {seen} rows could be explained; {self.store.manifest} says why.", stacklevel=3)
        computed = sum(gather_object([self.computed]))
        seconds = time.monotonic() - began
        return DatasetRun(
            self.store.folder, seen, skipped, tuple(reasons), computed, seconds, int(self.state.num_processes)
        )

    def _bar(self, dataset: Any, progress: bool) -> Any:
        """A progress bar; in a file, such as a cluster's log, it is written now and then only."""
        shown = progress and self.state.is_main_process
        live = sys.stderr.isatty() or "ipykernel" in sys.modules
        return logging.tqdm(
            total=count(dataset) if shown else None,
            unit="row",
            desc="explain",
            disable=not shown,
            mininterval=0.1 if live else LOG_S,
        )

    def _explain(self, dataset: Any, window: int, begun: Begun) -> int | None:
        """Explain this process's windows, wait for the other processes; returns the dataset's rows, None if stopped."""
        seen = 0
        try:
            for number, group in self._own(dataset, window, begun):
                if self.store.stopped():
                    break
                seen = group[-1].index + 1
                if number is not None:
                    self._window(number, group)
            stopped = self.store.stopped()
            if not stopped and begun.finished:
                self._check_rows(seen, max(begun.finished) * window + 1, begun)
        except Exception:
            self.store.stop()
            raise
        finally:
            self.store.end(self.state.process_index)
        while self.store.working():  # not in a collective operation, which gives up after some minutes
            time.sleep(POLL_S)
            if self.state.is_main_process:
                self._advance(0)
        return None if stopped else seen

    def _own(self, dataset: Any, size: int, begun: Begun) -> Iterator[tuple[int | None, list[Row]]]:
        """Every window of the dataset; with its number if it is for this process and not finished."""
        process, processes = self.state.process_index, self.state.num_processes
        unfinished = 0
        for number, group in enumerate(windows(rows(dataset, self.columns), size)):
            if number == 0:
                check_first(group, self.columns)
            if number in begun.finished:
                if number % processes == process:
                    self.store.check(number, group)
                    self._advance(len(group))
                yield None, group
                continue
            if begun.rows is not None:
                self._check_rows(group[-1].index + 1, 0, begun)
            yield number if unfinished % processes == process else None, group
            unfinished += 1

    def _check_rows(self, seen: int, least: int, begun: Begun) -> None:
        """Raise where the dataset has not as many rows as an earlier call found."""
        if seen < least or begun.rows not in (None, seen):
            earlier = f"at least {least}" if begun.rows is None else begun.rows
            raise InputError(
                f"The dataset has {seen} rows or more, and had {earlier} when {self.store.folder} was made of it. "
                "Give the same dataset, or another output folder."
            )

    def _window(self, number: int, group: list[Row]) -> None:
        """Explain what is missing of one window, and write its shard."""
        records = self.store.pieces(number, group)
        self._advance(len(records))
        readable, bad = self._readable(group)
        missing = [record for record in bad if record["index"] not in records]
        self._keep(number, group, missing, records)
        for batch in batches([length for _, length in readable], self.batch_tokens):
            todo = [readable[i] for i in batch if readable[i][0].index not in records]
            for fitting in batches([length for _, length in todo], self.batch_tokens):  # less where memory has run out
                if self.store.stopped():
                    return
                for part in self._fitting([todo[i] for i in fitting]):
                    self._keep(number, group, part, records)
        self.store.finish(number, group, records)

    def _readable(self, group: list[Row]) -> tuple[list[tuple[Row, int]], list[Record]]:
        """Rows with their lengths in tokens; and records of those that cannot be explained."""
        good, bad = [], []
        for row, length in zip(group, self._lengths(group), strict=True):
            if not length:
                reason = row.error or "the text has no tokens of its own"
            elif self.max_tokens is not None and length > self.max_tokens:
                reason = f"the text has {length} tokens, more than max_tokens={self.max_tokens}"
            else:
                try:
                    good.append((self._with_targets(row), length))
                except TargetError as error:
                    bad.append(self._skipped(row, error))
                continue
            bad.append(self._skipped(row, InputError(f"{reason[0].upper()}{reason[1:]}.")))
        return good, bad

    def _with_targets(self, row: Row) -> Row:
        """The row with its targets as ``explain`` takes them. TargetError: a classifier has not what they name."""
        found = {name: read(getattr(row, name)) for name, read in self.labels.items()}
        if self.outputs.kind == "class":  # a language model's may depend on the text, and is read with it
            for name, value in found.items():
                resolve_target(value, name, 1, self.outputs)
        return replace(row, **found)

    def _lengths(self, group: list[Row]) -> list[int]:
        """Tokens of every row, 0 where it has no text; some rows in one call, which a fast tokenizer reads at once."""
        texts = ["" if row.error or not row.text else row.text for row in group]
        lengths: list[int] = []
        for start in range(0, len(texts), TOGETHER):
            part = texts[start : start + TOGETHER]
            try:
                found = encode(self.tokenizer, part)["input_ids"]
            except InputError:  # one of them: the row says so when it is explained
                found = part
            lengths += [len(ids) if text else 0 for text, ids in zip(part, found, strict=True)]
        return lengths

    def _skipped(self, row: Row, error: MambaLRPError) -> Record:
        """The record of a row that is not explained; with on_error="raise" the error."""
        if self.on_error == "raise":
            raise type(error)(
                f"Row {row.index} (id {row.id!r}): {error} on_error='skip' records such rows and goes on."
            ) from error
        return {**_own(row), "error": f"{type(error).__name__}: {error}"}

    def _fitting(self, group: list[tuple[Row, int]]) -> Iterator[list[Record]]:
        """Records of a batch of rows and their lengths; in halves where memory runs out, alone where one is bad."""
        try:
            yield self._explained([row for row, _ in group])
            return
        except ROW_ERRORS as error:
            if len(group) == 1:
                yield [self._skipped(group[0][0], error)]
                return
            size = 1
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if len(group) == 1:
                row, length = group[0]
                too_large = RowMemoryError(f"Its {length} tokens do not fit into memory ({error}).")
                too_large.__cause__ = error
                yield [self._skipped(row, too_large)]
                return
            self.batch_tokens = len(group) * max(length for _, length in group) // 2  # of what did not fit
            size = (len(group) + 1) // 2
        for start in range(0, len(group), size):
            yield from self._fitting(group[start : start + size])

    def _explained(self, group: list[Row]) -> list[Record]:
        wanted = dict(self.fixed)
        if self.columns.target:
            wanted["target"] = [row.target for row in group]
        if self.columns.contrast:
            wanted["contrast"] = [row.contrast for row in group]
        explanation = self.model.explain(  # type: ignore[operator]
            [row.text for row in group], tokenizer=self.tokenizer, **wanted, **self.options
        )
        self.computed += len(group)
        records = to_records(explanation, [row.text for row in group])
        return [{**_own(row), **record} for row, record in zip(group, records, strict=True)]

    def _keep(self, number: int, group: list[Row], found: list[Record], records: dict[int, Record]) -> None:
        if found:
            self.store.add_piece(number, group, found)
            records.update((record["index"], record) for record in found)
            self._advance(len(found))

    def _advance(self, amount: int) -> None:
        """Say how far this process is; the main one shows how far all are."""
        self.done += amount
        if amount:
            self.store.report(self.state.process_index, self.done)
        if self.state.is_main_process:
            reported = self.store.reported()
            self.bar.update(reported - self.shown)  # a bar that is switched off counts nothing itself
            self.shown = reported


def _own(row: Row) -> Record:
    """What a record has of its row."""
    kept = json.dumps(row.kept) if row.kept else None
    return {"index": row.index, "id": row.id, "text": row.text, "columns": kept, "error": None}


def _named(value: Any) -> Any:
    """A setting as it stands in the manifest: what JSON has, else its name."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__name__", None) or repr(value)
