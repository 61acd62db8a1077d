"""The files that the command reads and writes."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_mambalrp.errors import InputError, MissingExtraError, OptionError


def read(path: Path) -> str:
    """The text of a file; - is standard input.

    Raises:
        InputError: it is not UTF-8; says which.
    """
    content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        name = "Standard input" if str(path) == "-" else path
        raise InputError(f"{name} is not UTF-8: {error.reason} at byte {error.start}. Convert it to UTF-8.") from error


def check_outputs(html: Path | None, json_file: Path | None, png: Path | None) -> None:
    """Raise for what could not be written, before anything is loaded or explained.

    Raises:
        InputError: a folder that is not there, a folder in place of the file, or no permission to write.
        MissingExtraError: a picture without matplotlib.
        OptionError: a picture of a kind that matplotlib cannot write.
    """
    if png is not None:
        try:
            from matplotlib.backend_bases import FigureCanvasBase
        except ImportError as error:
            raise MissingExtraError('--png needs matplotlib: pip install "hf_mambalrp[plot]"') from error
        endings = [f".{name}" for name in sorted(FigureCanvasBase.get_supported_filetypes())]
        if png.suffix.lower() not in endings:
            raise OptionError(f"--png {png} has no ending of a picture. Give a name that ends in one of {endings}.")
    for path in (html, json_file, png):
        if path is None or str(path) == "-":
            continue
        if not path.parent.is_dir():
            raise InputError(f"{path} cannot be written: there is no folder {path.parent}. Create it first.")
        if path.is_dir():
            raise InputError(f"{path} cannot be written: it is a folder. Give the name of a file.")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise InputError(f"{path} cannot be written: no permission. Give a file in a folder of your own.")


def write(path: Path | None, action: Callable[[Path], object]) -> None:
    """Write a file, if there is one to write, and say so."""
    if path is not None:
        action(path)
        if str(path) != "-":
            print(f"written: {path}", file=sys.stderr)


def write_text(path: Path, text: str) -> None:
    """Write a text and a line end; - is standard output."""
    print(text) if str(path) == "-" else path.write_text(text + "\n", encoding="utf-8")


def draw(figure: Any, path: Path) -> None:
    """Write a matplotlib figure as a picture."""
    figure.savefig(path, dpi=150, bbox_inches="tight")
