"""Words of a row: tokens merged, and laid out as the text they came from."""

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hf_mambalrp.viz.wording import visible

Span = tuple[int, int]

MARKERS = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})
"""How byte-level BPE and SentencePiece write white space inside a raw token."""

UNSPACED = ("CJK ", "HIRAGANA ", "KATAKANA", "HALFWIDTH KATAKANA", "THAI ", "LAO ", "KHMER ", "MYANMAR ")
"""How Unicode's names of the letters begin in scripts that put no space between words."""


@dataclass(frozen=True)
class Word:
    """A run of tokens: its text, its summed relevance, its characters ``start:end`` of the text, its token indices.

    ``start == end`` where the tokens cover no character of the text.
    """

    text: str
    relevance: float
    start: int
    end: int
    tokens: tuple[int, ...]


def token_words(
    tokens: Sequence[str], relevance: Sequence[float], attended: Sequence[int], offsets: Sequence[Span] | None
) -> list[Word]:
    """Make every attended token a word of its own."""
    return [Word(tokens[i], relevance[i], *(offsets[i] if offsets else (0, 0)), (i,)) for i in attended]


def merge_words(
    tokens: Sequence[str],
    relevance: Sequence[float],
    attended: Sequence[int],
    *,
    special: Sequence[bool],
    offsets: Sequence[Span] | None,
    text: str | None,
) -> list[Word]:
    """Merge tokens into words; only white space separates words, so punctuation stays with its word.

    In a script without spaces, such as Chinese or Thai, every token is a word, with the punctuation behind it.

    With offsets, tokens merge while no white space of ``text`` lies between their spans; white space at the ends of a
    span is ignored, and tokens that share one character (an emoji in bytes) merge. Without offsets, a token that
    begins with white space, ``Ġ`` or ``▁`` begins a word, and if none does, nothing merges. Special tokens, tokens
    without a span and tokens of nothing but white space are words of their own, except that the one space right
    before a word belongs to it, as it does where the tokenizer keeps both in one token.
    """
    pieces = [token.translate(MARKERS) for token in tokens]
    if offsets is None or text is None:
        return [
            _word("".join(pieces[i] for i in group), (0, 0), relevance, group)
            for group in _groups_by_marker(pieces, attended, special)
        ]
    spans = [_trim(span, text) for span in offsets]
    words = []
    for group in _groups_by_span(pieces, spans, attended, special, text):
        led = len(group) > 1 and not text[slice(*spans[group[0]])].strip()
        start, end = spans[group[led]][0], max(spans[i][1] for i in group)
        words.append(_word(text[start:end] or tokens[group[0]], (start, end), relevance, group))
    return words


def _groups_by_span(
    pieces: Sequence[str], spans: Sequence[Span], attended: Sequence[int], special: Sequence[bool], text: str
) -> list[list[int]]:
    groups: list[list[int]] = []
    growing: Span | None = None  # start of the last token, end of the growing word
    space_ends: int | None = None  # where a lone space ended, if it was the last token
    for i in attended:
        start, end = spans[i]
        alone = special[i] or not text[start:end].strip()
        touches = growing and start >= growing[0] and not any(map(str.isspace, text[growing[1] : start]))
        begins = growing and start >= growing[1] and _begins_unspaced(text[start - 1 : start + 1])
        if not alone and ((touches and not begins) or start == space_ends):
            groups[-1].append(i)
        else:
            groups.append([i])
            growing = None
        growing = None if alone else (start, max(end, growing[1] if growing else end))
        space_ends = end if alone and pieces[i] == " " else None
    return groups


def _begins_unspaced(around: str) -> bool:
    """Whether a word begins at the second of two characters without a space: it is a letter (a mark above one is not),
    and one of the two is of a script without spaces.
    """
    return around[1:].isalnum() and any(unicodedata.name(letter, "").startswith(UNSPACED) for letter in around)


def _groups_by_marker(pieces: Sequence[str], attended: Sequence[int], special: Sequence[bool]) -> list[list[int]]:
    groups: list[list[int]] = []
    growing = False
    spaced = any(pieces[i] != pieces[i].strip() for i in attended)
    for i in attended:
        alone = special[i] or not pieces[i].strip() or not spaced
        if growing and not alone and not pieces[i][0].isspace():
            groups[-1].append(i)
        else:
            groups.append([i])
        growing = pieces[i] == " " or not (alone or pieces[i][-1].isspace())
    return groups


def _trim(span: Span, text: str) -> Span:
    """Drop white space from both ends of a span that holds anything else."""
    piece = text[slice(*span)]
    if not piece.strip():
        return span
    return span[0] + len(piece) - len(piece.lstrip()), span[1] - len(piece) + len(piece.rstrip())


def _word(text: str, span: Span, relevance: Sequence[float], group: list[int]) -> Word:
    return Word(text.strip() or text, math.fsum(relevance[i] for i in group), *span, tuple(group))


def layout(words: Sequence[Word], text: str | None, level: str) -> Iterator[tuple[str, str, Word]]:
    """Yield (white space before, text as shown, word): together they read like the original, and are safe to show.

    White space that is a word of its own is shown as ``␣``, ``⏎``, ``⇥``; characters of ``text`` that no token covers
    as an ellipsis. Words that have no place in the text stand a space apart.
    """
    placed = text is not None and any(word.end > word.start for word in words)
    reached, before = 0, ""
    for number, word in enumerate(words):
        body = word.text.strip()
        head, tail = word.text.split(body, 1) if body else ("", "\n" * word.text.count("\n"))
        gap = ""
        if not placed:
            gap = " " if number and level == "word" else ""
        elif text is not None and word.end > word.start:
            gap = text[reached : word.start]
            gap = "… " if gap.strip() else gap
        before += gap or head
        before = "".join(c if c in " \n\t…" else " " for c in before.replace("\r\n", "\n"))
        yield before, visible(body or word.text), word
        reached, before = max(reached, word.end), tail
