"""Rows that a run cannot do: an error, or a record with the reason; and reasons put together for a person to read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hf_mambalrp.errors import InputError, MambaLRPError, NonFiniteRelevanceError, RowMemoryError, TargetError
from hf_mambalrp.runs.rows import Row
from hf_mambalrp.runs.text import one_line

OnError = Literal["raise", "skip"]
ROW_ERRORS = (InputError, TargetError, NonFiniteRelevanceError, RowMemoryError)
"""Errors that are of a row, not of the model or of the call."""
VARYING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\d+""")
"""In a row's error, what is of this row alone."""
FIRST = 5
"""Ids in a reason."""
SAID = 200
"""Characters of a reason, or of an id in it, that are shown."""


@dataclass(frozen=True)
class Reason:
    """Why some rows were skipped."""

    error: str
    """Error of the first of them: what differs in the others is a number or a name in it."""
    rows: int
    ids: tuple[str, ...]
    """Ids of the first few."""

    def __str__(self) -> str:
        """Return it as one line."""
        more = ", ..." if self.rows > len(self.ids) else ""
        names = ", ".join(one_line(name, SAID) for name in self.ids)
        return f"{self.rows} x {one_line(self.error, SAID)} (id {names}{more})"


def bad_row(row: Row, error: MambaLRPError, on_error: str | None) -> dict[str, Any]:
    """The record of a row that is skipped: ``index``, ``id`` and ``error``; with ``on_error="raise"`` the error."""
    if on_error == "raise":
        raise type(error)(
            f"Row {row.index} (id {row.id!r}): {error} on_error='skip' records such rows and goes on."
        ) from error
    return {"index": row.index, "id": row.id, "error": f"{type(error).__name__}: {error}"}


def check_readable(row: Row) -> None:
    """Raise :class:`InputError` for a row that could not be read."""
    if row.error:
        raise InputError(f"{row.error[0].upper()}{row.error[1:]}.")


def reasons(skipped: Sequence[Mapping[str, Any]]) -> tuple[Reason, ...]:
    """Skipped rows put together by their errors, whatever numbers and quoted names are in these; most rows first."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in skipped:
        found.setdefault(VARYING.sub("", record["error"]), []).append(record)
    ordered = sorted(found.values(), key=len, reverse=True)
    return tuple(Reason(same[0]["error"], len(same), tuple(one["id"] for one in same[:FIRST])) for same in ordered)
