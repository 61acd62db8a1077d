"""A document as self-contained HTML: nothing loaded from elsewhere, every text escaped, no script but for one of ours.

Only generated tokens have that script (:mod:`hf_mambalrp.viz.generation`); a page's policy allows it by its hash.
An image stands in it as PNG in base 64. How much of it lies below its map is one of a group of radio buttons, which
style sheets read: it works by mouse, by touch and by the arrow keys, and without a script.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from hf_mambalrp.viz import generation
from hf_mambalrp.viz.colors import MAX_ALPHA, strength
from hf_mambalrp.viz.document import (
    Balance,
    Block,
    Cell,
    Document,
    Facts,
    Grid,
    Heading,
    Heat,
    Legend,
    Line,
    Lines,
    Passages,
    Picture,
    Section,
    Source,
    Steps,
    Stretch,
    Table,
    Words,
)
from hf_mambalrp.viz.markup import LAID_OUT, balance, escaped, framed, heat, mark, scale, side, table, tint
from hf_mambalrp.viz.picture import as_text, colors, enlarged, enlargement
from hf_mambalrp.viz.picture_places import strongest_place
from hf_mambalrp.viz.style import (
    ALONE,
    FIRST_VIEW,
    GENERATION_STYLE,
    GRID_STYLE,
    INDEX_STYLE,
    LINES_STYLE,
    MAP_STYLE,
    PASSAGES_STYLE,
    PICTURE_STYLE,
    STYLE,
    VIEWS,
)
from hf_mambalrp.viz.wording import label, shorten, signed, unsigned
from hf_mambalrp.viz.words import strongest

TOP_PASSAGES, TOP_WORDS, STRETCHES = 5, 10, 48
MARKED = 3000
"""Words of a long text that have markup, at most."""
SEEN = 0.02
"""From this share of the strongest word on, a word's colour can be seen."""
STYLES = {
    Grid: GRID_STYLE,
    Passages: PASSAGES_STYLE,
    Lines: f"{PASSAGES_STYLE}{LINES_STYLE}",
    Heat: MAP_STYLE,
    Picture: PICTURE_STYLE,
    Steps: GENERATION_STYLE,
}
"""What blocks need beside :data:`STYLE`."""
INDEXED = 72
"""Characters of a row in an index."""
COARSE = 2
"""From an enlargement beyond this on, an image is shown with its pixels as squares."""
REM = 16
"""Pixels, as browsers have it."""


def page(document: Document, title: str) -> str:
    """Write a complete HTML5 document."""
    return framed(title, _style(document), _body(document), _script(document), generation.SCRIPT_HASH)


def fragment(document: Document) -> str:
    """Write what a notebook cell shows, on a background of its own that fits any theme.

    The pages around it style tables, lists and headings by rules of up to two classes, and the size of a rem. Those
    rules are taken back for all that is inside, by a class that is named three times and so is stronger.
    """
    rules = f"{ALONE}{_style(document)}".replace(".hfm", ".hfm.hfm.hfm")
    rules = re.sub(r"([\d.]+)rem\b", lambda size: f"{REM * float(size[1]):g}px", rules)
    return f'<div class="hfm"><style>{rules}</style>\n{_body(document)}\n{_script(document)}</div>'


def _script(document: Document) -> str:
    chosen = any(isinstance(block, Steps) for section in document.sections for block in section.blocks)
    return f"<script>{generation.SCRIPT}</script>" if chosen else ""


def _style(document: Document) -> str:
    kinds = {type(block) for section in document.sections for block in section.blocks}
    several = INDEX_STYLE if len(document.sections) > 1 else ""
    return STYLE + "".join(style for kind, style in STYLES.items() if kind in kinds) + several


def _body(document: Document) -> str:
    if len(document.sections) > 1:
        sections = _several(document.sections)
    else:
        sections = "\n".join(f"<section>{_count(one)}{_blocks(one.blocks)}</section>" for one in document.sections)
    left_out = f'<p class="note">{escaped(document.left_out)}</p>' if document.left_out else ""
    return f"{sections}{left_out}\n<footer>{escaped(' · '.join(document.origin.parts()))}</footer>"


