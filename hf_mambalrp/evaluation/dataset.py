"""The texts to evaluate on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch

from hf_mambalrp.calls.labels import RowTargets, check_targets
from hf_mambalrp.calls.targets import Outputs
from hf_mambalrp.errors import InputError, MambaLRPError, TargetError
from hf_mambalrp.runs.bad_rows import ROW_ERRORS, check_readable
from hf_mambalrp.runs.rows import Columns, Row, check, check_first, rows

Example = TypeVar("Example")
BadRow = tuple[Row, MambaLRPError]


def read_examples(dataset: Any, columns: Columns, target: Any, outputs: Outputs) -> tuple[list[Row], list[BadRow]]:
    """Every row of the dataset in its order, with its target; and those that cannot be read, with the reason.

    Args:
        dataset: what :func:`hf_mambalrp.runs.rows.rows` reads.
        columns: of it.
        target: of every row, or a list with one a row; None where ``columns`` has one.
        outputs: classes or tokens of the model.

    Raises:
        InputError: no rows; errors of ``rows``.
        OptionError, TargetError: of :func:`hf_mambalrp.calls.labels.check_targets`; a list of targets of another
            length.
    """
    several = isinstance(target, Sequence) and not isinstance(target, str)
    check_targets({"target": None if several else target}, columns, outputs)
    check(dataset, columns)
    found = list(rows(dataset, columns))
    check_first(found, columns)
    if not found:
        raise InputError("The dataset has no rows; give at least one text.")
    if several and len(target) != len(found):
        raise TargetError(f"target has {len(target)} entries for a dataset of {len(found)} rows; give one a row.")
    if columns.target is None:
        found = [replace(row, target=target[number] if several else target) for number, row in enumerate(found)]
    with_targets = RowTargets(dataset, columns, outputs)
    examples: list[Row] = []
    bad: list[BadRow] = []
    for row in found:
        try:
            check_readable(row)
            examples.append(with_targets(row))
        except ROW_ERRORS as error:
            bad.append((row, error))
    return examples, bad


def drawn(examples: list[Example], samples: int | None, seed: int) -> list[Example]:
    """So many of the examples, drawn without replacement, in their order; all where there are not more, or for None."""
    if samples is None or samples >= len(examples):
        return examples
    chosen = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))[:samples]
    return [examples[number] for number in chosen.sort().values.tolist()]
