"""Files that are written whole or not at all, so that a process killed at any point leaves no half of one."""

import os
from collections.abc import Callable
from pathlib import Path


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
