"""A report as GitHub Markdown: the facts, findings and tables; the plots stand in the HTML."""

import re
from collections.abc import Sequence

from hf_mambalrp.evaluation.report_parts import Cell, Facts, Findings, Panels, Section, Table


def page(title: str, sections: Sequence[Section]) -> str:
    """Return the document."""
    parts = [f"# {_text(title)}"]
    for section in sections:
        parts += [f"## {_text(section.title)}", _text(section.reading)]
        for part in section.parts:
            if isinstance(part, Facts):
                parts.append(_grid(("Setting", "Value"), [(_text(name), _text(value)) for name, value in part.pairs]))
            elif isinstance(part, Findings):
                parts.append("\n".join(f"- {_text(sentence)}" for sentence in part.sentences))
            elif isinstance(part, Table):
                rows = [(_text(first.text), *map(_cell, rest)) for first, *rest in part.rows]
                parts += [f"**{_text(part.caption)}**", _grid(tuple(map(_text, part.head)), rows, numbers=True)]
                parts += [_text(part.note)] if part.note else []
        drawn = [part.title for part in section.parts if isinstance(part, Panels)]
        parts += [f"*{_text(f'Drawn in the HTML report: {title}')}*" for title in drawn]
    return "\n\n".join(parts) + "\n"


def _grid(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, numbers: bool = False) -> str:
    rule = ("---", *(["---:" if numbers else "---"] * (len(head) - 1)))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def _cell(cell: Cell) -> str:
    first, *rest = cell.text.split("\n")
    shown = f"**{_text(first)}**" if cell.strong else _text(first)
    mark = f"**{_text(cell.mark)}**" if cell.mark and cell.strong else _text(cell.mark)
    return "<br>".join(part for part in (shown, *map(_text, rest), mark) if part)


def _text(text: str) -> str:
    """Escape what Markdown or HTML would act on; a line break becomes ``<br>``."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]|#~$!@])", r"\\\1", text).replace("\n", "<br>")
    return text.replace("ΔA^F", "ΔA<sup>F</sup>").replace("ΔA^I", "ΔA<sup>I</sup>")
