"""Words of a row: tokens merged, and laid out as the text they came from."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, get_args

from hf_mambalrp.runs.checks import one_of
from hf_mambalrp.viz.segments import Span, cut, is_boundary, kinds, segments
from hf_mambalrp.viz.wording import visible

Level = Literal["word", "token", "sentence", "passage"]

MARKERS = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})
"""How byte-level BPE and SentencePiece write white space inside a raw token."""
LONGEST = 40
"""Characters of a word, at most: DNA is longer and has no white space."""
MANY = 8
"""So many tokens are no word where they are all of a row: it would have the row's sum and say nothing."""


@dataclass(frozen=True)
class Word:
    """A run of tokens: its text, its summed relevance, its characters ``start:end`` of the text, its token indices.

    ``start == end`` where the tokens cover no character of the text. ``tokens`` is empty, and the relevance 0, where
    the tokenizer left a word out.
    """

    text: str
    relevance: float
    start: int
    end: int
    tokens: tuple[int, ...]


def checked_level(level: Level) -> Level:
    """Return the level. OptionError: there is no such one."""
    one_of("level", level, get_args(Level))
    return level


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
    """Merge tokens into the words and the punctuation of their text, as :func:`segments` cuts it.

    No token is split: one that reaches over several segments merges them. Every character of ``text`` from the first
    token to the last that is no white space is in exactly one word, whatever the tokenizer left out. A segment longer
    than :data:`LONGEST`, or of :data:`MANY` tokens and the only one of its row, is no word: its tokens are.

    Special tokens, tokens of nothing but white space and tokens without a span are words of their own, but for one
    without a span inside a word, and for the one space right before a word: it belongs to the word, as it does where
    the tokenizer keeps both in one token.

    Without offsets the text is the tokens themselves, with ``Ġ`` and ``▁`` for a space; if there is no white space in
    them, nothing merges.
    """
    pieces = {i: tokens[i].translate(MARKERS) for i in attended}
    if text is not None and offsets is not None and any(offsets[i][0] < offsets[i][1] for i in attended):
        placed, spans = True, {i: offsets[i] for i in attended}
    else:
        placed, spans, text = False, _joined(pieces), "".join(pieces.values())
        if not any(map(str.isspace, text)):
            return [_word(pieces[i], (0, 0), relevance, [i]) for i in attended]
    inside = {i: trimmed(span, text) for i, span in spans.items()}
    groups = _groups(text, inside, {i for i in attended if special[i]}, {(i,) for i in attended if pieces[i] == " "})
    words = []
    for group in groups:
        shown = text[group.start : group.end] or (tokens if placed else pieces)[group.tokens[0]]
        words.append(_word(shown, (group.start, group.end) if placed else (0, 0), relevance, group.tokens))
    return words


@dataclass
class _Group:
    """The tokens of a word, and its characters."""

    tokens: list[int]
    start: int
    end: int


def _groups(text: str, spans: dict[int, Span], special: set[int], spaces: set[tuple[int]]) -> list[_Group]:
    """Group tokens whose segments touch, in their order; segments that no token covers stand between them."""
    alone = {i for i, span in spans.items() if not text[slice(*span)].strip()} | special
    cuts = _segments(text, spans, alone, special)
    starts = [start for start, _ in cuts]
    groups: list[_Group] = []
    covered = -1  # segments before this one; what is before the first token and behind the last may be left out
    word, at, reached, grows = _Group([], 0, 0), 0, -1, False  # the last word, where it is, its last segment
    for i, (start, end) in spans.items():
        while 0 <= covered < len(cuts) and cuts[covered][1] <= start:
            groups.append(_Group([], *cuts[covered]))
            covered += 1
        first, last = bisect_right(starts, start) - 1, bisect_left(starts, end) - 1
        if start < end:
            covered = max(covered, last + 1)
        if i in alone:
            groups.append(_Group([i], start, end))
            grows = grows and i not in special
        elif grows and word.start <= start and first <= reached:
            word.tokens += [*(j for group in groups[at + 1 :] for j in group.tokens), i]
            word.end, reached = max(word.end, cuts[last][1]), max(reached, last)
            del groups[at + 1 :]
        else:
            begins = cuts[first][0]
            if word.start < start < word.end:  # a special token without a span stands between them
                word.end = begins = start
            led = (
                groups.pop().tokens if groups and groups[-1].end == start and tuple(groups[-1].tokens) in spaces else []
            )
            word, at, reached, grows = _Group([*led, i], begins, cuts[last][1]), len(groups), last, True
            groups.append(word)
    return groups


