"""Finished examples of a run, a line of JSON each, so that a run that was killed goes on where it was."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_mambalrp.errors import InputError

NAME = "progress.jsonl"


class Journal:
    """``progress.jsonl``: the header, which says what the records depend on, then a record a line.

    A last line without its end, as a killed process leaves it, is dropped. Floats come back as they were written.

    Raises:
        InputError: the folder holds the records of another evaluation; says what differs.
    """

    def __init__(self, folder: Path, header: dict[str, Any], restart: bool) -> None:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file; the report goes into a folder: give another path.")
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / NAME
        self.records: list[dict[str, Any]] = []
        whole = b"" if restart or not self.path.is_file() else _whole_lines(self.path.read_bytes())
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise InputError(f"{self.path} is damaged: {error}. Use another folder, or restart.") from error
        header = json.loads(json.dumps(header))
        if len(lines) > 1:  # a header without records binds nobody
            self._check(lines[0], header)
            self.records = lines[1:]
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        else:
            self.path.write_bytes(_line(header))

    def append(self, record: dict[str, Any]) -> None:
        """Write one finished example; it is the operating system's before the next one begins."""
        with self.path.open("ab") as file:
            file.write(_line(record))

    def _check(self, there: Any, here: dict[str, Any]) -> None:
        before, now = dict(_flat(there)), dict(_flat(here))
        differing = [name for name in {**now, **before} if before.get(name) != now.get(name)]
        if differing:
            said = "; ".join(
                f"{name}: {_brief(before.get(name))} there, {_brief(now.get(name))} now" for name in differing
            )
            raise InputError(
                f"{self.path.parent} holds another evaluation ({said}). Use another folder, or restart (--restart, "
                "restart=True) to begin again in this one."
            )


def write_atomically(path: Path, text: str) -> None:
    """Write the whole file or, where the process is killed, leave the one that was there."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _whole_lines(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dictionaries by their dotted names."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:20]}..."
