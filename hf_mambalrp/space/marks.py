"""What answers are written with: marked words, their legend, sum and numbers. Every text is escaped here."""

from html import escape

from hf_mambalrp import Explanation
from hf_mambalrp.results.explanation import Level
from hf_mambalrp.viz.colors import MAX_ALPHA, strength
from hf_mambalrp.viz.wording import balance, ending, reading, shorten, signed, speaks, visible
from hf_mambalrp.viz.words import Word, layout

STRONG = 0.25
"""From this share of the strongest word on, a word carries its sign."""
MOST_WORDS = 40
"""Rows of a table of numbers, and columns of a heat map."""
LINES = "\n"


def coloured(ex: Explanation, level: Level) -> str:
    """A text, every word in its colour."""
    words, text = ex.words(level=level), None if ex.texts is None else ex.texts[0]
    peak = max((abs(word.relevance) for word in words), default=0.0)
    says = speaks(ex, 0)
    spans = "".join(
        escape(before) + mark(word, shown, peak, says, reachable=number == 0)
        for number, (before, shown, word) in enumerate(layout(words, text, level, ex.tokens[0]))
    )
    return f'<div class="text" role="group" aria-label="The text, coloured by relevance" dir="auto">{spans}</div>'


def mark(word: Word, shown: str, peak: float, says: tuple[str, str], *, reachable: bool = False) -> str:
    """A word that says its number on hover and on focus; the arrow keys go on from the one reachable by Tab."""
    side, part = side_of(word.relevance), strength(word.relevance, peak)
    what = {"pos": says[0], "neg": says[1], "": "no relevance"}[side]
    sign = f'<sup aria-hidden="true">{"+" if side == "pos" else "−"}</sup>' if part >= STRONG else ""
    name = safe(f"{shown}: {signed(word.relevance)}, {what}")
    return (
        f'<span class="w {side}" style="{tint(word.relevance, peak)}" role="img" aria-label="{name}" '
        f'tabindex="{-1 + reachable}" data-tip="{signed(word.relevance)}">{escape(shown)}{sign}</span>'
    )


def tint(relevance: float, peak: float) -> str:
    """How strong a word's colour and its line are."""
    part = strength(relevance, peak)
    return f"--a:{MAX_ALPHA * part:.3f};--u:{min(1.5 * part, 1):.2f}"


def how(ex: Explanation) -> str:
    """How to read a coloured text: its colours, its sum, its sentences."""
    where = "Hover or tap a word for its number, or go by Tab and ← →."
    return f"{legend(ex)}{balanced(ex)}<p class='how'>{reading(ex, 0)} {safe(ending(ex, 0))} {where}</p>"


def legend(ex: Explanation) -> str:
    """What blue and red say."""
    ends = f"--a:{MAX_ALPHA};--u:1"
    positive, negative = speaks(ex, 0)
    return (
        f'<p class="key"><span><span class="w pos" style="{ends}">word<sup>+</sup></span> blue, solid line: '
        f'{safe(positive)}</span><span><span class="w neg" style="{ends}">word<sup>−</sup></span> red, dashed line: '
        f"{safe(negative)}</span></p>"
    )


def balanced(ex: Explanation) -> str:
    """The sum that accounts for the score."""
    return f"<p class='sum'>{escape(balance(ex, 0))}</p>"


def numbers(ex: Explanation, level: Level) -> str:
    """The strongest words with their numbers, as a table to open."""
    words = ex.top(MOST_WORDS, level=level)
    total = sum(abs(word.relevance) for word in ex.words(level=level)) or 1.0
    lines = "".join(
        f'<tr><th scope="row"><bdi>{name_of(word)}</bdi></th>{number(word.relevance)}'
        f'<td class="num">{abs(word.relevance) / total:.1%}</td></tr>'
        for word in words
    )
    return (
        f"<details><summary>The numbers, strongest {level}s first</summary><table><thead><tr>"
        f"<th scope='col'>{level.capitalize()}</th><th scope='col' class='num'>Relevance</th>"
        f"<th scope='col' class='num'>Share of all |R|</th></tr></thead><tbody>{lines}</tbody></table></details>"
    )


def number(value: float) -> str:
    """A cell with a signed number."""
    return f'<td class="num {side_of(value)}-text">{signed(value)}</td>'


def side_of(relevance: float) -> str:
    """The class of a sign."""
    return "pos" if relevance > 0 else "neg" if relevance < 0 else ""


def name_of(word: Word) -> str:
    """A word at the head of its row."""
    return escape(shorten(visible(word.text), 40))


def safe(text: str, keep: str = "") -> str:
    """Escape a text and make what acts in it visible, but for the characters to ``keep``."""
    return "".join(c if c in keep else escape(visible(c) if c != " " else c) for c in text)