def _count(section: Section, more: str = "") -> str:
    return f'<p class="note">Row {section.row + 1} of {section.of}{more}</p>' if section.of > 1 else ""


def _blocks(blocks: Sequence[Block]) -> str:
    return "\n".join(WRITERS[type(block)](block) for block in blocks if type(block) in WRITERS)


def _several(sections: Sequence[Section]) -> str:
    """An index that leads to the rows, what is said of all of them once, and the rows with their tables folded."""
    name = sha256("".join(map(_title, sections)).encode()).hexdigest()[:8]
    listed = "".join(
        f'<li value="{section.row + 1}"><a href="#{name}-row-{section.row + 1}">{escaped(_title(section))}</a>'
        f"{_said(section)}</li>"
        for section in sections
    )
    blocks = [block for section in sections for block in section.blocks]
    readings = {block.reading for block in blocks if isinstance(block, Balance)}
    shared = readings.pop() if len(readings) == 1 else ""
    rows = "\n".join(
        f'<section id="{name}-row-{section.row + 1}">{_row(section, shared)}</section>' for section in sections
    )
    return (
        f'<nav class="index" aria-label="Rows"><ol>{listed}</ol></nav>{_legend_of_all(blocks)}'
        + (f'<p class="note">{escaped(shared)}</p>' if shared else "")
        + f"\n{rows}"
    )


def _title(section: Section) -> str:
    """What a row is called in an index: how its text begins, or what it asks."""
    texts = [block.text for block in section.blocks if isinstance(block, Source)] or [section.one(Heading).text]
    return shorten(" ".join(texts[0].split()), INDEXED)


def _said(section: Section) -> str:
    """What an index says of a row beside its name: the target's probability, or its score where it has none."""
    pairs = [pair for block in section.blocks if isinstance(block, Facts) for pair in block.pairs][:2]
    return f" <span>{escaped(' '.join(pairs[-1]))}</span>" if pairs else ""


def _legend_of_all(blocks: Sequence[Block]) -> str:
    says = {(block.positive, block.negative) for block in blocks if isinstance(block, Legend)}
    if not says:
        return ""
    positive, negative = says.pop() if len(says) == 1 else ("speaks for what its row asks about", "speaks against it")
    return _legend(Legend(positive, negative, "strongest against", "strongest for"))


def _row(section: Section, said: str) -> str:
    """One of several rows, without what was ``said`` of all: without the legend, and with tables folded."""
    shown: list[Block] = []
    for block in section.blocks:
        if isinstance(block, Balance) and block.reading == said:
            shown.append(replace(block, reading=""))
        elif not isinstance(block, Legend | Table | Grid):
            shown.append(block)
    peaks = [f" · full colour: ±{unsigned(block.peak)}" for block in shown if isinstance(block, Words)]
    folded = [block for block in section.blocks if isinstance(block, Table | Grid)]
    numbers = f"<details><summary>The numbers</summary>{_blocks(folded)}</details>" if folded else ""
    return f"{_count(section, ''.join(peaks[:1]))}{_blocks(shown)}{numbers}"


def _heading(heading: Heading) -> str:
    return f"<h2>{escaped(heading.text)}</h2>"


def _facts(facts: Facts) -> str:
    pairs = ((name[0].upper() + name[1:], value) for name, value in facts.pairs)
    listed = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{listed}</dl>'


