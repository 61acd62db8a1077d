"""Records of JSON, a line each, in a file that grows by one at a time and that a kill may have cut anywhere."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_mambalrp.errors import InputError


def read_records(path: Path, *, own: bool) -> list[dict[str, Any]]:
    """The records of a file; none where there is no file. Floats are as they were written.

    A last line that is not whole is left out; of a file of one's ``own``, which no other process writes, it is removed.

    Raises:
        InputError: a line is damaged.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        records = [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}. Give another output folder, or restart.") from error
    if own:
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return records


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write one more record; it is the operating system's before the next one begins."""
    with path.open("ab") as file:
        file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
