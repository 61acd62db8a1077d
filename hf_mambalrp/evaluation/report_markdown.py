"""A report as GitHub Markdown: the facts, findings and tables; the plots stand in the HTML."""

from collections.abc import Sequence

from hf_mambalrp.evaluation.report_parts import Chapter, Findings, Plots, with_superscripts
from hf_mambalrp.viz.document import Facts, Grid
from hf_mambalrp.viz.markdown import escaped, grid, table


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
                parts += grid(part, _text)
        drawn = [part.title for part in chapter.parts if isinstance(part, Plots)]
        parts += [f"*{_text(f'Drawn in the HTML report: {title}')}*" for title in drawn]
    return "\n\n".join(parts) + "\n"


def _text(text: str) -> str:
    return with_superscripts(escaped(text, readable=True))
