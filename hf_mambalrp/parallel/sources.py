"""A dataset as a stream of rows: a ``datasets.Dataset``, any iterable, or a JSONL, CSV, Parquet or text file."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_mambalrp.errors import InputError
from hf_mambalrp.parallel.arrow import parquet


@dataclass(frozen=True)
class Columns:
    """Where the parts of a row are."""

    text: str = "text"
    id: str | None = None
    """None: ``id`` where a row has one, else its number."""
    target: str | None = None
    contrast: str | None = None


@dataclass(frozen=True)
class Row:
    """One row of the input; with ``error`` where it cannot be read."""

    index: int
    id: str
    text: str = ""
    target: Any = None
    contrast: Any = None
    error: str | None = None


@dataclass(frozen=True)
class Unreadable:
    """What stands in a stream for a record that its file's format does not allow."""

    reason: str


def rows(dataset: Any, columns: Columns) -> Iterator[Row]:
    """Read every row in order, without holding more than one.

    Args:
        dataset: a path (``.jsonl``, ``.csv``, ``.parquet``, ``.txt``: one text a line), or an iterable of texts or of
            mappings, such as a ``datasets.Dataset``, streaming or not.
        columns: names of its columns; a text file or an iterable of texts has only the text.

    Raises:
        InputError: a path that does not exist or has another ending; something that is no dataset.
    """
    for index, record in enumerate(_records(dataset)):
        yield _row(index, record, columns)


def count(dataset: Any) -> int | None:
    """Rows of the dataset, for a progress bar; None where only reading it would tell."""
    if isinstance(dataset, (str, Path)):
        return sum(1 for _ in _records(dataset))
    return len(dataset) if hasattr(dataset, "__len__") else None


def _records(dataset: Any) -> Iterable[Any]:
    if isinstance(dataset, (str, Path)):
        path = Path(dataset)
        read = READERS.get(path.suffix.lower())
        if read is None or not path.is_file():
            problem = f"has the ending {path.suffix!r}" if path.is_file() else "is not a file"
            raise InputError(f"{str(dataset)!r} {problem}. Give a file that ends in {', '.join(READERS)}.")
        return read(path)
    if isinstance(dataset, Mapping) or not isinstance(dataset, Iterable):
        names = f" Of a DatasetDict give one split: {sorted(dataset)}." if isinstance(dataset, Mapping) else ""
        raise InputError(
            f"A {type(dataset).__name__} is no dataset. Give a path, a datasets.Dataset, or an iterable of texts or of "
            f"mappings.{names}"
        )
    return dataset


def _row(index: int, record: Any, columns: Columns) -> Row:
    if isinstance(record, Unreadable):
        return Row(index, str(index), error=record.reason)
    if isinstance(record, str):
        return _checked(Row(index, str(index), record))
    if not isinstance(record, Mapping):
        return Row(index, str(index), error=f"the row is a {type(record).__name__}; give a text or a mapping")
    id_column = columns.id or ("id" if "id" in record else None)
    wanted = {"text": columns.text, "target": columns.target, "contrast": columns.contrast}
    missing = [name for name in (columns.id, *wanted.values()) if name is not None and record.get(name) is None]
    own_id = str(index) if id_column is None or record.get(id_column) is None else str(record[id_column])
    if missing:
        return Row(index, own_id, error=f"the row has no {missing}, only {sorted(map(str, record))}")
    values = {part: record[name] for part, name in wanted.items() if name is not None}
    text = values["text"]
    if not isinstance(text, str):
        return Row(index, own_id, error=f"column {columns.text!r} holds a {type(text).__name__}, not a text")
    return _checked(Row(index, own_id, **values))


def _checked(row: Row) -> Row:
    try:
        row.text.encode("utf-8")
    except UnicodeEncodeError as error:
        kept = row.text.encode("utf-8", "replace").decode("utf-8")
        return replace(row, text=kept, error=f"the text cannot be written as UTF-8: {error.reason}")
    return row


def _jsonl(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    yield Unreadable(f"the line is not JSON: {error}")


def _csv(path: Path) -> Iterator[Any]:
    csv.field_size_limit(2**31 - 1)  # the module's own limit is shorter than a long document
    with path.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def _parquet(path: Path) -> Iterator[Any]:
    with parquet().ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1024):
            yield from batch.to_pylist()


def _text(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield line.rstrip("\n")


READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
    ".txt": _text,
}
