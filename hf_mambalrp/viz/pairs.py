"""Words of one text under two explanations, piece by piece, whatever each tokenizer makes of it."""

from collections.abc import Iterator, Sequence
from math import fsum
from typing import NamedTuple

from hf_mambalrp.viz.words import Word


class WordPair(NamedTuple):
    """A piece of a text with its relevance in two explanations."""

    text: str
    first: float
    second: float
    difference: float
    """``second - first``."""
    start: int
    end: int
    tokens: tuple[int, ...]
    """Of the first."""


Alone = tuple[list[Word], list[Word]]
"""Words that the first has alone, and those of the second."""


def one_by_one(first: Sequence[Word], second: Sequence[Word]) -> list[WordPair]:
    """Pair the words of two that have the same tokens."""
    return [
        WordPair(a.text, a.relevance, b.relevance, b.relevance - a.relevance, a.start, a.end, a.tokens)
        for a, b in zip(first, second, strict=True)
    ]


def overlapping(first: Sequence[Word], second: Sequence[Word], text: str) -> tuple[list[WordPair], Alone]:
    """Pair what two tokenizers make of a ``text``: words that share a character are one piece, with the sums of both.

    So a piece is a word where both have the same words, and several where one of them keeps in one token what the other
    parts. Words without a character of the text, such as special tokens, and white space that one has alone have no
    partner.
    """
    pairs: list[WordPair] = []
    alone: Alone = ([], [])
    for group in _groups(first, second, len(text)):
        if all(group):
            members = group[0] + group[1]
            start, end = min(word.start for word in members), max(word.end for word in members)
            one, other = (fsum(word.relevance for word in part) for part in group)
            tokens = tuple(i for word in group[0] for i in word.tokens)
            pairs.append(WordPair(text[start:end], one, other, other - one, start, end, tokens))
        else:
            alone[0].extend(group[0])
            alone[1].extend(group[1])
    return pairs, alone


def _groups(first: Sequence[Word], second: Sequence[Word], length: int) -> Iterator[tuple[list[Word], list[Word]]]:
    """The words of both, grouped by the characters that they share, of which the text has ``length``."""
    words = [(word, side) for side, words in enumerate((first, second)) for word in words]
    placed = sorted((pair for pair in words if _is_placed(pair[0], length)), key=lambda pair: pair[0].start)
    group: tuple[list[Word], list[Word]] = ([], [])
    reached = 0
    for word, side in placed:
        if word.start >= reached and any(group):
            yield group
            group = ([], [])
        group[side].append(word)
        reached = max(reached, word.end)
    if any(group):
        yield group
    for word, side in words:
        if not _is_placed(word, length):
            yield ([word], []) if side == 0 else ([], [word])


def _is_placed(word: Word, length: int) -> bool:
    return word.start < min(word.end, length)
