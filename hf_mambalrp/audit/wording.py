"""Words in a text: found, deleted or swapped, so that what is left still reads as a text."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hf_mambalrp.errors import InputError
from hf_mambalrp.results.audit_parts import Pattern
from hf_mambalrp.viz.segments import kinds, segments

Run = tuple[str, ...]
"""Normalised words that follow each other."""

APOSTROPHES = str.maketrans("’＇", "''")
ENDING, PAUSING = ".!?…", ",;:"
OPENING, CLOSING = "([{“‘«", ")]}”’»"
EMPTY = {*map("".join, zip(OPENING, CLOSING, strict=True)), '""', "''"}
"""Brackets and quotation marks with nothing in them."""


class Place(NamedTuple):
    """A normalised word, and its characters in the text."""

    word: str
    start: int
    end: int


def normalised(text: str) -> str:
    """Return a word as words are compared: without case, in Unicode's NFKC, with one kind of apostrophe."""
    return unicodedata.normalize("NFKC", text).translate(APOSTROPHES).casefold().strip()


def places(text: str) -> list[Place]:
    """Return the words and the punctuation of a text in their order."""
    return [Place(normalised(text[start:end]), start, end) for start, end in segments(kinds(text))]


def runs_of(pattern: Pattern) -> list[Run]:
    """Return the runs of words that a pattern names. InputError: it names none."""
    parts = [pattern] if isinstance(pattern, str) else pattern
    is_one = isinstance(parts, (list, tuple)) and parts and all(isinstance(part, str) for part in parts)
    found = [tuple(place.word for place in places(part)) for part in parts] if is_one else []
    if not found or not all(found):
        raise InputError(
            f"The pattern {pattern!r} has no words; give a text such as 'via mobile', or a tuple of words that occur "
            "in one text."
        )
    return found


def occurrences(words: Sequence[str], run: Run) -> list[int]:
    """Return where a run of words begins, without overlaps."""
    found: list[int] = []
    size = len(run)
    for start in range(len(words) - size + 1):
        if tuple(words[start : start + size]) == run and (not found or start >= found[-1] + size):
            found.append(start)
    return found


def delete(text: str, runs: Sequence[Run]) -> str | None:
    """Delete every occurrence of some runs of words; None where the text lacks one, or has no other word.

    What is left keeps its form: one space between words and none before punctuation, no punctuation that belonged to
    what is gone, no empty brackets, a capital where a sentence begins. Its grammar is not repaired ("an" before a
    consonant).
    """
    found = places(text)
    words = [place.word for place in found]
    gone: set[int] = set()
    for run in runs:
        starts = occurrences(words, run)
        if not starts:
            return None
        gone.update(start + i for start in starts for i in range(len(run)))
    kept = "".join(word for i, word in enumerate(words) if i not in gone)
    if not any(char.isalnum() for char in kept):
        return None
    for i in sorted(gone, reverse=True):
        text = _without(text, found[i].start, found[i].end)
    return text


def _without(text: str, start: int, end: int) -> str:
    """The text without some of its characters, which are a word or punctuation."""
    before, after = text[:start], text[end:]
    begins = not (lead := before.rstrip().rstrip(OPENING + "\"'").rstrip()) or lead[-1] in ENDING
    capital = begins and text[start].isupper()
    while before.rstrip() and after.lstrip() and before.rstrip()[-1] + after.lstrip()[0] in EMPTY:
        before, after = before.rstrip()[:-1], after.lstrip()[1:]
    left, right = before.rstrip(), after.lstrip()
    is_word = text[start].isalnum()
    if is_word and right and right[0] in ENDING + PAUSING:
        if not left or left[-1] in ENDING + OPENING:
            after = right.lstrip(right[0])
        elif left[-1] in PAUSING:
            before, after = left[:-1], right
        right = after.lstrip()
    if right and right[0] in ENDING + PAUSING + CLOSING:
        return before.rstrip() + right
    if capital and right:
        after = after[: len(after) - len(right)] + right[0].upper() + right[1:]
    return _joined(before, after)


def _joined(before: str, after: str) -> str:
    """Two parts of a text with the white space between them that one word leaves."""
    left, right = before.rstrip(), after.lstrip()
    if not left or not right:
        return left or right
    opened = before == left and (left[-1] in OPENING or (left[-1] in "\"'" and not left[:-1].strip(" ")))
    if opened:
        return left + right
    gaps = before[len(left) :], after[: len(after) - len(right)]
    return left + max(gaps, key=lambda gap: (gap.count("\n"), bool(gap))) + right


def swap(text: str, words: Mapping[str, str]) -> str:
    """Put other words in the place of some, by their normalised form, with the case of what was there."""
    for word, start, end in reversed(places(text)):
        if word in words:
            text = text[:start] + _cased(words[word], text[start:end]) + text[end:]
    return text


def _cased(word: str, like: str) -> str:
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word