def _segments(text: str, spans: dict[int, Span], alone: set[int], special: set[int]) -> list[Span]:
    """The segments of a text, cut at special tokens, and at tokens where they are no words."""
    of_text = kinds(text)
    found = cut(segments(of_text), [edge for i in special if spans[i][0] < spans[i][1] for edge in spans[i]])
    starts = [start for start, _ in found]
    ordinary = [span for i, span in spans.items() if i not in alone]
    begun = [bisect_right(starts, start) - 1 for start, _ in ordinary]
    used = {*begun, *(bisect_left(starts, end) - 1 for _, end in ordinary)}
    is_all = len(used) == 1 and len(ordinary) >= MANY
    return cut(
        found,
        [
            start
            for (start, _), k in zip(ordinary, begun, strict=True)
            if (is_all or found[k][1] - found[k][0] > LONGEST) and is_boundary(of_text, start)
        ],
    )


def _joined(pieces: dict[int, str]) -> dict[int, Span]:
    """The span of each token in the text that they make one after another."""
    ends = [*accumulate(map(len, pieces.values()))]
    return {i: (end - len(piece), end) for (i, piece), end in zip(pieces.items(), ends, strict=True)}


def trimmed(span: Span, text: str) -> Span:
    """Drop white space from both ends of a span that holds anything else."""
    piece = text[slice(*span)]
    if not piece.strip():
        return span
    return span[0] + len(piece) - len(piece.lstrip()), span[1] - len(piece) + len(piece.rstrip())


def _word(text: str, span: Span, relevance: Sequence[float], group: list[int]) -> Word:
    return Word(text.strip() or text, math.fsum(relevance[i] for i in group), *span, tuple(group))


def strongest(words: Sequence[Word], count: int) -> list[Word]:
    """At most ``count`` of the words, strongest first."""
    return sorted(words, key=lambda word: -abs(word.relevance))[:count]


def in_order(words: Sequence[Word], count: int) -> list[Word]:
    """At most ``count`` of the words, the strongest, in the order they have."""
    kept = {*strongest(words, count)}
    return [word for word in words if word in kept]


def layout(
    words: Sequence[Word], text: str | None, level: Level, tokens: Sequence[str] = ()
) -> Iterator[tuple[str, str, Word]]:
    """Yield (white space before, text as shown, word): together they read like the original, and are safe to show.

    White space that is a word of its own is shown as ``␣``, ``⏎``, ``⇥``; text that is in none of the ``words`` as an
    ellipsis. Words that have no place in the text stand where the white space of ``tokens`` puts them, or a space apart
    if there is none.
    """
    placed = text is not None and any(word.end > word.start for word in words)
    pieces = [] if placed or level == "token" else [token.translate(MARKERS) for token in tokens]
    spaced = any(map(str.isspace, "".join(pieces)))
    reached, before = 0, ""
    for number, word in enumerate(words):
        body = word.text.strip()
        head, tail = word.text.split(body, 1) if body else ("", "\n" * word.text.count("\n"))
        gap = ""
        if spaced:
            first, last = pieces[word.tokens[0]], pieces[word.tokens[-1]]
            if body:
                head, tail = first[: len(first) - len(first.lstrip())] * (number > 0), last[len(last.rstrip()) :]
        elif not placed:
            gap = " " if number and level == "word" else ""
        elif text is not None and word.end > word.start:
            gap = text[reached : word.start]
            gap = ("… " if set(kinds(gap.strip())) - {*"mj"} else "") if gap.strip() else gap
        before += gap or head
        before = "".join(c if c in " \n\t…" else " " for c in before.replace("\r\n", "\n"))
        yield before, visible(body or word.text), word
        reached, before = max(reached, word.end), tail
