"""A dataset as a stream of rows: a ``datasets.Dataset``, any iterable, or a JSONL, CSV, Parquet or text file."""

import csv
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import isinf, isnan
from pathlib import Path
from typing import Any

from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.runs.parquet import features, parquet_file
from hf_mambalrp.runs.text import Line, read_lines, without_end


@dataclass(frozen=True)
class Columns:
    """Where the parts of a row are."""

    text: str = "text"
    id: str | None = None
    """None: ``id`` where a row has one, else its number."""
    target: str | None = None
    contrast: str | None = None
    kept: Sequence[str] = ()
    """Columns that travel with the row's explanation."""

    def __post_init__(self) -> None:
        if isinstance(self.kept, str) or not all(isinstance(name, str) for name in self.kept):
            raise OptionError(f"columns={self.kept!r} is not allowed; give a list of names.")
        object.__setattr__(self, "kept", tuple(self.kept))

    def missing_in(self, names: Collection[str]) -> list[str]:
        """Those that are named here and not among ``names``."""
        wanted = (self.text, self.id, self.target, self.contrast, *self.kept)
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
    kept: Mapping[str, Any] = field(default_factory=dict)
    """Plain values of the columns that travel with the row."""
    seen: tuple[str, ...] = field(default=(), compare=False)
    """Columns of the record."""


@dataclass(frozen=True)
class Unreadable:
    """What stands in a stream for a record that its file's format does not allow; ``record`` is what is left of it."""

    reason: str
    record: Any = None


def rows(dataset: Any, columns: Columns) -> Iterator[Row]:
    r"""Read every row in order, without holding more than one. Its text is what stands there: nothing is stripped.

    Args:
        dataset: a path (``.jsonl``, ``.csv``, ``.parquet``, ``.txt``: one text a line, without its line end, and blank
            lines are no rows), or an iterable of texts or of mappings, such as a ``datasets.Dataset``, streaming or
            not. :mod:`hf_mambalrp.runs.text` says what a file of text may be.
        columns: names of its columns; a text file or an iterable of texts has only the text.

    Raises:
        InputError: a path that does not exist or has another ending; something that is no dataset.
    """
    for index, record in enumerate(records(dataset)):
        yield _row(index, record, columns)


def check(dataset: Any, columns: Columns) -> None:
    """Raise for what no row can be read of, before anything is written.

    Raises:
        InputError: a path that does not exist or has another ending; something that is no dataset; a damaged Parquet
            file; a table (Parquet, CSV, a ``datasets.Dataset``) without one of the columns.
    """
    records(dataset)
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
            "by text_column, id_column, target_column, contrast_column and columns."
        )


def digest(rows: Sequence[Row]) -> bytes:
    """A fingerprint of what these rows hold."""
    content = [[row.id, row.text, row.target, row.contrast, row.error, dict(row.kept)] for row in rows]
    return hashlib.sha256(json.dumps(content, default=str).encode("utf-8", "surrogatepass")).hexdigest().encode()


def class_names(dataset: Any, column: str) -> list[str] | None:
    """The names of a column's classes, of which its rows hold the numbers; None where the dataset names none."""
    if isinstance(dataset, (str, Path)):
        path = Path(dataset)
        found = features(path).get(column) if path.suffix.lower() == ".parquet" else None
        return found["names"] if isinstance(found, Mapping) and found.get("_type") == "ClassLabel" else None
    found = (getattr(dataset, "features", None) or {}).get(column)
    return list(found.names) if found is not None and type(found).__name__ == "ClassLabel" else None


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
        return next(csv.reader(line.text for line in read_lines(path)), None)
    return None


def count(dataset: Any) -> int | None:
    """Rows of the dataset, for a progress bar; None where only reading it would tell."""
    if not isinstance(dataset, (str, Path)):
        return len(dataset) if hasattr(dataset, "__len__") else None
    if Path(dataset).suffix.lower() == ".parquet":
        with parquet_file(Path(dataset)) as file:
            return int(file.metadata.num_rows)
    return sum(1 for _ in records(dataset))


def records(dataset: Any) -> Iterable[Any]:
    """Every record as it stands there, an :class:`Unreadable` for a bad one. InputError: as :func:`rows`."""
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
        left = Row(index, str(index)) if record.record is None else _row(index, record.record, columns)
        return replace(left, error=record.reason)
    if isinstance(record, str):
        record = {columns.text: record}
    if not isinstance(record, Mapping):
        return Row(index, str(index), error=f"the row is a {type(record).__name__}; give a text or a mapping")
    return _of_mapping(index, record, columns)


