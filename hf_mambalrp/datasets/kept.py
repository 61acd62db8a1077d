"""Work on rows that keeps what it found of each, shared by the processes that were launched."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from accelerate.utils import gather_object

from hf_mambalrp.datasets.together import everywhere, launched, on_main, taking_part
from hf_mambalrp.runs.lines import append_record, read_records
from hf_mambalrp.runs.progress import progress_bar
from hf_mambalrp.runs.shared_folder import SharedBar, SharedFolder

Record = dict[str, Any]
"""What JSON has."""


class Todo(NamedTuple):
    """What there is to do with a row."""

    key: str
    """Of all that its record depends on, beside the settings of the run."""
    make: Callable[[], Record]


class RowsFolder(SharedFolder):
    """A folder with a file of records for each process, ``rows-0.jsonl`` and so on.

    A record is found by its key, whichever process wrote it, and whatever rows there were in that run.
    """

    kept: ClassVar[tuple[str, ...]] = ("rows-*.jsonl",)

    def begin(self, settings: Mapping[str, Any]) -> str:
        """Open the folder, and let the other processes see it."""
        self.open(settings)
        return self.announce()

    def records(self, process: int) -> dict[str, Record]:
        """What is finished, by key. InputError: a line is damaged."""
        own = self._of(process)
        files = [(path, read_records(path, own=path == own)) for path in sorted(self.path.glob(self.kept[0]))]
        return {record.pop("key"): record for _, records in files for record in records}

    def add(self, process: int, key: str, record: Record) -> None:
        """Keep the record of a row."""
        append_record(self._of(process), {"key": key, **record})

    def _of(self, process: int) -> Path:
        return self.path / f"rows-{process}.jsonl"


def kept_rows(
    folder: RowsFolder,
    settings: Mapping[str, Any],
    rows: Sequence[int],
    todo: Callable[[int], Todo],
    *,
    progress: bool,
    **said: str,
) -> dict[int, Record]:
    """Return the record of every row: what the folder has, and what the processes, in turn, make and keep.

    Killed at any point and called again, on any number of processes, it makes no record again that was kept, and
    returns the same.

    Args:
        folder: whose run it is.
        settings: what all records depend on; a folder with records under other settings is refused.
        rows: their numbers, the same on every process.
        todo: looks at a row.
        progress: show a bar on the main process.
        **said: ``desc`` and ``unit`` of the bar.

    Raises:
        InputError: of the folder, as :func:`hf_mambalrp.explain_dataset`.
        RuntimeError: another process stopped.
    """
    state = launched()
    process, processes = int(state.process_index), int(state.num_processes)

    def own(bar: SharedBar) -> dict[int, Record]:
        """The records of this process's share of the rows, until another one asks to end."""
        there = folder.records(process)
        found: dict[int, Record] = {}
        for row in rows[process::processes]:
            if folder.stopped():
                break
            key, make = todo(row)
            if key not in there:
                there[key] = make()
                folder.add(process, key, there[key])
            found[row] = there[key]
            bar.advance(1)
        return found

    try:
        name = on_main(state, lambda: folder.begin(settings))
        everywhere(lambda: folder.see(name, process))
        with progress_bar(total=len(rows), shown=progress and state.is_main_process, **said) as shown:
            bar = SharedBar(folder, process, shown)
            share = taking_part(state, folder, lambda: own(bar), bar.advance)
            bar.advance()  # others may have ended after this process's last rows
        shares = [share] if processes == 1 else gather_object([share])
        on_main(state, folder.complete)
    finally:
        folder.release()
    return {row: record for each in shares for row, record in each.items()}
