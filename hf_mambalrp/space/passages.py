"""Passages of a document: its sentences, with the relevance of the words in them."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from hf_mambalrp import Explanation
from hf_mambalrp.viz.words import Word

END = re.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+|\n+")
LONGEST = 400
"""Characters of a passage; a longer sentence is cut at a space."""


@dataclass(frozen=True)
class Passage:
    """A part of a document; its relevance is the sum over its words."""

    text: str
    words: list[Word]

    @property
    def relevance(self) -> float:
        """In units of the score."""
        return math.fsum(word.relevance for word in self.words)


def passages(ex: Explanation, text: str) -> list[Passage]:
    """Sum the words of every passage; all of them together sum to the row."""
    words = ex.words()
    spans, found, taken = list(_spans(text)), [], 0
    for number, (start, end) in enumerate(spans):
        last = number == len(spans) - 1
        until = taken
        while until < len(words) and (last or words[until].start < end):
            until += 1
        found.append(Passage(text[start:end].strip(), words[taken:until]))
        taken = until
    return [passage for passage in found if passage.words]


def _spans(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for end in [*(match.end() for match in END.finditer(text)), len(text)]:
        while end - start > LONGEST:
            cut = text.rfind(" ", start + 1, start + LONGEST)
            cut = cut + 1 if cut > start else start + LONGEST
            yield start, cut
            start = cut
        if end > start:
            yield start, end
        start = end
