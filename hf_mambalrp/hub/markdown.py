"""Markdown of untrusted text: tokens, labels and names may hold anything."""

import re
from collections.abc import Sequence

from hf_mambalrp.viz.wording import visible

ACTIVE = re.compile(r"[!-/:-@\[-`{-~]")
"""ASCII punctuation: all that means something in Markdown or HTML is among it."""
HARMLESS = set(",'?%();")


def escaped(text: str) -> str:
    """Text as Markdown that shows exactly it: what has a meaning in Markdown or HTML becomes a character reference."""
    return ACTIVE.sub(lambda found: found[0] if found[0] in HARMLESS else f"&#{ord(found[0])};", visible(text))


def literal(text: str) -> str:
    """Text as a Python literal for a code block: ASCII, in one line, and without what could end the block's section."""
    return ascii(text).replace("<", "\\x3c")


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column is text, the others are numbers unless the last has words."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))
