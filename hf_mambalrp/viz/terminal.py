"""Renderings for a terminal: rich text whose signs and numbers are written out, and the plain summary of ``repr``."""

from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from hf_mambalrp.viz.colors import TERMINAL_NEGATIVE, TERMINAL_POSITIVE, strength
from hf_mambalrp.viz.wording import (
    balance,
    ending,
    facts,
    label,
    question,
    reading,
    shorten,
    signed,
    speaks,
    spelt,
    unsigned,
    visible,
)
from hf_mambalrp.viz.words import Word, layout

if TYPE_CHECKING:
    from hf_mambalrp.results.explanation import Explanation, Level
    from hf_mambalrp.results.generation_explanation import GenerationExplanation

NUMBERED = 8
"""So many of the strongest words carry their number in the text."""
STRONG, FAINT = 0.6, 0.1
"""From this share of the strongest word on: a coloured background; below: no colour."""
SUMMARY_ROWS = 3
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


def explanation_lines(ex: "Explanation", level: "Level") -> RenderResult:
    """Yield the heading, facts, text, legend and sum of every row."""
    for row in range(len(ex)):
        if row:
            yield ""
        yield Text(question(ex, row), style="bold")
        yield Text(" · ".join(f"{name} {value}" for name, value in facts(ex, row)))
        yield from ("", _text(ex, row, level), "")
        positive, negative = speaks(ex, row)
        yield Text.assemble(
            ("+ blue, underlined", _style(0.5)), f": {positive}; ", ("- red, italic", _style(-0.5)), f": {negative}"
        )
        yield Text("\n".join(filter(None, (balance(ex, row), reading(ex, row), ending(ex, row)))))
    yield Text(_origin(ex))


def generation_lines(ex: "GenerationExplanation", level: "Level") -> RenderResult:
    """Yield for every row each generated token, its score and probability, the words that spoke strongest."""
    for row in range(len(ex)):
        yield _Steps(ex, row, level)
    yield Text("+ speaks for the generated token, - against it")
    yield Text(_origin(ex))


class _Steps:
    """The generated tokens of a row: a table, or where that would cut the numbers a few lines for each token."""

    def __init__(self, ex: "GenerationExplanation", row: int, level: "Level") -> None:
        self.title = f"Row {row}" if len(ex) > 1 else None
        self.columns = ("generated", "score", "probability", "gap", f"strongest {level}s before it")
        one = ex[row]
        self.steps = [_step_cells(one.step(t), level) for t in ex.generated(row)]

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


def _step_cells(step: "Explanation", level: "Level") -> tuple[str, str, str, str, Text]:
    assert step.probability is not None
    top = step.top(4, level=level)
    return (
        label(step.target_text[0]),
        unsigned(step.score.item()),
        f"{step.probability.item():.1%}",
        unsigned(step.conservation.gap.item()),
        Text(" ").join(_numbered(label(word.text), word, abs(top[0].relevance)) for word in top),
    )


def summary(ex: "Explanation") -> str:
    """Return what was explained, the top words and the sum, in a few plain lines for each of the first rows."""
    lines = [f"Explanation of {len(ex)} row{'s' * (len(ex) > 1)}: {_origin(ex)}"]
    for row in range(min(len(ex), SUMMARY_ROWS)):
        top = ", ".join(f"{shorten(visible(word.text), 24)} {signed(word.relevance)}" for word in ex.top(5, row))
        lines += [
            f"[{row}] {question(ex, row)[:-1].removeprefix('What ')}",
            "    " + ", ".join(f"{name} {value}" for name, value in facts(ex, row)),
            f"    top words: {top}",
            f"    {balance(ex, row)}",
        ]
    return "\n".join(lines + _rest(len(ex)))


def generation_summary(ex: "GenerationExplanation") -> str:
    """Return what was generated in each of the first rows, and the largest gap, in plain lines."""
    lines = [f"GenerationExplanation of {len(ex)} row{'s' * (len(ex) > 1)}: {_origin(ex)}"]
    for row in range(min(len(ex), SUMMARY_ROWS)):
        steps = ex.generated(row)
        text = visible(spelt(ex, row, [ex.prompt_length + t for t in steps]) if steps else "")
        gap = ex.conservation.gap[row].abs().max().item()
        lines.append(f"[{row}] {len(steps)} generated tokens: {shorten(text, 60)} (largest gap {unsigned(gap)})")
    return "\n".join(lines + _rest(len(ex)))


def _text(ex: "Explanation", row: int, level: "Level") -> Text:
    strongest = {word for word in ex.top(NUMBERED, row, level=level) if word.relevance}
    words = ex.words(row, level=level)
    peak = max((abs(word.relevance) for word in words), default=0.0)
    line = Text()
    for before, shown, word in layout(words, None if ex.texts is None else ex.texts[row], level, ex.tokens[row]):
        line.append(before)
        if word in strongest:
            line.append_text(_numbered(shown, word, peak))
        else:
            line.append(shown, _style(strength(word.relevance, peak) * (-1 if word.relevance < 0 else 1)))
    return line


def _numbered(shown: str, word: Word, peak: float) -> Text:
    style = _style(strength(word.relevance, peak) * (-1 if word.relevance < 0 else 1))
    return Text(f"{shown}({signed(word.relevance)})", style)


def _style(part: float) -> Style:
    """Style of a share of the strongest word in [-1, 1]; the sign shows without colour as well."""
    color = TERMINAL_NEGATIVE if part < 0 else TERMINAL_POSITIVE
    if abs(part) >= STRONG:
        return Style(color="#ffffff", bgcolor=color, bold=True, underline=part > 0, italic=part < 0)
    return Style(color=color, underline=part > 0, italic=part < 0) if abs(part) >= FAINT else Style()


def _origin(ex: "Explanation | GenerationExplanation") -> str:
    return visible(f"{ex.method} on {ex.model_id}" if ex.model_id else ex.method)


def _rest(count: int) -> list[str]:
    return [f"... and {count - SUMMARY_ROWS} more rows"] if count > SUMMARY_ROWS else []
