"""A document for a terminal: rich text whose signs and numbers are written out, and that acts on nothing."""

from collections.abc import Iterator
from io import StringIO

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from hf_mambalrp.viz.colors import TERMINAL_NEGATIVE, TERMINAL_POSITIVE, strength
from hf_mambalrp.viz.document import (
    Balance,
    Document,
    Facts,
    GeneratedToken,
    Grid,
    Heading,
    Legend,
    Lines,
    Passages,
    Picture,
    Section,
    Steps,
    Words,
)
from hf_mambalrp.viz.picture_terminal import PictureLines
from hf_mambalrp.viz.wording import label, shorten, signed, visible
from hf_mambalrp.viz.words import Word, strongest

NUMBERED = 8
"""So many of the strongest words carry their number in the text."""
STEP_WORDS = 4
"""Words beside a generated token."""
TOP_PASSAGES, TOP_CHARACTERS, STRETCHES = 5, 200, 60
BARS = " ▁▂▃▄▅▆▇█"
STRONG, FAINT = 0.6, 0.1
"""From this share of the strongest word on: a coloured background; below: no colour."""
HEIGHT = 25
"""Lines of a terminal; where rich is not told, a TERM of "dumb" has 80 columns whatever the width."""
TABLE_WIDTH = 70
"""Columns that the table of a generation needs."""


def printed(result: RenderResult, color: bool, width: int) -> str:
    """Print to a string, the same wherever it runs; without ``color`` it holds no escape sequence."""
    out = StringIO()
    console = Console(
        file=out,
        width=width,
        height=HEIGHT,
        color_system="truecolor" if color else None,
        force_terminal=color,
        no_color=not color,
        force_jupyter=False,  # where rich sees a notebook it would display, and leave the string empty
        legacy_windows=False,
    )
    console.print(*result, sep="\n")
    return out.getvalue()


def lines(document: Document) -> RenderResult:
    """Yield what is shown of every row: its text with what belongs to it, or its generated tokens as a table."""
    for section in document.sections:
        steps = [block for block in section.blocks if isinstance(block, Steps)]
        if steps:
            yield from (_StepLines(section, block) for block in steps)
            continue
        if section.row:
            yield ""
        yield from _blocks(section)
    if any(isinstance(block, Steps) for section in document.sections for block in section.blocks):
        yield Text("+ speaks for the generated token, - against it")
    yield escaped(document.origin.line())


def escaped(text: str, style: str | Style = "") -> Text:
    """Text that a terminal shows as it is: nothing in it is markup, and what acts is visible."""
    return Text(visible(text), style)


def _blocks(section: Section) -> Iterator[RenderableType]:
    for block in section.blocks:
        match block:
            case Heading():
                yield escaped(block.text, "bold")
            case Facts():
                yield escaped(" · ".join(f"{name} {value}" for name, value in block.pairs))
            case Passages():
                yield from ("", *_passages(block), "")
            case Words() if not block.folded:
                yield from ("", _words(block), "")
            case Lines():
                yield from _lines(block)
            case Picture():
                yield PictureLines(block)
            case Legend():
                yield Text.assemble(
                    ("+ blue, underlined", _style(0.5)),
                    f": {visible(block.positive)}; ",
                    ("- red, italic", _style(-0.5)),
                    f": {visible(block.negative)}",
                )
            case Grid():
                yield from ("", _grid(block))
                if block.reading:
                    yield escaped(block.reading)
            case Balance():
                said = filter(None, (block.sum, block.reading, block.ending))
                yield Text("\n").join(escaped(sentence) for sentence in said)


def _grid(grid: Grid) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), title=grid.caption, title_justify="left")
    for number, name in enumerate(grid.head):
        table.add_column(escaped(name), justify="right" if number else "left")
    for line in grid.cells:
        table.add_row(*(escaped(cell.text) for cell in line))
    return table


