"""One process's part of a run: windows of rows over processes, batches in a window, everything finished kept."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from accelerate.utils import gather_object

from hf_mambalrp.calls.explain import Options, explain_batch
from hf_mambalrp.calls.inputs import TokenizedBatch, TokenizedText, tokenize
from hf_mambalrp.calls.labels import RowTargets
from hf_mambalrp.calls.subject import Subject
from hf_mambalrp.calls.targets import Outputs
from hf_mambalrp.datasets.columns import of_row, table_of_explained
from hf_mambalrp.datasets.store import Begun, Store
from hf_mambalrp.datasets.together import everywhere, on_main, taking_part
from hf_mambalrp.errors import InputError, MambaLRPError, RowMemoryError
from hf_mambalrp.methods.memory import out_of_memory
from hf_mambalrp.models.fingerprint import fingerprint
from hf_mambalrp.results.records import Record, table_of
from hf_mambalrp.runs.bad_rows import ROW_ERRORS, Reason, bad_row, check_readable
from hf_mambalrp.runs.plan import batches, common_length, common_shape, windows
from hf_mambalrp.runs.progress import progress_bar
from hf_mambalrp.runs.rows import Columns, Row, check, check_first, count, digest, rows
from hf_mambalrp.runs.shared_folder import SharedBar
from hf_mambalrp.runs.threads import Behind, ahead
from hf_mambalrp.viz.streams import printable

TOGETHER = 64
"""Rows that are tokenized in one call."""


@dataclass(frozen=True)
class DatasetRun:
    """What a run did; the same on every process."""

    output_dir: Path
    rows: int
    """Number of rows in the dataset."""
    skipped: int
    """Number of these that were not explained; the reason of each is in column ``error`` and in the manifest."""
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


class ReadRow(NamedTuple):
    """A row that can be explained."""

    row: Row
    text: TokenizedText | str
    """Its text where it could not be tokenized, which the row says when it is explained."""
    length: int
    """In tokens, or else in characters."""


class Window(NamedTuple):
    """Consecutive rows of the dataset that are this process's."""

    rows: list[Row]
    number: int | None
    """None where an earlier call finished it."""
    readable: Sequence[ReadRow] = ()
    bad: Sequence[Record] = ()
    """Records of the rows that cannot be explained."""


