"""The texts to evaluate on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hf_mambalrp.calls.labels import ColumnLabels
from hf_mambalrp.calls.targets import Outputs
from hf_mambalrp.errors import InputError, TargetError
from hf_mambalrp.runs.rows import Columns, Row, check, check_first, class_names, rows


@dataclass(frozen=True)
class Example:
    """One text, its row in the dataset, its name, and what is explained of it."""

    row: int
    id: str
    text: str
    target: Any


def read_examples(dataset: Any, columns: Columns, target: Any, outputs: Outputs) -> list[Example]:
    """Every row of the dataset, in its order.

    Args:
        dataset: what :func:`hf_mambalrp.runs.rows.rows` reads.
        columns: of it.
        target: of every row, or a list with one a row; None where ``columns`` has one.
        outputs: classes or tokens of the model.

    Raises:
        InputError: no rows, a row that cannot be read; says which. And errors of ``rows``.
        TargetError: a list of targets of another length, a row whose target is no class.
    """
    check(dataset, columns)
    found = list(rows(dataset, columns))
    check_first(found, columns)
    if not found:
        raise InputError("The dataset has no rows; give at least one text.")
    several = isinstance(target, Sequence) and not isinstance(target, str)
    if several and len(target) != len(found):
        raise TargetError(f"target has {len(target)} entries for a dataset of {len(found)} rows; give one a row.")
    read = ColumnLabels(columns.target, class_names(dataset, columns.target), outputs) if columns.target else None
    examples = []
    for number, row in enumerate(found):
        error = row.error or ("" if row.text else "the text is empty")
        if error:
            raise InputError(f"{_named(row)}: {error}. Mend or remove it.")
        try:
            own = read(row.target) if read else target[number] if several else target
        except TargetError as problem:
            raise TargetError(f"{_named(row)}: {problem}") from problem
        examples.append(Example(number, row.id, row.text, own))
    return examples


def drawn(examples: list[Example], samples: int | None, seed: int) -> list[Example]:
    """So many of the examples, drawn without replacement, in their order; all where there are not more, or for None."""
    if samples is None or samples >= len(examples):
        return examples
    chosen = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))[:samples]
    return [examples[number] for number in chosen.sort().values.tolist()]


def _named(row: Row) -> str:
    return f"Row {row.index} (id {row.id!r}) of the dataset"
