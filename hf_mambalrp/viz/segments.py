"""A text cut into words and punctuation, by Unicode's categories: what a reader sees as one piece stays one piece."""

import re
import unicodedata
from itertools import pairwise

Span = tuple[int, int]

UNSPACED = ("CJK ", "HIRAGANA ", "KATAKANA", "HALFWIDTH KATAKANA", "THAI ", "LAO ", "KHMER ", "MYANMAR ")
"""How Unicode's names of the letters begin in scripts that put no space between words."""
ALIKE = dict.fromkeys("'’＇", "'") | dict.fromkeys("-‐‑﹣－", "-")
"""Apostrophes and hyphens."""
JOINER = "\N{ZERO WIDTH JOINER}"
CONTINUING = (range(0x1160, 0x1200), range(0xD7B0, 0xD800), range(0xFF9E, 0xFFA0), range(0x1F3FB, 0x1F400))
"""Vowels and finals of decomposed Korean, Japanese voiced marks of half width, skin tones."""
FLAGS = range(0x1F1E6, 0x1F200)
"""Letters that make a flag, two by two."""

ADDRESS = re.compile(
    r"(?:(?<![A-Za-z0-9+-])[A-Za-z][A-Za-z0-9+-]*://|\bwww\.)[^\s<>\"“”]+"
    r"|(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
)
"""A web address or one of electronic mail."""
CLOSING = ".,;:!?…'’)]}»"
"""Punctuation that ends a sentence rather than an address."""
SEGMENT = re.compile(
    r"l+"  # an address
    r"|a(?:\.a)+(?![a0mj])\.?"  # U.S., e.g.
    r"|(?<![a0mj])[#@][a0_][a0mj_]*"  # a hashtag, a mention
    r"|[a0][a0mj]*(?:(?:['\-_·׳״]|(?<=0)[.,:/](?=0))[a0][a0mj]*)*"  # don't, well-known, 3.14, 10:30, 1,000
    r"|u[mj]*"
    r"|rr?[mj]*"  # a flag is two letters of its own alphabet
    r"|([^ a0ulr])[mj]*(?:(?<=j)[^ a0ulrmj][mj]*|\1[mj]*)*"  # "...", an emoji with what joins it
)
"""Over the kinds of a text's characters, one letter for each: see :func:`_kind`."""


class _Kinds(dict[int, str]):
    def __missing__(self, code: int) -> str:
        self[code] = kind = _kind(chr(code))
        return kind


_KINDS = _Kinds()


def _kind(char: str) -> str:
    """White space, a letter, u (of a script without spaces), 0 (a number), m (part of the character before it), j (of
    both neighbours), r (half a flag); other characters stand for themselves.
    """
    category, code = unicodedata.category(char), ord(char)
    if char.isspace() or char == JOINER:
        return " " if char.isspace() else "j"
    if category[0] == "M" or category == "Cf" or any(code in part for part in CONTINUING):
        return "m"
    if category[0] == "L":
        return "u" if unicodedata.name(char, "").startswith(UNSPACED) else "a"
    if category[0] == "N":
        return "0"
    return "r" if code in FLAGS else ALIKE.get(char, char)


def kinds(text: str) -> str:
    """Return a letter for each character, as :func:`_kind` says; l for those of addresses."""
    found = text.translate(_KINDS)
    if "@" not in text and "://" not in text and "www." not in text:
        return found
    parts, reached = [], 0
    for match in ADDRESS.finditer(text):
        end = match.start() + len(match[0].rstrip(CLOSING))
        parts += [found[reached : match.start()], "l" * (end - match.start())]
        reached = end
    return "".join(parts) + found[reached:]


def segments(kinds: str) -> list[Span]:
    """Cut a text of such ``kinds``: every character that is no white space is in exactly one segment, in order.

    A segment is a word, a run of one punctuation character or symbol, or a character of a script without spaces, each
    with its combining marks. A word keeps apostrophes, hyphens and underscores between its letters (``don't``,
    ``well-known``), what stands between digits (``3.14``, ``10:30``) and the stops of single letters (``U.S.``); web
    and mail addresses, hashtags and mentions are words.
    """
    return [match.span() for match in SEGMENT.finditer(kinds)]


def cut(spans: list[Span], places: list[int]) -> list[Span]:
    """Cut spans, which are in order, at the ``places`` that lie within them."""
    edges = iter(sorted(set(places)))
    place = next(edges, None)
    found: list[Span] = []
    for start, end in spans:
        inner = [start]
        while place is not None and place < end:
            if place > start:
                inner.append(place)
            place = next(edges, None)
        found += pairwise([*inner, end])
    return found


def is_boundary(kinds: str, place: int) -> bool:
    """Whether a character begins there: no combining mark does, nor what follows a joiner or is half a flag."""
    return kinds[place] not in "mj" and kinds[place - 1 : place] != "j" and kinds[place - 1 : place + 1] != "rr"
