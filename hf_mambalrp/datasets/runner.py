"""One process's part of a run: windows of rows over processes, batches in a window, everything finished kept."""

import json
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from torch import nn

from hf_mambalrp.calls.labels import RowTargets
from hf_mambalrp.calls.targets import Outputs
from hf_mambalrp.calls.tokenizing import encode
from hf_mambalrp.datasets.store import Begun, Store
from hf_mambalrp.datasets.together import everywhere, on_main
from hf_mambalrp.errors import InputError, MambaLRPError, RowMemoryError
from hf_mambalrp.methods.memory import out_of_memory
from hf_mambalrp.models.fingerprint import fingerprint
from hf_mambalrp.results.records import Record, to_records
from hf_mambalrp.runs.bad_rows import ROW_ERRORS, Reason, bad_row, check_readable
from hf_mambalrp.runs.plan import batches, windows
from hf_mambalrp.runs.progress import progress_bar
from hf_mambalrp.runs.rows import Columns, Row, check, check_first, count, rows
from hf_mambalrp.viz.streams import printable

TOGETHER = 64
"""Rows whose tokens are counted in one call."""
POLL_S = 0.1
"""Seconds between looks at whether the other processes have ended."""


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


@dataclass
class Share:
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
    computed: int = 0
    done: int = 0
    """Rows of this process that are finished, by this call or an earlier one."""
    bar: Any = None
    shown: int = 0
    """Rows that the bar stands at."""
    targets: RowTargets = field(init=False)

    def through(self, dataset: Any, settings: Mapping[str, Any], window: int, progress: bool) -> DatasetRun:
        """Open the folder, explain this process's windows, close the folder."""
        began = time.monotonic()
        everywhere(lambda: check(dataset, self.columns))
        self.targets = RowTargets(dataset, self.columns, self.outputs)
        default = "raise" if self.state.num_processes == 1 else "skip"
        try:
            begun: Begun = on_main(
                self.state, lambda: self.store.begin({**settings, "weights": fingerprint(self.model)}, default)
            )
            everywhere(lambda: self.store.join(begun, self.state.process_index))
            with self._bar(dataset, progress) as self.bar:
                seen = everywhere(lambda: self._explain(dataset, window, begun))
                if seen is None:
                    raise RuntimeError(f"The run was stopped: its files in {self.store.unfinished} were removed.")
                if self.state.is_main_process:
                    self._advance(0)  # others may have ended after this process's last rows
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
                f"The dataset has {seen} rows or more, and had {earlier} when {self.store.path} was made of it. "
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
            try:
                check_readable(row)
                if not length:
                    raise InputError("The text has no tokens of its own.")
                if self.max_tokens is not None and length > self.max_tokens:
                    raise InputError(f"The text has {length} tokens, more than max_tokens={self.max_tokens}.")
                good.append((self.targets(row), length))
            except ROW_ERRORS as error:
                bad.append(self._skipped(row, error))
        return good, bad

    def _lengths(self, group: list[Row]) -> list[int]:
        """Tokens of every row, 0 where it has no text; some rows in one call, which a fast tokenizer reads at once."""
        texts = ["" if row.error else row.text for row in group]
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
        return {**_own(row), **bad_row(row, error, self.store.on_error)}

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
