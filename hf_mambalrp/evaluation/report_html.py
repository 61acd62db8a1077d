"""A report as one HTML document: no script, nothing loaded from elsewhere, every text escaped, light and dark."""

from collections.abc import Sequence

from hf_mambalrp.errors import MissingExtraError
from hf_mambalrp.evaluation import plots
from hf_mambalrp.evaluation.report_parts import Chapter, Findings, Plots, with_superscripts
from hf_mambalrp.viz.document import Facts, Grid
from hf_mambalrp.viz.html import grid
from hf_mambalrp.viz.markup import escaped, framed
from hf_mambalrp.viz.style import GRID_STYLE, STYLE

REPORT_STYLE = """
.hfm { max-width: 72rem }
.hfm h2 + p, .hfm ul { max-width: 46rem; margin: .5rem 0 1.25rem }
.hfm ul { padding-left: 1.25rem }
.hfm li + li { margin-top: .25rem }
.hfm sup { line-height: 0; font-size: .7em }
.hfm a { color: var(--pos-text) }
.hfm nav { font-size: .875rem; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin-bottom: 2rem }
.hfm .facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 45%), 1fr));
  grid-auto-flow: dense }
.hfm .wide { grid-column: 1 / -1 }
.hfm dd { font-weight: 500 }
.hfm .key { display: flex; flex-wrap: wrap; gap: .125rem 1.25rem; font-size: .8125rem; margin-bottom: .75rem }
.hfm .key i { display: inline-block; width: 1.75rem; height: .625rem; margin-right: .375rem }
.hfm .key .solid, .hfm .key .dashed, .hfm .key .thin { height: 0; vertical-align: middle;
  border-top: 2px solid var(--fg) }
.hfm .key .dashed { border-top-style: dashed }
.hfm .key .thin { border-top: 1px solid var(--muted); opacity: .6 }
.hfm .key .blue { background: rgba(var(--pos), .35) }
.hfm .key .red { background:
  repeating-linear-gradient(135deg, rgba(var(--neg), .8) 0 1px, rgba(var(--neg), .25) 1px 4px) }
.hfm .panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr));
  gap: 1.25rem 1.5rem; margin-top: .75rem }
/* Four stand two by two. */
.hfm .few { max-width: 46rem }
.hfm figure { margin: 0; break-inside: avoid }
.hfm figcaption { font-size: .875rem; line-height: 1.35 }
.hfm figcaption span { color: var(--muted); font-size: .8125rem; font-variant-numeric: tabular-nums;
  white-space: nowrap }
.hfm svg { display: block; width: 100%; height: auto; stroke-linejoin: round }
.hfm svg text { font-family: inherit }
@media print { .hfm { max-width: none; padding: 0; font-size: 10pt }
  .hfm nav { display: none } .hfm tr, .hfm li { break-inside: avoid } .hfm h2, .hfm h3, .hfm .key { break-after: avoid }
  .hfm .panels { grid-template-columns: repeat(3, 1fr); max-width: none }
  .hfm .few { grid-template-columns: repeat(2, 1fr) } }
"""
WIDE = 40
"""A fact of more characters has a line of its own."""
NO_PLOTS = f"The plots are not drawn because matplotlib is not installed: {plots.INSTALL}"


def page(title: str, chapters: Sequence[Chapter]) -> str:
    """Return the document."""
    links = "".join(f'<a href="#{_anchor(chapter)}">{_text(chapter.title)}</a>' for chapter in chapters)
    body = "\n".join(_chapter(chapter) for chapter in chapters)
    return framed(title, STYLE + GRID_STYLE + REPORT_STYLE, f"<nav>{links}</nav>\n{body}")


def _chapter(chapter: Chapter) -> str:
    parts, drawable = [], True
    for part in chapter.parts:
        if isinstance(part, Plots) and drawable:
            try:
                parts.append(_plots(part, _anchor(chapter)))
            except MissingExtraError:
                parts.append(f'<p class="note">{_text(NO_PLOTS)}</p>')
                drawable = False
        elif isinstance(part, Grid):
            parts.append(grid(part, _text))
        elif isinstance(part, Findings):
            parts.append(f"<ul>{''.join(f'<li>{_text(sentence)}</li>' for sentence in part.sentences)}</ul>")
        elif isinstance(part, Facts):
            parts.append(f'<dl class="facts">{"".join(_fact(*pair) for pair in part.pairs)}</dl>')
    return (
        f'<section id="{_anchor(chapter)}"><h2>{_text(chapter.title)}</h2><p>{_text(chapter.reading)}</p>\n'
        + "\n".join(parts)
        + "</section>"
    )


def _fact(name: str, value: str) -> str:
    wide = ' class="wide"' if len(value) > WIDE else ""
    return f"<div{wide}><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>"


def _plots(group: Plots, salt: str) -> str:
    key = "".join(f'<span><i class="{look}"></i>{_text(meaning)}</span>' for look, meaning in group.key)
    shown = []
    for index, plot in enumerate(group.plots):
        label = escaped(f"{plot.title}: {plot.shows}")
        drawn = plots.svg(plot, f"{salt} {group.title} {index}", label)
        caption = f"<b>{_text(plot.title)}</b> <span>{_text(plot.shows)}</span>"
        shown.append(f"<figure><figcaption>{caption}</figcaption>{drawn}</figure>")
    key = f'<div class="key">{key}</div>' if key else ""
    return f'<h3>{_text(group.title)}</h3>{key}<div class="panels{" few" * (len(shown) == 4)}">{"".join(shown)}</div>'


def _anchor(chapter: Chapter) -> str:
    return "".join(c for c in chapter.title.lower() if c.isascii() and c.isalnum())


def _text(text: str) -> str:
    return with_superscripts(escaped(text))