def _passages(block: Passages) -> str:
    """What mattered first, a strip whose parts lead into the text, and the text, folded until one does."""
    words, strip = block.words, block.strip(STRETCHES)
    top = [] if block.level == "word" else block.top(TOP_PASSAGES)
    reached = {stretch.passage for stretch in strip} | {block.passages.index(passage) for passage in top}
    name = sha256("".join(word.text for word in words.words).encode()).hexdigest()[:8]
    listed = "".join(
        f'<li><a class="{side(passage.relevance)}-text" href="#{name}-{block.passages.index(passage)}">'
        f"{signed(passage.relevance)}</a> {_text(replace(words, words=passage.words), words)}</li>"
        for passage in top
    )
    mattered = (
        f"<h3>{len(top)} of {len(block.passages):,} {block.level}s mattered most</h3>"
        f'<ol class="passages" lang="" dir="auto">{listed}</ol>'
    )
    return (
        f"{mattered if top else _words_that_mattered(words)}"
        f"<h3>Along the text</h3>{_strip(strip, words, name)}"
        f"<details><summary>The whole text <span>{len(words.words):,} words</span></summary>"
        f'<p class="text" lang="" dir="auto">{_whole(block, reached, name)}</p></details>'
    )


def _words_that_mattered(words: Words) -> str:
    """The strongest words in a list, each with its number."""
    top = strongest(words.words, TOP_WORDS)
    listed = "".join(f"<li>{mark(word, label(word.text), words)} {signed(word.relevance)}</li>" for word in top)
    return (
        f"<h3>{len(top)} of {len(words.words):,} words mattered most</h3>"
        f'<ol class="passages" lang="" dir="auto">{listed}</ol>'
    )


def _strip(strip: Sequence[Stretch], words: Words, name: str = "") -> str:
    """Coloured parts along a text, which lead into the one of a ``name``."""
    peak = max(abs(stretch.relevance) for stretch in strip)
    tag = "a" if name else "span"
    parts = "".join(
        f'<{tag} class="{side(stretch.relevance)}" style="{tint(stretch.relevance, peak)}" '
        + (f'href="#{name}-{stretch.passage}" ' if name else 'role="img" ')
        + f'title="{_place(stretch, words)}" aria-label="{_place(stretch, words)}"></{tag}>'
        for stretch in strip
    )
    return f'<div class="strip">{parts}</div>'


def _place(stretch: Stretch, words: Words) -> str:
    end = min(stretch.first + stretch.size, len(words.words))
    return f"words {stretch.first + 1:,} to {end:,}: {signed(stretch.relevance)}"


def _whole(block: Passages, reached: set[int], name: str) -> str:
    """All of the text; what is too weak to be seen has no markup, nor have more than MARKED words."""
    words, parts = block.words, []
    shown = {word.tokens for word in strongest(words.words, MARKED) if strength(word.relevance, words.peak) >= SEEN}
    number, left = -1, 0
    for before, text, word in words.laid_out():
        begins, ends = "", ""
        if not left:
            number += 1
            left = len(block.passages[number].words)
            begins = f'<span id="{name}-{number}">' if number in reached else ""
        left -= 1
        ends = "" if left or number not in reached else "</span>"
        body = mark(word, text, words) if word.tokens in shown else escaped(text)
        parts.append(f"{escaped(before, keep=LAID_OUT)}{begins}{body}{ends}")
    return "".join(parts)


def _words(words: Words) -> str:
    """The text, unless :func:`_passages` has it."""
    return "" if words.folded else f'<p class="text" lang="" dir="auto">{_text(words, words)}</p>'


def _lines(block: Lines) -> str:
    return f'<div class="lines">{"".join(map(_line, block.lines))}</div>'


def _line(line: Line) -> str:
    about = f'<p class="note">{escaped(line.about)}</p>' if line.about else ""
    total = f'<p class="sum">{escaped(line.sum)}</p>' if line.sum else ""
    if isinstance(line.shown, Passages):
        words, strip = line.shown.words, line.shown.strip(STRETCHES)
        body, peak = _strip(strip, words), max(abs(stretch.relevance) for stretch in strip)
    else:
        words = line.shown
        body, peak = _words(words), words.peak
    meaning = f"Blue, solid line: {words.positive}; red, dashed line: {words.negative}."
    return (
        f'<section class="line"><h3>{escaped(line.name)}</h3>{about}{body}<div class="legend">'
        f'{scale(signed(-peak), signed(peak))}</div><p class="note">{escaped(meaning)}</p>{total}</section>'
    )


