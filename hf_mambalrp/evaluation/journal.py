"""Finished examples of a run, a line of JSON each, so that a run that was killed goes on where it was."""

import json
from typing import Any

from hf_mambalrp.errors import InputError
from hf_mambalrp.runs.folder import Folder

NAME = "progress.jsonl"


class Journal(Folder):
    """The output folder of ``evaluate_faithfulness``: ``progress.jsonl`` has a record a line."""

    call = "evaluate_faithfulness"
    kept = (NAME,)

    def records(self) -> list[dict[str, Any]]:
        """What is finished. Floats are as they were written; a last line that a kill has cut is removed.

        Raises:
            InputError: a line is damaged.
        """
        path = self.path / NAME
        if not path.is_file():
            return []
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            records = [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise InputError(f"{path} is damaged: {error}. Give another output folder, or restart.") from error
        with path.open("r+b") as file:
            file.truncate(len(whole))
        return records

    def append(self, record: dict[str, Any]) -> None:
        """Write one finished example; it is the operating system's before the next one begins."""
        with (self.path / NAME).open("ab") as file:
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
