"""Files of a user's, read with a sentence for what goes wrong; and files that are written whole or not at all.

A process that is killed at any point leaves no half of one.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_mambalrp.errors import InputError


def read_bytes(path: str | Path, give: str) -> bytes:
    """The bytes of a file. InputError: why it cannot be read, and what to ``give`` instead."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror or error}. Give {give}.") from error


def read_json(path: str | Path, give: str) -> Any:
    """What a file of JSON holds. InputError: as :func:`read_bytes`; it is no JSON."""
    content = read_bytes(path, give)
    try:
        return json.loads(content)
    except ValueError as error:
        raise InputError(f"{str(path)!r} is no JSON ({error}). Give {give}.") from error


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` write a file of another name, and give it its own when it is whole."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(path)
    except BaseException:  # a full disk, say: what was written of it would keep it full
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a file of text."""
    atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
