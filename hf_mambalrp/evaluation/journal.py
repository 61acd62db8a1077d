"""Finished examples of a run, a line of JSON each, so that a run that was killed goes on where it was."""

from typing import Any

from hf_mambalrp.runs.folder import Folder
from hf_mambalrp.runs.lines import append_record, read_records

NAME = "progress.jsonl"


class Journal(Folder):
    """The output folder of ``evaluate_faithfulness``: ``progress.jsonl`` has a record a line."""

    call = "evaluate_faithfulness"
    kept = (NAME,)

    def records(self) -> list[dict[str, Any]]:
        """What is finished; a last line that a kill has cut is removed. InputError: a line is damaged."""
        return read_records(self.path / NAME, own=True)

    def append(self, record: dict[str, Any]) -> None:
        """Write one finished example."""
        append_record(self.path / NAME, record)
