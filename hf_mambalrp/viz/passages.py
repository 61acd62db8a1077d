"""Words of a long text, grouped into sentences or passages: each is again a word, with the sum of its relevance."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from hf_mambalrp.viz.segments import Span
from hf_mambalrp.viz.words import Level, Word

END = re.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+|\n+|(?<=[。！？])")
"""Where a sentence ends, the white space behind it included."""
SENTENCE, PASSAGE = 400, 800
"""Characters at most: a longer sentence is cut at a space, a longer paragraph between sentences."""


@dataclass(frozen=True)
class Passage(Word):
    """A sentence or passage as a word, with the words that it is made of."""

    words: tuple[Word, ...] = field(default=(), compare=False, repr=False)


def grouped(words: Sequence[Word], text: str | None, level: Level) -> list[Passage]:
    """Return the sentences of a row, or its passages, in reading order.

    A sentence ends at its mark or at the end of a line. A passage is a paragraph, which ends at a blank line, or as
    many of its sentences as fit into :data:`PASSAGE` characters. A word that reaches over an end belongs to what it
    starts in, so that all words are in one group each and the sums stay.
    """
    placed = text is not None and any(word.end > word.start for word in words)
    starts, read = ([word.start for word in words], text or "") if placed else _joined(words)
    ends = list(_passages(read) if level == "passage" else _sentences(read))
    found, taken, start = [], 0, 0
    for end in ends:
        until = taken
        while until < len(words) and (end == ends[-1] or starts[until] < end):
            until += 1
        if until > taken:
            found.append(_group(words[taken:until], read, (start, end), placed))
        taken, start = until, end
    return found


def _group(words: Sequence[Word], text: str, span: Span, placed: bool) -> Passage:
    piece = text[slice(*span)]
    body = piece.strip() or piece
    start = span[0] + len(piece) - len(piece.lstrip()) if piece.strip() else span[0]
    tokens = tuple(i for word in words for i in word.tokens)
    relevance, place = math.fsum(word.relevance for word in words), (start, start + len(body)) if placed else (0, 0)
    return Passage(body, relevance, *place, tokens, tuple(words))


def _joined(words: Sequence[Word]) -> tuple[list[int], str]:
    """Where words that have no place in a text start in the one that they make, a space apart; and that text."""
    starts = [0, *accumulate(len(word.text) + 1 for word in words)]
    return starts[:-1], " ".join(word.text for word in words)


def _sentences(text: str) -> Iterator[int]:
    """Where the sentences of a text end, and where one that is too long is cut."""
    start = 0
    for end in [*(match.end() for match in END.finditer(text)), len(text)]:
        while end - start > SENTENCE:
            cut = text.rfind(" ", start + 1, start + SENTENCE)
            start = cut + 1 if cut > start else start + SENTENCE
            yield start
        if end > start:
            yield end
        start = end


def _passages(text: str) -> Iterator[int]:
    """Where the passages of a text end: at blank lines, and between sentences where more would not fit."""
    start = begun = 0
    for end in _sentences(text):
        if end - start > PASSAGE and begun > start:
            yield begun
            start = begun
        piece = text[begun:end]
        if piece[len(piece.rstrip()) :].count("\n") > 1:
            yield end
            start = end
        begun = end
    if begun > start:
        yield begun
