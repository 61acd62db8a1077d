"""Finished examples of a run, a line of JSON each, so that a run that was killed goes on where it was."""

import json
from pathlib import Path
from typing import Any

from hf_mambalrp.errors import InputError
from hf_mambalrp.runs.folder import Folder

NAME = "progress.jsonl"


class Journal(Folder):
    """The output folder of ``evaluate_faithfulness``: ``progress.jsonl`` has a record a line."""

    call = "evaluate_faithfulness"
    kept = (NAME,)

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._records = self.path / NAME

    def records(self) -> list[dict[str, Any]]:
        """What is finished. Floats are as they were written; a last line that a kill has cut is removed.

        Raises:
            InputError: a line is damaged.
        """
        if not self._records.is_file():
            return []
        content = self._records.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            records = [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise InputError(f"{self._records} is damaged: {error}. Give another output folder, or restart.") from error
        with self._records.open("r+b") as file:
            file.truncate(len(whole))
        return records

    def append(self, record: dict[str, Any]) -> None:
        """Write one finished example; it is the operating system's before the next one begins."""
        with self._records.open("ab") as file:
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
