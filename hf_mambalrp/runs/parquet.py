"""Parquet files. pyarrow is an optional package, imported here when it is first needed."""

import json
from pathlib import Path
from typing import Any

from hf_mambalrp.errors import InputError, MissingExtraError


def parquet() -> Any:
    """pyarrow's Parquet module. MissingExtraError: it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError('Datasets need pyarrow: pip install "hf_mambalrp[data]"') from error
    return pyarrow.parquet


def parquet_file(path: Path) -> Any:
    """An open Parquet file. InputError: it is none, or it is damaged."""
    module = parquet()
    import pyarrow as pa

    try:
        return module.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise InputError(f"{str(path)!r} is not a Parquet file, or is damaged: {error}") from error


def read(path: Path, columns: list[str] | None = None) -> Any:
    """The table in a Parquet file, or some of its columns. InputError: it is none, or it is damaged."""
    with parquet_file(path) as file:
        return file.read(columns)


def features(path: Path) -> dict[str, Any]:
    """What ``datasets`` writes into a file about its columns, such as the names of classes; {} of another's file."""
    with parquet_file(path) as file:
        written = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
    found: dict[str, Any] = written.get("info", {}).get("features", {})
    return found