@dataclass
class Share:
    """One process's part of a run."""

    subject: Subject
    store: Store
    state: Any
    columns: Columns
    outputs: Outputs
    fixed: Mapping[str, Any]
    """Target, contrast and position for all rows."""
    options: Options
    batch_tokens: int
    common_shapes: bool
    """Whether batches are padded, with rows too, so that there are few shapes, as a GPU wants them."""
    max_tokens: int | None
    seen: int = 0
    """Rows of the dataset so far, of all processes."""
    computed: int = 0
    """Rows that this process explained."""
    bar: SharedBar = field(init=False)
    targets: RowTargets = field(init=False)

    def through(self, dataset: Any, settings: Mapping[str, Any], window: int, progress: bool) -> DatasetRun:
        """Open the folder, explain this process's windows, close the folder."""
        began = time.monotonic()
        everywhere(lambda: check(dataset, self.columns))
        self.targets = RowTargets(dataset, self.columns, self.outputs)
        default = "raise" if self.state.num_processes == 1 else "skip"
        try:
            begun: Begun = on_main(
                self.state, lambda: self.store.begin({**settings, "weights": fingerprint(self.subject.model)}, default)
            )
            everywhere(lambda: self.store.join(begun, self.state.process_index))
            with self._bar(dataset, progress) as bar:
                self.bar = SharedBar(self.store, self.state.process_index, bar)
                seen = taking_part(
                    self.state, self.store, lambda: self._explain(dataset, window, begun), self.bar.advance
                )
                self.bar.advance()  # others may have ended after this process's last rows
            reasons: tuple[Reason, ...] = on_main(self.state, lambda: self.store.close(seen))
        finally:
            self.store.release()
        skipped = sum(reason.rows for reason in reasons)
        if skipped == seen > 0:
            warnings.warn(f"None of the {seen} rows could be explained; {self.store.manifest} says why.", stacklevel=3)
        computed = sum(gather_object([self.computed]))
        seconds = time.monotonic() - began
        return DatasetRun(self.store.path, seen, skipped, reasons, computed, seconds, int(self.state.num_processes))

    def _bar(self, dataset: Any, progress: bool) -> Any:
        shown = progress and self.state.is_main_process
        return progress_bar(shown=shown, total=count(dataset) if shown else None, unit="row", desc="explain")

    def _explain(self, dataset: Any, window: int, begun: Begun) -> int:
        """Explain this process's windows, until one asks to end; returns the rows of the dataset."""
        with Behind() as behind:
            for one in ahead(self._windows(dataset, window, begun)):
                self._window(one, behind)
        if not self.store.stopped() and begun.finished:
            self._check_rows(self.seen, max(begun.finished) * window + 1, begun)
        return self.seen

    def _windows(self, dataset: Any, size: int, begun: Begun) -> Iterator[Window]:
        """This process's windows of the dataset, read where they are not finished, until one asks to end.

        Those of others are passed here, in the thread that reads ahead: else what it has ahead would be one of theirs.
        """
        process, processes = self.state.process_index, self.state.num_processes
        unfinished = 0
        for number, group in enumerate(windows(rows(dataset, self.columns), size)):
            if self.store.stopped():
                return
            if number == 0:
                check_first(group, self.columns)
            self.seen = group[-1].index + 1
            if number in begun.finished:
                if number % processes == process:
                    self.store.check(number, group)
                    yield Window(group, None)
                continue
            if begun.rows is not None:
                self._check_rows(self.seen, 0, begun)
            if unfinished % processes == process:
                yield Window(group, number, *self._read(group))
            unfinished += 1

    def _check_rows(self, seen: int, least: int, begun: Begun) -> None:
        """Raise where the dataset has not as many rows as an earlier call found."""
        if seen < least or begun.rows not in (None, seen):
            earlier = f"at least {least}" if begun.rows is None else begun.rows
            raise InputError(
                f"The dataset has {seen} rows or more, and had {earlier} when {self.store.path} was made of it. "
                "Give the same dataset, or another output folder."
            )

    def _window(self, window: Window, behind: Behind) -> None:
        """Explain what is missing of one window, and write its shard."""
        rows, number = window.rows, window.number
        if number is None:
            behind.do(partial(self.bar.advance, len(rows)))
            return
        tables = self.store.pieces(number, rows)
        there = {index for table in tables for index in table["index"].to_pylist()}
        made_of = digest(rows)
        behind.do(partial(self.bar.advance, len(there)))

        def keep(make: Callable[[], Any]) -> None:
            table = make()
            self.store.add_piece(number, made_of, table)
            tables.append(table)
            self.bar.advance(len(table))

        if bad := [record for record in window.bad if record["index"] not in there]:
            behind.do(partial(keep, partial(table_of, bad)))
        for batch in self._batches(window.readable):
            todo = [window.readable[i] for i in batch if window.readable[i].row.index not in there]
            for fitting in self._batches(todo):  # less where memory has run out
                if self.store.stopped():
                    return
                for make in self._fitting([todo[i] for i in fitting]):
                    behind.do(partial(keep, make))
        behind.do(lambda: self.store.finish(number, made_of, tables))

    def _batches(self, rows: Sequence[ReadRow]) -> list[list[int]]:
        rounded = common_length if self.common_shapes else int
        return batches([one.length for one in rows], self.batch_tokens, rounded)

    def _shape(self, group: list[ReadRow]) -> tuple[int, int]:
        """Rows and length of the batch that a group is padded to."""
        lengths = [one.length for one in group]
        return common_shape(lengths, self.batch_tokens) if self.common_shapes else (len(group), max(lengths))

    def _read(self, group: list[Row]) -> tuple[list[ReadRow], list[Record]]:
        """Rows with their tokens; and records of those that cannot be explained."""
        good, bad = [], []
        for row, text in zip(group, self._tokenized(group), strict=True):
            length = len(text) if isinstance(text, str) else len(text.ids)
            try:
                check_readable(row)
                if not length:
                    raise InputError("The text has no tokens of its own.")
                if self.max_tokens is not None and length > self.max_tokens:
                    raise InputError(f"The text has {length} tokens, more than max_tokens={self.max_tokens}.")
                good.append(ReadRow(self.targets(row), text, length))
            except ROW_ERRORS as error:
                bad.append(self._skipped(row, error))
        return good, bad

    def _tokenized(self, group: list[Row]) -> Iterator[TokenizedText | str]:
        """The text of every row with its tokens; some in one call, which a fast tokenizer reads at once."""
        for start in range(0, len(group), TOGETHER):
            texts = ["" if row.error else row.text for row in group[start : start + TOGETHER]]
            try:
                yield from tokenize(texts, self.outputs.tokenizers.find())
            except InputError:  # one of them: the row says so when it is explained
                yield from texts

    def _skipped(self, row: Row, error: MambaLRPError) -> Record:
        """The record of a row that is not explained; with on_error="raise" the error."""
        return {**of_row(row), **bad_row(row, error, self.store.on_error)}

    def _fitting(self, group: list[ReadRow]) -> Iterator[Callable[[], Any]]:
        """What makes the table of a batch; in halves where memory runs out, alone where one is bad."""
        try:
            yield self._explained(group)
            return
        except ROW_ERRORS as error:
            if len(group) == 1:
                yield partial(table_of, [self._skipped(group[0].row, error)])
                return
            size = 1
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if len(group) == 1:
                too_large = RowMemoryError(f"Its {group[0].length} tokens do not fit into memory ({error}).")
                too_large.__cause__ = error
                yield partial(table_of, [self._skipped(group[0].row, too_large)])
                return
            self.batch_tokens = math.prod(self._shape(group)) // 2  # of what did not fit
            size = (len(group) + 1) // 2
        for start in range(0, len(group), size):
            yield from self._fitting(group[start : start + size])

    def _explained(self, group: list[ReadRow]) -> Callable[[], Any]:
        (count, length), own = self._shape(group), len(group)
        group = group + (count - own) * group[-1:]
        rows = [one.row for one in group]
        wanted = dict(self.fixed)
        if self.columns.target:
            wanted["target"] = [row.target for row in rows]
        if self.columns.contrast:
            wanted["contrast"] = [row.contrast for row in rows]
        tokenized = [one.text for one in group if not isinstance(one.text, str)]
        whole = TokenizedBatch(tokenized, length)
        inputs = whole if len(tokenized) == len(rows) else [row.text for row in rows]
        explained = explain_batch(
            self.subject,
            inputs,
            input_ids=None,
            attention_mask=None,
            inputs_embeds=None,
            tokenizer=self.outputs.tokenizers,
            options=self.options,
            **wanted,
        )
        self.computed += own
        return lambda: table_of_explained(explained, rows).slice(0, own)
