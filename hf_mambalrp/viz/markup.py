"""The pieces that blocks of HTML share: escaped text, words in colour, the sum, tables and heat maps."""

from html import escape

from hf_mambalrp.viz.colors import MAX_ALPHA, strength
from hf_mambalrp.viz.document import Balance, Heat, Table, Words
from hf_mambalrp.viz.style import PAGE, SHADES
from hf_mambalrp.viz.wording import signed, table_label, unsigned, visible
from hf_mambalrp.viz.words import Word

LAID_OUT = " \n\t"
"""White space that stays as it is."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a page may load."""


def escaped(text: str, keep: str = "") -> str:
    """Text as HTML that shows exactly it: nothing in it is markup, and what acts is visible but for ``keep``."""
    return "".join(c if c in keep else escape(visible(c)) for c in text) if keep else escape(visible(text))


def framed(title: str, style: str, body: str, script: str = "", script_hash: str = "") -> str:
    """Write a complete HTML5 document around a body; its policy allows no script but one with that hash."""
    return PAGE.format(
        title=escaped(title),
        style=style,
        body=body,
        script=script and f"{script}\n",
        policy=POLICY + (script and f"; script-src '{script_hash}'"),
    )


def mark(word: Word, shown: str, among: Words) -> str:
    """Write a word as it is shown, which says its number where a pointer rests on it and to a screen reader."""
    name = escaped(f"{shown}: {signed(word.relevance)} ({says(word, among)})")
    look = f'class="w {side(word.relevance)}"'
    look += f' style="{tint(word.relevance, among.peak)}"' if word.relevance else ""
    return f'<span {look} role="img" title="{name}" aria-label="{name}">{escaped(shown)}</span>'


def says(word: Word, among: Words) -> str:
    """Return what the sign of a word's relevance says."""
    return {"pos": among.positive, "neg": among.negative, "": "no relevance"}[side(word.relevance)]


def side(relevance: float) -> str:
    """Return the class of a sign."""
    return "pos" if relevance > 0 else "neg" if relevance < 0 else ""


def tint(relevance: float, peak: float) -> str:
    """Return the style of a word: how opaque its colour and its underline are."""
    part = strength(relevance, peak)
    return f"--a:{MAX_ALPHA * part:.3f};--u:{min(1.5 * part, 1):.2f}"


def scale(low: str, high: str) -> str:
    """Write the scale of colours between what stands at its ends."""
    ends = f'<span>{escaped(low)}</span><span class="ramp"></span><span>{escaped(high)}</span>'
    return f'<div class="scale">{ends}</div>'


def balance(block: Balance) -> str:
    """Write where a score went."""
    more = " ".join(filter(None, (block.reading, block.ending)))
    return f'<p class="sum"><b>{escaped(block.sum)}</b>{f"<br>{escaped(more)}" if more else ""}</p>'


def table(block: Table) -> str:
    """Write a table of words or patches with a bar each."""
    lines = "".join(
        f"<tr><td><bdi>{escaped(table_label(word.text))}</bdi></td>"
        f'<td class="num {side(word.relevance)}-text">{signed(word.relevance)}</td>'
        f'<td class="num">{block.share(word)}</td>'
        f'<td class="bars" aria-hidden="true"><div>{_bar(word.relevance, block.peak)}</div></td></tr>'
        for word in block.words
    )
    return (
        f'<table><caption>{block.caption}</caption><thead><tr><th scope="col">{block.level.capitalize()}</th>'
        f'<th scope="col" class="num">Relevance</th><th scope="col" class="num">Share of all |R|</th>'
        f'<th class="bars" aria-hidden="true"></th></tr></thead><tbody>{lines}</tbody></table>'
    )


def _bar(relevance: float, peak: float) -> str:
    if not relevance:
        return ""
    width = 50 * strength(relevance, peak)
    left = 50 - width if relevance < 0 else 50
    return f'<i style="margin-left:{left:.1f}%;width:{width:.1f}%;background:rgb(var(--{side(relevance)}))"></i>'


def heat(block: Heat) -> str:
    """Write a heat map, which unfolds."""
    peak = block.values.abs().max().item()
    head = "".join(f'<th scope="col"><bdi>{escaped(column)}</bdi></th>' for column in block.columns)
    lines = "".join(
        f'<tr><th scope="row"><bdi>{escaped(row)}</bdi></th>{"".join(_cell(value, peak) for value in values)}</tr>'
        for row, values in zip(block.rows, block.values.tolist(), strict=True)
    )
    reading = " ".join(filter(None, (block.reading, block.note)))
    return (
        f"<details{' open' if block.is_open else ''}><summary><b>{escaped(block.title)}</b> "
        f'<span>up to ±{unsigned(peak)}</span></summary><div class="map" role="region" '
        f'aria-label="{escaped(block.title)}" tabindex="0"><table><thead><tr><td></td>{head}</tr></thead>'
        f'<tbody>{lines}</tbody></table></div><div class="legend">{scale(signed(-peak), signed(peak))}</div>'
        f'<p class="note">{escaped(reading)}</p></details>'
    )


def _cell(value: float, peak: float) -> str:
    shade = round(SHADES * strength(value, peak))
    if not shade:
        return "<td></td>"
    look = f"p{shade}" if value > 0 else f"n n{shade}"
    return f'<td class="{look}" title="{signed(value)}"></td>'