class _StepLines:
    """The generated tokens of a row, then several together: a table, or where it would cut numbers a few lines each."""

    def __init__(self, section: Section, shown: Steps) -> None:
        self.title = f"Row {section.row}" if section.of > 1 else None
        self.columns = ("generated", "score", "probability", "gap", f"strongest {shown.level}s before it")
        self.steps = [_cells(step) for step in [*shown.steps, *shown.sums]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width >= TABLE_WIDTH:
            yield self._table()
            return
        if self.title:
            yield Text(self.title)
        for token, score, probability, gap, words in self.steps:
            yield Text(f"{token}: score {score}, probability {probability}")
            yield Padding(Text(f"gap {gap}\n").append_text(words), (0, 0, 0, 2))

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), title=self.title, title_justify="left")
        for column in self.columns:
            table.add_column(column, justify="right" if column in self.columns[1:4] else "left")
        for token, score, probability, gap, words in self.steps:
            table.add_row(Text(token), score, probability, gap, words)
        return table


def _cells(step: GeneratedToken) -> tuple[str, str, str, str, Text]:
    top, peak = strongest(step.words.words, STEP_WORDS), step.words.peak
    words = Text(" ").join(_numbered(label(word.text), word, peak) for word in top)
    token = label(step.token) + (f" rather than {label(step.contrast)}" if step.contrast else "")
    return token, step.score, step.probability, step.gap, words


def _passages(block: Passages) -> Iterator[RenderableType]:
    """The strongest sentences, and a strip along the text: what is for the target above what is against it."""
    top = block.top(TOP_PASSAGES)
    yield Text(f"{len(top)} of {len(block.passages):,} sentences mattered most", "bold")
    peak = max(abs(passage.relevance) for passage in top)
    for number, passage in enumerate(top, 1):
        text = escaped(shorten(" ".join(passage.text.split()), TOP_CHARACTERS), _style_of(passage, peak))
        yield Text(f"{number}. {signed(passage.relevance)} ").append_text(text)
    yield Text("Along the text", "bold")
    yield from _strip(block)
    yield Text(f"The whole text has {len(block.words.words):,} words; to_html(path) shows them.")


def _strip(block: Passages) -> Iterator[RenderableType]:
    strip = block.strip(STRETCHES)
    highest = max(abs(stretch.relevance) for stretch in strip) or 1.0
    for sign, name in ((1, "+"), (-1, "-")):
        parts = (round((len(BARS) - 1) * max(sign * stretch.relevance, 0) / highest) for stretch in strip)
        yield Text(f"{name} ").append_text(Text("".join(BARS[part] for part in parts), _style(0.5 * sign)))


def _lines(block: Lines) -> Iterator[RenderableType]:
    for line in block.lines:
        yield from ("", escaped(line.name, "bold"))
        if line.about:
            yield escaped(line.about)
        yield from _strip(line.shown) if isinstance(line.shown, Passages) else [_words(line.shown)]
        words = line.shown.words if isinstance(line.shown, Passages) else line.shown
        yield escaped(f"+ {words.positive}; - {words.negative}")
        if line.sum:
            yield escaped(line.sum)


def _words(shown: Words) -> Text:
    numbered = {word for word in strongest(shown.words, NUMBERED) if word.relevance}
    line = Text()
    for before, text, word in shown.laid_out():
        line.append(before)
        if word in numbered:
            line.append_text(_numbered(text, word, shown.peak))
        else:
            line.append(text, _style_of(word, shown.peak))
    return line


def _numbered(shown: str, word: Word, peak: float) -> Text:
    return Text(f"{shown}({signed(word.relevance)})", _style_of(word, peak))


def _style_of(word: Word, peak: float) -> Style:
    return _style(strength(word.relevance, peak) * (-1 if word.relevance < 0 else 1))


def _style(part: float) -> Style:
    """Style of a share of the strongest word in [-1, 1]; the sign shows without colour as well."""
    color = TERMINAL_NEGATIVE if part < 0 else TERMINAL_POSITIVE
    if abs(part) >= STRONG:
        return Style(color="#ffffff", bgcolor=color, bold=True, underline=part > 0, italic=part < 0)
    return Style(color=color, underline=part > 0, italic=part < 0) if abs(part) >= FAINT else Style()
