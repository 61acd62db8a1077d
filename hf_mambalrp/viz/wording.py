"""How untrusted text and numbers are put into words, the same in every rendering."""

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import islice

JOINERS = "\u200c\u200d"
"""Invisible but part of correct spelling (Persian, Hindi, emoji families); they reorder nothing."""
LABEL = 32
"""Characters of a target inside a sentence."""
TABLE_LABEL = 40
"""Characters of a word in a table."""
AXIS_LABEL = 20
"""Characters of a name on an axis."""
SUMMARY_ROWS = 3
"""Rows in a summary."""


def visible(text: str) -> str:
    """Return ``text`` with nothing left that acts on a terminal or reorders what follows.

    Control, format (bidi overrides among them), surrogate and separator characters become ``⟨U+202E⟩``; newline and
    tab become ``⏎`` and ``⇥``, and spaces ``␣`` in a text of nothing but white space.
    """
    signs = {"\n": "⏎", "\t": "⇥"} | ({" ": "␣"} if text.isspace() else {})
    return "".join(signs.get(c) or (f"⟨U+{ord(c):04X}⟩" if _acts(c) else c) for c in text) or "⟨empty⟩"


def _acts(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in JOINERS


def label(text: str) -> str:
    """Return a target's text for use inside a sentence: without outer white space, not too long, and safe to show."""
    return shorten(visible(text.strip() or text), LABEL)


def table_label(text: str) -> str:
    """Return a word as it stands in a table, its white space with it."""
    return shorten(visible(text), TABLE_LABEL)


def axis_label(text: str) -> str:
    """Return a text as a name on an axis."""
    return shorten(label(text), AXIS_LABEL)


def shorten(text: str, width: int) -> str:
    """Return at most ``width`` characters of ``text``, the last an ellipsis if some were cut."""
    return text if len(text) <= width else text[: width - 1] + "…"


def signed(value: float) -> str:
    """Return a number with its sign and three decimals, or one digit and an exponent if they would all be 0."""
    if value == 0:
        return "0.000"
    return f"{value:+.3f}" if abs(value) >= 0.0005 else f"{value:+.0e}".replace("e-0", "e-")


def unsigned(value: float) -> str:
    """Return a number as :func:`signed` does, without a plus."""
    return signed(value).lstrip("+")


def summary(name: str, count: int, about: str, rows: Iterable[Sequence[str]]) -> str:
    """Return a result in plain lines: its name, how many rows it has, what it is about, and lines of the first rows."""
    lines = [f"{name} of {count} row{'s' * (count > 1)}: {visible(about)}"]
    for row, (first, *rest) in enumerate(islice(rows, SUMMARY_ROWS)):
        lines += [f"[{row}] {first}", *(f"    {line}" for line in rest)]
    return "\n".join(lines + [f"... and {count - SUMMARY_ROWS} more rows"] * (count > SUMMARY_ROWS))
