"""The texts to evaluate on."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hf_mambalrp.errors import InputError

TABLES = {".csv", ".tsv", ".json", ".parquet"}
"""Endings of files that are not a text a line, and would be explained line by line as if they were."""


@dataclass(frozen=True)
class Example:
    """One text, its row in the dataset, and its name: the row's "id", or its number."""

    row: int
    id: str | int
    text: str


def read_examples(dataset: "str | Path | Iterable[Any]", samples: int | None, seed: int) -> tuple[list[Example], int]:
    """Examples in the dataset's order, and the dataset's size; ``samples`` of them are drawn without replacement.

    Args:
        dataset: texts; mappings with a "text" and perhaps an "id" (a ``datasets.Dataset`` too); or a path of a .jsonl
            file of such mappings, or of a text file with a text a line, in UTF-8.
        samples: how many; None, or more than there are, is all.
        seed: of the draw.

    Raises:
        InputError: a missing file, a table, another encoding, no rows, a row without text; says which.
    """
    rows = _read_file(Path(dataset)) if isinstance(dataset, (str, Path)) else list(dataset)
    if not rows:
        raise InputError("The dataset has no rows; give at least one text.")
    examples = [_example(number, row) for number, row in enumerate(rows)]
    if samples is not None and samples < len(examples):
        drawn = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))[:samples]
        examples = [examples[number] for number in drawn.sort().values.tolist()]
    return examples, len(rows)


def _read_file(path: Path) -> list[Any]:
    if not path.is_file():
        raise InputError(f"There is no file {str(path)!r}. Give a .jsonl file with a 'text' a row, or a text a line.")
    if path.suffix.lower() in TABLES:
        raise InputError(
            f"{path.name} is a table; give a .jsonl file with a 'text' a row, or a file with a text a line."
        )
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is no UTF-8 text: {error}.") from error
    lines = [line for line in content.split("\n") if line.strip()]
    if path.suffix != ".jsonl":
        return lines
    rows = []
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise InputError(f"Row {number} of {path.name} is no JSON: {error}.") from error
    return rows


def _example(number: int, row: Any) -> Example:
    text = row.get("text") if isinstance(row, Mapping) else row
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"Row {number} of the dataset has no text: {str(row)[:60]!r}. Remove it, or name it 'text'.")
    name = row.get("id", number) if isinstance(row, Mapping) else number
    return Example(number, name if isinstance(name, int) else str(name), text.strip())