def _of_mapping(index: int, record: Mapping[Any, Any], columns: Columns) -> Row:
    id_column = columns.id or ("id" if "id" in record else None)
    wanted = {"text": columns.text, "target": columns.target, "contrast": columns.contrast}
    own_id = _id(index, None if id_column is None else record.get(id_column))
    kept = {name: _plain(record.get(name)) for name in columns.kept}
    row = partial(Row, index, own_id, kept=kept, seen=tuple(map(str, record)))
    absent = [name for name in (columns.id, *wanted.values()) if name is not None and name not in record]
    if absent:
        return row(error=f"the row has no {absent}, only {sorted(map(str, record))}")
    values = {part: record[name] for part, name in wanted.items() if name is not None}
    empty = [wanted[part] for part, value in values.items() if _missing(value) or (part != "text" and value == "")]
    if empty:
        return row(error=f"the row has nothing in column {', '.join(map(repr, empty))}")
    text = values["text"]
    if not isinstance(text, str):
        return row(error=f"column {columns.text!r} holds a {type(text).__name__}, not a text")
    if not text:
        return row(error="the text is empty: it has no tokens")
    written = {part: _writable(value) if isinstance(value, str) else value for part, value in values.items()}
    bad = [wanted[part] for part in values if isinstance(values[part], str) and written[part] != values[part]]
    error = f"{bad} cannot be written as UTF-8" if bad else None
    return row(written["text"], written.get("target"), written.get("contrast"), error)


def _id(index: int, value: Any) -> str:
    """An id as a text; the row's number where it has none. A table with a missing id makes 7 into 7.0."""
    if _missing(value):
        return str(index)
    whole = isinstance(value, float) and value.is_integer()
    return _writable(str(int(value) if whole else value))


def _missing(value: Any) -> bool:
    """Whether a cell is empty: None, NaN, or what pandas puts there."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and isnan(value))


def _plain(value: Any) -> Any:
    """A cell as JSON has it; what JSON has not becomes a text."""
    if hasattr(value, "tolist"):  # of numpy
        value = value.tolist()
    if _missing(value) or isinstance(value, (bool, int)):
        return None if _missing(value) else value
    if isinstance(value, float):
        return str(value) if isinf(value) else value
    if isinstance(value, Mapping):
        return {_writable(str(name)): _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else _writable(str(value))


def _writable(text: str) -> str:
    """The text with "?" for lone surrogates, half of an escaped pair."""
    return text.encode("utf-8", "replace").decode("utf-8")


def jsonl_records(lines: Iterable[Line]) -> Iterator[Any]:
    """The record of every line that is not blank."""
    for line in lines:
        if line.error:
            yield Unreadable(f"the line {line.error}", _json_or_none(line.text))
        elif line.text.strip():
            try:
                yield json.loads(line.text)
            except (ValueError, RecursionError) as error:
                yield Unreadable(f"the line is not JSON: {error}")


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def text_records(lines: Iterable[Line]) -> Iterator[Any]:
    """The text of every line that is not blank."""
    for line in lines:
        text = without_end(line.text)
        if line.error:
            yield Unreadable(f"the line {line.error}", text)
        elif text.strip():
            yield text


def _csv(path: Path) -> Iterator[Any]:
    csv.field_size_limit(2**31 - 1)  # the module's own limit is shorter than a long document
    bad: list[str] = []

    def lines() -> Iterator[str]:
        for line in read_lines(path):
            bad.extend([line.error] if line.error else [])
            yield line.text

    try:
        for record in csv.DictReader(lines()):
            more = len(record.pop(None, ()))
            if bad:
                yield Unreadable(f"the row {bad[0]}", record)
                bad.clear()
            elif more:
                cells = f"{len(record) + more} cells, the first row {len(record)}"
                yield Unreadable(f"the row has {cells}: a text with commas needs quotes around it", record)
            else:
                yield record
    except csv.Error as error:
        raise InputError(f"{str(path)!r} is not CSV: {error}.") from error


def _parquet(path: Path) -> Iterator[Any]:
    with parquet_file(path) as file:
        for batch in file.iter_batches(batch_size=64):
            yield from batch.to_pylist()


READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".jsonl": lambda path: jsonl_records(read_lines(path)),
    ".csv": _csv,
    ".parquet": _parquet,
    ".txt": lambda path: text_records(read_lines(path)),
}
