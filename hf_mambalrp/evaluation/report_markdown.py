"""A report as GitHub Markdown: the facts, findings and tables; the plots stand in the HTML."""

from collections.abc import Sequence

from hf_mambalrp.evaluation.report_parts import Cell, Chapter, Findings, Grid, Plots, with_superscripts
from hf_mambalrp.viz.document import Facts
from hf_mambalrp.viz.markdown import escaped, table


def page(title: str, chapters: Sequence[Chapter]) -> str:
    """Return the document."""
    parts = [f"# {_text(title)}"]
    for chapter in chapters:
        parts += [f"## {_text(chapter.title)}", _text(chapter.reading)]
        for part in chapter.parts:
            if isinstance(part, Facts):
                facts = [(_text(name), _text(value)) for name, value in part.pairs]
                parts.append(table(("Setting", "Value"), facts, numbers=False))
            elif isinstance(part, Findings):
                parts.append("\n".join(f"- {_text(sentence)}" for sentence in part.sentences))
            elif isinstance(part, Grid):
                rows = [list(map(_cell, row)) for row in part.rows]
                parts += [f"**{_text(part.caption)}**", table([_cell(Cell(name)) for name in part.head], rows)]
                parts += [_text(part.note)] if part.note else []
        drawn = [part.title for part in chapter.parts if isinstance(part, Plots)]
        parts += [f"*{_text(f'Drawn in the HTML report: {title}')}*" for title in drawn]
    return "\n\n".join(parts) + "\n"


def _cell(cell: Cell) -> str:
    lines = [*cell.text.split("\n"), cell.mark]
    strong = {0, len(lines) - 1} if cell.strong else ()
    return "<br>".join(f"**{_text(line)}**" if i in strong else _text(line) for i, line in enumerate(lines) if line)


def _text(text: str) -> str:
    return with_superscripts(escaped(text, readable=True))
