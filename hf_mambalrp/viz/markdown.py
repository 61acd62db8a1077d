"""A document as Markdown, of untrusted text: tokens, labels and names may hold anything."""

import re
from collections.abc import Callable, Iterator, Sequence

from hf_mambalrp.viz.document import (
    Balance,
    Block,
    Cell,
    Document,
    Facts,
    Grid,
    Heading,
    Origin,
    Picture,
    Section,
    Source,
    Steps,
    Table,
    Words,
)
from hf_mambalrp.viz.wording import label, shorten, signed, table_label, visible
from hf_mambalrp.viz.words import strongest

ACTIVE = re.compile(r"[!-/:-@\[-`{-~]")
"""ASCII punctuation: all that means something in Markdown or HTML is among it."""
HARMLESS = set(",'?%();")
READABLE = {c: c for c in "\"%'()+,-./:;=?^"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
"""How punctuation stands in a file that people also read as it is; the rest has a backslash before it."""
NUMBER = re.compile(r"[+-]?[\d.]+(e-?\d+)?%?")
"""A number is shown as it is, for whoever reads the source."""
TABLE_ROWS = 10
STEP_WORDS = 4
TEXT = 600
"""Characters of an explained text."""


def escaped(text: str, *, readable: bool = False) -> str:
    """Text as Markdown that shows exactly it: what has a meaning in Markdown or HTML becomes a character reference.

    ``readable`` is for a file that is read on a disk more than in a repository: as :data:`READABLE` has it, where an
    address may become a link.
    """

    def harmless(found: re.Match[str]) -> str:
        sign = found[0]
        return READABLE.get(sign, f"\\{sign}") if readable else sign if sign in HARMLESS else f"&#{ord(sign)};"

    return ACTIVE.sub(harmless, visible(text))


def literal(text: str) -> str:
    """Text as a Python literal for a code block: ASCII, in one line, and without what could end the block's section."""
    return ascii(text).replace("<", "\\x3c")


def table(head: Sequence[str], lines: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    """A Markdown table: the first column is text; the others are on the right as ``numbers`` are, or text too."""
    rule = ["---", *("---:" if numbers else "---" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def grid(block: Grid, text: Callable[[str], str]) -> Iterator[str]:
    """A grid: its caption, its table, and how to read it; ``text`` makes Markdown of a text."""
    yield f"**{text(block.caption)}**"
    lines = [[_cell(cell, text) for cell in line] for line in ([Cell(name) for name in block.head], *block.cells)]
    yield table(lines[0], lines[1:])
    if block.reading:
        yield text(block.reading)


def _cell(cell: Cell, text: Callable[[str], str]) -> str:
    lines = [*cell.text.split("\n"), cell.mark]
    strong = {0, len(lines) - 1} if cell.strong else ()
    return "<br>".join(f"**{text(line)}**" if i in strong else text(line) for i, line in enumerate(lines) if line)


def picture(says: str, path: str) -> str:
    """A picture of the repository, with what it says in words."""
    return f"![{escaped(says)}]({path})"


def body(document: Document, pictures: Sequence[str] = (), *, with_origin: bool = True) -> str:
    """Write the sections, and what they come from; where a section has a picture, its numbers unfold below it."""
    parts = [
        part
        for number, section in enumerate(document.sections)
        for part in _section(section, pictures[number] if pictures else "")
    ]
    return "\n\n".join([*filter(None, parts), *([_origin(document.origin)] if with_origin else [])])


def _section(section: Section, drawn: str) -> Iterator[str]:
    named = [block for block in section.blocks if isinstance(block, Heading | Source)]
    numbers = [block for block in section.blocks if not isinstance(block, Heading | Source)]
    yield from _written(named)
    if drawn:
        yield from (drawn, "<details><summary>The numbers</summary>", *_written(numbers), "</details>")
    else:
        yield from _written(numbers)


def _written(blocks: Sequence[Block]) -> Iterator[str]:
    for block in blocks:
        match block:
            case Heading():
                yield f"### {escaped(block.text)}"
            case Source():
                yield f"> {escaped(shorten(visible(block.text.strip()), TEXT))}"
            case Facts():
                yield "; ".join(f"{escaped(name)} **{_value(value)}**" for name, value in block.pairs)
            case Words():
                yield from (_signs("words", block), _strongest(block.table(TABLE_ROWS)))
            case Picture():
                yield from (escaped(block.where), _signs("patches", block), _strongest(block.table(TABLE_ROWS)))
            case Steps():
                yield _steps(block)
                yield f"Conservation: {block.reading}"
            case Grid():
                yield from grid(block, _value)
            case Balance():
                ending = f" {escaped(block.ending)}" if block.ending else ""
                yield f"Conservation: {block.sum}. {block.reading}{ending}"


def _value(value: str) -> str:
    return value if NUMBER.fullmatch(value) else escaped(value)


def _signs(what: str, block: Words | Picture) -> str:
    return f"The strongest {what}: + {escaped(block.positive)}, - {escaped(block.negative)}."


def _strongest(found: Table) -> str:
    lines = [[escaped(table_label(word.text)), signed(word.relevance), found.share(word)] for word in found.words]
    return table([found.level.capitalize(), "Relevance", "Share of all absolute relevance"], lines)


def _steps(steps: Steps) -> str:
    lines = []
    for step in [*steps.steps, *steps.sums]:
        top = strongest(step.words.words, STEP_WORDS)
        words = ", ".join(f"{escaped(label(word.text))} ({signed(word.relevance)})" for word in top)
        rather = f" rather than {escaped(label(step.contrast))}" if step.contrast else ""
        lines.append([escaped(label(step.token)) + rather, step.score, step.probability, step.gap, words])
    return table(["Generated", "Score", "Probability", "Gap", "Strongest words before it"], lines)


def _origin(origin: Origin) -> str:
    used = ", ".join(f"{escaped(package)} {escaped(version)}" for package, version in origin.versions.items())
    return f"<sub>{escaped(f'{origin.role} {origin.name}')}{', with ' + used if used else ''}.</sub>"
