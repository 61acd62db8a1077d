"""A dataset as a stream of rows: a ``datasets.Dataset``, any iterable, or a JSONL, CSV, Parquet or text file."""

import csv
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from hf_mambalrp.errors import InputError
from hf_mambalrp.parallel.arrow import parquet_file


@dataclass(frozen=True)
class Columns:
    """Where the parts of a row are."""

    text: str = "text"
    id: str | None = None
    """None: ``id`` where a row has one, else its number."""
    target: str | None = None
    contrast: str | None = None

    def missing_in(self, names: Collection[str]) -> list[str]:
        """Those that are named here and not among ``names``."""
        wanted = (self.text, self.id, self.target, self.contrast)
        return [name for name in wanted if name is not None and name not in names]


@dataclass(frozen=True)
class Row:
    """One row of the input; with ``error`` where it cannot be read."""

    index: int
    id: str
    text: str = ""
    target: Any = None
    contrast: Any = None
    error: str | None = None
    seen: tuple[str, ...] = field(default=(), compare=False)
    """Columns of the record."""


@dataclass(frozen=True)
class Unreadable:
    """What stands in a stream for a record that its file's format does not allow."""

    reason: str


def rows(dataset: Any, columns: Columns) -> Iterator[Row]:
    """Read every row in order, without holding more than one.

    Args:
        dataset: a path (``.jsonl``, ``.csv``, ``.parquet``, ``.txt``: one text a line, and blank lines are no rows), or
            an iterable of texts or of mappings, such as a ``datasets.Dataset``, streaming or not.
        columns: names of its columns; a text file or an iterable of texts has only the text.

    Raises:
        InputError: a path that does not exist or has another ending; something that is no dataset.
    """
    for index, record in enumerate(_records(dataset)):
        yield _row(index, record, columns)


def check(dataset: Any, columns: Columns) -> None:
    """Raise for what no row can be read of, before anything is written.

    Raises:
        InputError: a path that does not exist or has another ending; something that is no dataset; a damaged Parquet
            file; a table (Parquet, CSV, a ``datasets.Dataset``) without one of the columns.
    """
    _records(dataset)
    names = _column_names(dataset)
    missing = [] if names is None else columns.missing_in(names)
    if missing:
        raise InputError(f"The dataset has no {missing}; its columns are {names}.")


def check_first(first: Sequence[Row], columns: Columns) -> None:
    """Raise where none of the first rows has one of the columns: then its name is wrong, rather than every row.

    Raises:
        InputError: says which column, and which there are.
    """
    names = {name for row in first for name in row.seen}
    missing = columns.missing_in(names) if names else []
    if missing:
        raise InputError(
            f"None of the first {len(first)} rows has {missing}; their columns are {sorted(names)}. Name the columns "
            "by text_column, id_column, target_column and contrast_column."
        )


def _column_names(dataset: Any) -> list[str] | None:
    """The columns of every row; None where each row has its own, or where there are none."""
    if not isinstance(dataset, (str, Path)):
        return getattr(dataset, "column_names", None)
    path = Path(dataset)
    if path.suffix.lower() == ".parquet":
        with parquet_file(path) as file:
            names: list[str] = file.schema_arrow.names
            return names
    if path.suffix.lower() == ".csv":
        with _opened(path, newline="") as lines:
            return next(csv.reader(lines), None)
    return None


def count(dataset: Any) -> int | None:
    """Rows of the dataset, for a progress bar; None where only reading it would tell."""
    if not isinstance(dataset, (str, Path)):
        return len(dataset) if hasattr(dataset, "__len__") else None
    if Path(dataset).suffix.lower() == ".parquet":
        with parquet_file(Path(dataset)) as file:
            return int(file.metadata.num_rows)
    return sum(1 for _ in _records(dataset))


def _records(dataset: Any) -> Iterable[Any]:
    if isinstance(dataset, (str, Path)):
        path = Path(dataset)
        read = READERS.get(path.suffix.lower())
        if read is None or not path.is_file():
            problem = f"has the ending {path.suffix!r}" if path.is_file() else "is not a file"
            raise InputError(f"{str(dataset)!r} {problem}. Give a file that ends in {', '.join(READERS)}.")
        return read(path)
    frame = hasattr(dataset, "columns") and hasattr(dataset, "dtypes")  # pandas iterates over the columns' names
    if frame or isinstance(dataset, Mapping) or not isinstance(dataset, Iterable):
        hint = " Of a data frame give datasets.Dataset.from_pandas(frame)." if frame else ""
        hint = f" Of a DatasetDict give one split: {sorted(dataset)}." if isinstance(dataset, Mapping) else hint
        raise InputError(
            f"A {type(dataset).__name__} is no dataset. Give a path, a datasets.Dataset, or an iterable of texts or of "
            f"mappings.{hint}"
        )
    return dataset


def _row(index: int, record: Any, columns: Columns) -> Row:
    if isinstance(record, Unreadable):
        return Row(index, str(index), error=record.reason)
    if isinstance(record, str):
        record = {columns.text: record}
    if not isinstance(record, Mapping):
        return Row(index, str(index), error=f"the row is a {type(record).__name__}; give a text or a mapping")
    return replace(_of_mapping(index, record, columns), seen=tuple(map(str, record)))


def _of_mapping(index: int, record: Mapping[Any, Any], columns: Columns) -> Row:
    id_column = columns.id or ("id" if "id" in record else None)
    wanted = {"text": columns.text, "target": columns.target, "contrast": columns.contrast}
    missing = [name for name in (columns.id, *wanted.values()) if name is not None and record.get(name) is None]
    own_id = str(index) if id_column is None or record.get(id_column) is None else _writable(str(record[id_column]))
    if missing:
        return Row(index, own_id, error=f"the row has no {missing}, only {sorted(map(str, record))}")
    values = {part: record[name] for part, name in wanted.items() if name is not None}
    text = values["text"]
    if not isinstance(text, str):
        return Row(index, own_id, error=f"column {columns.text!r} holds a {type(text).__name__}, not a text")
    written = {part: _writable(value) if isinstance(value, str) else value for part, value in values.items()}
    bad = [wanted[part] for part in values if written[part] != values[part]]
    error = f"{bad} cannot be written as UTF-8" if bad else None
    return Row(index, own_id, written["text"], written.get("target"), written.get("contrast"), error)


def _writable(text: str) -> str:
    """The text with "?" for lone surrogates: half of an escaped pair, or a byte of a file that was not UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _opened(path: Path, newline: str | None = None) -> TextIO:
    """A file of text, without the mark that spreadsheets put before it; bytes that are not UTF-8 end up surrogates."""
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def _jsonl(path: Path) -> Iterator[Any]:
    with _opened(path) as lines:
        for line in lines:
            if line.strip():
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield Unreadable(f"the line is not JSON: {error}")


def _csv(path: Path) -> Iterator[Any]:
    csv.field_size_limit(2**31 - 1)  # the module's own limit is shorter than a long document
    with _opened(path, newline="") as lines:
        yield from csv.DictReader(lines)


def _parquet(path: Path) -> Iterator[Any]:
    with parquet_file(path) as file:
        for batch in file.iter_batches(batch_size=64):
            yield from batch.to_pylist()


def _text(path: Path) -> Iterator[Any]:
    with _opened(path) as lines:
        for line in lines:
            if line.strip():
                yield line.rstrip("\n")


READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
    ".txt": _text,
}