def _text(words: Words, among: Words) -> str:
    return "".join(
        escaped(before, keep=LAID_OUT) * bool(number or words is among) + mark(word, shown, among)
        for number, (before, shown, word) in enumerate(words.laid_out())
    )


def _legend(legend: Legend) -> str:
    ends = tint(1, 1)
    return (
        f'<div class="legend">{scale(legend.low, legend.high)}'
        f'<span class="w pos" style="{ends}">word</span><span>blue, solid underline: {escaped(legend.positive)}</span>'
        f'<span class="w neg" style="{ends}">word</span><span>red, dashed underline: {escaped(legend.negative)}</span>'
        "</div>"
    )


def _picture(picture: Picture) -> str:
    times = enlargement(picture.image)
    height, width = picture.image.shape[:2]
    alt = f"What the model saw, relevance strongest in the {strongest_place(picture.patches)}"
    image, over = picture.image, colors(enlarged(picture.heat, times), picture.peak)
    stops = "".join(
        f'<label><input type="radio" name="view"{" checked" * (view == FIRST_VIEW)}><span>{view}</span></label>'
        for view in VIEWS
    )
    # A form keeps its buttons apart from those of other pictures on the page; of this method, Enter submits nothing.
    return (
        f'<form class="picture" method="dialog"><figure><div class="stage{" coarse" * (times > COARSE)}">'
        f'<img src="data:image/png;base64,{as_text(image)}" alt="{escaped(alt)}" width="{width}" height="{height}">'
        f'<img class="over" src="data:image/png;base64,{as_text(over)}" alt=""></div>'
        f"<figcaption>{escaped(picture.where)}</figcaption></figure><div>"
        f'<fieldset class="views"><legend>Image and map</legend><div>{stops}</div></fieldset>'
        f'<div class="legend">{scale(signed(-picture.end), signed(picture.end))}'
        f'<span class="key pos"></span><span>blue: {escaped(picture.positive)}</span>'
        f'<span class="key neg"></span><span>red, striped: {escaped(picture.negative)}</span></div>'
        f'<p class="note">The ends of the scale are the relevance of {picture.cell} x {picture.cell} pixels.</p>'
        "</div></form>"
    )


def grid(block: Grid, text: Callable[[str], str] = escaped) -> str:
    """Write a grid; ``text`` makes HTML of a text."""
    head = "".join(f'<th scope="col">{_cell_lines(Cell(name), text)}</th>' for name in block.head)
    lines = "".join(
        f'<tr><th scope="row">{_cell_lines(first, text)}</th>'
        + "".join(f"<td{_shade(cell)}>{_cell_lines(cell, text)}</td>" for cell in others)
        + "</tr>"
        for first, *others in block.cells
    )
    reading = f'<p class="note">{text(block.reading)}</p>' if block.reading else ""
    return (
        f'<h3>{text(block.caption)}</h3><div class="scroll" role="region" aria-label="{escaped(block.caption)}" '
        f'tabindex="0"><table class="grid"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>{reading}'
    )


def _cell_lines(cell: Cell, text: Callable[[str], str]) -> str:
    first, *rest = (text(line) if line else "" for line in cell.text.split("\n"))
    mark = f"<em>{text(cell.mark)}</em>" if cell.mark else ""
    if cell.strong:
        first, mark = f"<b>{first}</b>", mark and f"<b>{mark}</b>"
    return first + "".join(f"<small>{line}</small>" for line in rest) + mark


def _shade(cell: Cell) -> str:
    if cell.shade is None:
        return ""
    name = "pos" if cell.shade >= 0 else "neg"
    return f' style="background:rgba(var(--{name}),{MAX_ALPHA * min(abs(cell.shade), 1):.3f})"'


WRITERS: dict[type[Block], Callable[[Any], str]] = {
    Heading: _heading,
    Facts: _facts,
    Passages: _passages,
    Words: _words,
    Lines: _lines,
    Picture: _picture,
    Legend: _legend,
    Balance: balance,
    Table: table,
    Grid: grid,
    Steps: generation.steps,
    Heat: heat,
}
"""Blocks of other kinds are not shown."""
