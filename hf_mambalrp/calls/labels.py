"""What a cell of a table, or a word of a command line, says is to be explained."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hf_mambalrp.calls.targets import Outputs, resolve_target
from hf_mambalrp.errors import OptionError, TargetError
from hf_mambalrp.runs.rows import Columns, Row, class_names

NUMBER = re.compile(r"([0-9]+)(\.0+)?")
"""A class id where all is text, such as in CSV; with a fraction of 0 where a table had a missing one beside it."""


def read_label(value: Any, outputs: Outputs) -> Any:
    """A target as ``explain`` takes it, of one that is written down.

    Whole floats are ids, which is what a table makes of ids where one is missing. A text of digits is a classifier's
    id, unless the model's labels are numbers themselves: then it is a label. Of a language model every text is the text
    of tokens.
    """
    if getattr(value, "ndim", None) == 0:  # of numpy or torch
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    labels = outputs.labels
    number = NUMBER.fullmatch(value) if isinstance(value, str) and labels and value not in labels.values() else None
    if number is None:
        return value
    numbered = any(NUMBER.fullmatch(label) for label in labels.values())
    return number[1] if numbered else int(number[1])


class ColumnLabels:
    """The targets in a column of a dataset, whose classes may have names (``ClassLabel``) that say which are meant.

    Numbers of named classes are the dataset's own: where the model has labels of these names, they are what is meant,
    in whatever order the model has them; -1 is a row without a class.

    Raises:
        TargetError: named classes for a language model, or of which the model has some and lacks others.
    """

    def __init__(self, column: str, names: Sequence[str] | None, outputs: Outputs) -> None:
        self.column, self.outputs = column, outputs
        self.names: Sequence[str] | None = None
        if names is None:
            return
        labels = {label.lower() for label in outputs.labels.values()}
        lacking = [name for name in names if name.lower() not in labels]
        if not labels:
            raise TargetError(
                f"Column {column!r} holds numbers of the classes {list(names)}, and a language model has tokens. Give "
                "a column of texts or of token ids."
            )
        if 0 < len(lacking) < len(names):
            raise TargetError(
                f"Column {column!r} has the classes {list(names)}, and the model has no label {lacking}; its "
                f"labels are {list(outputs.labels.values())}. Give a column of the model's labels or ids."
            )
        self.names = None if lacking else names

    def __call__(self, value: Any) -> Any:
        """What ``explain`` takes. TargetError: a number of no class."""
        found = read_label(value, self.outputs)
        if found == -1 and not isinstance(found, bool):
            raise TargetError(f"The row has no class: column {self.column!r} holds -1.")
        if self.names is None or not isinstance(found, int) or isinstance(found, bool):
            return found
        if not 0 <= found < len(self.names):
            raise TargetError(f"Column {self.column!r} holds {found}, and its classes are 0..{len(self.names) - 1}.")
        return self.names[found]


class RowTargets:
    """What reads the targets of a dataset's rows, where columns hold one a row; errors of :class:`ColumnLabels`."""

    def __init__(self, dataset: Any, columns: Columns, outputs: Outputs) -> None:
        self.outputs = outputs
        named = {"target": columns.target, "contrast": columns.contrast}
        self.labels = {
            name: ColumnLabels(column, class_names(dataset, column), outputs)
            for name, column in named.items()
            if column is not None
        }

    def __call__(self, row: Row) -> Row:
        """The row with its targets as ``explain`` takes them. TargetError: a classifier has not what they name."""
        if not self.labels:
            return row
        found = {name: read(getattr(row, name)) for name, read in self.labels.items()}
        if self.outputs.kind == "class":  # a language model's may depend on the text, and is read with it
            for name, value in found.items():
                resolve_target(value, name, 1, self.outputs)
        return replace(row, **found)


def check_targets(fixed: Mapping[str, Any], columns: Columns, outputs: Outputs) -> None:
    """Raise for a ``target`` or ``contrast`` of all rows that no row can have.

    Raises:
        OptionError: a column holds one a row as well.
        TargetError: the model does not have it.
    """
    if any(value is not None and getattr(columns, name) for name, value in fixed.items()):
        raise OptionError("Give target and contrast for all rows, or the columns that hold them, not both.")
    for name, value in fixed.items():
        resolve_target(value, name, 1, outputs)
