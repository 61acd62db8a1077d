"""The files that the command reads and writes."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_mambalrp.errors import InputError, MissingExtraError, OptionError
from hf_mambalrp.runs.files import read_bytes
from hf_mambalrp.runs.rows import READERS, Columns, check, check_first, jsonl_records, rows, text_records
from hf_mambalrp.runs.text import decode, split_lines, without_end

TABLES = READERS.keys() - {".txt"}
"""Endings of files with a row a text; every other file is text."""
OTHER_TABLES = {".tsv", ".json"}
PATH = re.compile(r"(?!\w+://)\S+\.(txt|md|jsonl?|csv|tsv|parquet|html?|log|rst|pdf|docx?)", re.IGNORECASE)
"""What looks like the name of a file."""
PICTURE = re.compile(r".+\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic)", re.IGNORECASE)


def read_file(path: Path) -> str:
    """The text of a file; - is standard input.

    Raises:
        InputError: it cannot be read; it is no text of an encoding that is known: says which, and at which byte.
    """
    if str(path) != "-":
        return decode(read_bytes(path, "the path of a file"), path)
    if sys.stdin is None:
        raise InputError("There is no standard input to read. Give a file, or a text.")
    return decode(sys.stdin.buffer.read(), "Standard input")


def read_texts(command: str, text: str | None, file: Path | None, lines: bool, text_column: str | None) -> list[str]:
    """The texts that the command was given, as they stand there.

    Of a file or standard input the one line end at its end is no part of the text, nor are those of ``lines``; blank
    lines are left out. Of a table every row has a text.

    Raises:
        InputError: a text and a file, or neither; nothing but white space; a row or a byte that cannot be read.
        OptionError: a column of what is no table.
    """
    if (text is None) == (file is None):
        given = "both were" if text is not None else "neither was"
        raise InputError(
            f"Give a text or --file, and {given} given. Example: hf-mambalrp {command} 'Once there was a lovely film'"
        )
    ending = "" if file is None else file.suffix.lower()
    piped = "-" in (text, str(file))
    if file is not None and ending in TABLES:
        return _of_rows(file, str(file), text_column or "text")
    if piped and lines:
        return _of_rows(_piped_rows(), "standard input", text_column or "text")
    if text_column is not None:
        raise OptionError(f"--text-column is of rows: of a file that ends in {', '.join(sorted(TABLES))}.")
    if lines and ending in OTHER_TABLES:
        raise InputError(f"{file} is a table that is not read. Give one that ends in {', '.join(sorted(TABLES))}.")
    if file is not None or piped:
        found = [without_end(read_file(file or Path("-")))]
    else:
        assert text is not None
        _say_if_path(text)
        found = [text]
    if lines:
        found = list(text_records(split_lines(found[0])))
    if not any(one.strip() for one in found):
        raise InputError("The text is empty; there is nothing to explain.")
    return found


def read_dataset(data: Path, columns: Columns) -> Any:
    """What the library reads the rows of, checked for the columns; - is standard input."""
    dataset = _piped_rows() if str(data) == "-" else data
    check(dataset, columns)
    return dataset


def _piped_rows() -> list[Any]:
    """The rows in standard input: JSON objects, one a line, or else a text a line; blank lines are none."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("Standard input cannot be read by several processes. Write it to a file, and give that.")
    lines = list(split_lines(read_file(Path("-"))))
    records = list(jsonl_records(lines))
    return records if records and isinstance(records[0], dict) else list(text_records(lines))


def _of_rows(dataset: Any, name: str, text_column: str) -> list[str]:
    columns = Columns(text_column)
    check(dataset, columns)
    found = list(rows(dataset, columns))
    check_first(found, columns)
    for row in found:
        error = row.error or ("" if row.text.strip() else "its text is empty")
        if error:
            raise InputError(
                f"Row {row.index} (id {row.id!r}) of {name}: {error}. `explain-dataset` can skip such rows."
            )
    if not found:
        raise InputError(f"{name} has no rows: it is empty, and there is nothing to explain.")
    return [row.text for row in found]


def _say_if_path(text: str) -> None:
    if PICTURE.fullmatch(text):
        print(f"note: {text!r} itself is read as the text; of a picture: explain-image {text}", file=sys.stderr)
    elif PATH.fullmatch(text) or os.path.isfile(text):
        print(f"note: {text!r} itself is read as the text; for what is in a file give --file {text}", file=sys.stderr)


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
    check_paths(html, json_file, png)


def check_paths(*paths: Path | None) -> None:
    """Raise for what could not be written. InputError: as for :func:`check_outputs`."""
    for path in paths:
        if path is None or str(path) == "-":
            continue
        if not path.parent.is_dir():
            raise InputError(f"{path} cannot be written: there is no folder {path.parent}. Create it first.")
        if path.is_dir():
            raise InputError(f"{path} cannot be written: it is a folder. Give the name of a file.")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise InputError(f"{path} cannot be written: no permission. Give a file in a folder of your own.")


def write_output(path: Path | None, action: Callable[[Path], object]) -> None:
    """Write a file, if there is one to write, and say so; - is standard output, which is for :func:`show`."""
    if path is not None and str(path) != "-":
        action(path)
        print(f"written: {path}", file=sys.stderr)


def show(json_file: Path | None, numbers: Callable[[], str], reading: Callable[[], str]) -> None:
    """Print the reading, or the numbers where they were asked for on standard output; after every file is written."""
    print(numbers() if json_file is not None and str(json_file) == "-" else reading())


def for_terminal(result: Any, **options: Any) -> str:
    """What a result shows in this terminal, in colour where it can, with the options of its ``to_text``."""
    from rich.console import Console

    console = Console()
    color = console.is_terminal and not console.no_color
    shown: str = result.to_text(color=color, width=console.width, **options)
    return shown


def draw(figure: Any, path: Path) -> None:
    """Write a matplotlib figure as a picture."""
    figure.savefig(path, dpi=150, bbox_inches="tight")
