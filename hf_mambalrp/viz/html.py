"""Self-contained HTML: no script, nothing loaded from elsewhere, every text escaped, light and dark."""

import re
from html import escape
from typing import TYPE_CHECKING

from hf_mambalrp.viz.colors import DARK, LIGHT, MAX_ALPHA, strength
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
    unsigned,
    visible,
)
from hf_mambalrp.viz.words import Word, layout

if TYPE_CHECKING:
    from hf_mambalrp.results.explanation import Explanation, Level
    from hf_mambalrp.results.generation_explanation import GenerationExplanation

NOTEBOOK_ROWS = 10
"""A notebook cell shows this many rows; the document shows all."""
TABLE_WORDS = 10
REM = 16
"""Pixels, as browsers have it."""

STYLE = f"""
.hfm {{ {LIGHT.css()}; color-scheme: light }}
@media (prefers-color-scheme: dark) {{ .hfm {{ {DARK.css()}; color-scheme: dark }} }}
[data-jp-theme-light="true"] .hfm, .vscode-light .hfm, [theme="light"] .hfm {{ {LIGHT.css()}; color-scheme: light }}
[data-jp-theme-light="false"] .hfm, .vscode-dark .hfm, [theme="dark"] .hfm, .dark .hfm {{
  {DARK.css()}; color-scheme: dark }}
.hfm {{ background: var(--bg); color: var(--fg); max-width: 46rem;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  padding: 1.5rem; box-sizing: border-box; overflow-wrap: anywhere;
  -webkit-print-color-adjust: exact; print-color-adjust: exact }}
.hfm * {{ box-sizing: border-box }}
.hfm h1, .hfm h2, .hfm p, .hfm dl, .hfm dd {{ margin: 0; color: inherit; background: none }}
.hfm h1 {{ font-size: .875rem; font-weight: 600; color: var(--muted); margin-bottom: 1.25rem }}
.hfm h2 {{ font-size: 1.375rem; line-height: 1.3; font-weight: 650; letter-spacing: -.01em }}
.hfm section + section {{ margin-top: 2.5rem; padding-top: 2.5rem; border-top: 1px solid var(--line) }}
.hfm .facts {{ display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: .875rem 0 1.25rem }}
.hfm dt, .hfm th {{ font-size: .8125rem; font-weight: 500; color: var(--muted) }}
.hfm dd, .hfm td {{ font-variant-numeric: tabular-nums }}
.hfm dd {{ font-weight: 600 }}
.hfm .text {{ font-size: 1.125rem; line-height: 2; white-space: pre-wrap; padding: 1rem 0;
  border: solid var(--line); border-width: 1px 0 }}
.hfm .w {{ padding: .125em 0; border-radius: 3px 3px 0 0; border-bottom: 2px none;
  -webkit-box-decoration-break: clone; box-decoration-break: clone }}
.hfm .pos {{ background: rgba(var(--pos), var(--a)); border-bottom: 2px solid rgba(var(--pos), var(--u)) }}
.hfm .neg {{ background: rgba(var(--neg), var(--a)); border-bottom: 2px dashed rgba(var(--neg), var(--u)) }}
.hfm .legend {{ display: grid; grid-template-columns: auto 1fr; gap: .375rem .75rem; align-items: center;
  margin: 1rem 0; font-size: .875rem }}
.hfm .scale {{ grid-column: 1 / -1; display: flex; align-items: center; gap: .75rem; color: var(--muted);
  font-variant-numeric: tabular-nums; white-space: nowrap }}
.hfm .ramp {{ flex: 0 1 14rem; height: .625rem; border-radius: 2px; background: linear-gradient(90deg,
  rgba(var(--neg), {MAX_ALPHA}), rgba(var(--neg), 0) 50%, rgba(var(--pos), 0) 50%, rgba(var(--pos), {MAX_ALPHA}));
  border: 1px solid var(--line) }}
.hfm .sum {{ font-size: .875rem; color: var(--muted); margin: 0 0 1.25rem }}
.hfm .sum b {{ font-weight: 500; color: var(--fg); font-variant-numeric: tabular-nums }}
.hfm table {{ width: 100%; border-collapse: collapse; font-size: .875rem; background: none; color: inherit }}
.hfm caption {{ text-align: left; font-size: 1rem; font-weight: 600; padding-bottom: .375rem; color: var(--fg) }}
.hfm tr {{ background: none }}
.hfm th, .hfm td {{ text-align: left; padding: .3125rem .75rem .3125rem 0; border: 0; border-top: 1px solid var(--line);
  vertical-align: middle }}
.hfm thead th {{ border-top: 0 }}
.hfm .num {{ text-align: right; white-space: nowrap }}
.hfm td.pos-text {{ color: var(--pos-text) }}
.hfm td.neg-text {{ color: var(--neg-text) }}
.hfm .bars {{ width: 30%; padding-right: 0 }}
.hfm .bars div {{ display: flex; height: .625rem; border-left: 0 }}
.hfm .bars i {{ display: block; border-radius: 2px }}
.hfm details {{ border-top: 1px solid var(--line); padding: .5rem 0 }}
.hfm summary {{ cursor: pointer; font-variant-numeric: tabular-nums }}
.hfm summary b {{ font-weight: 600 }}
.hfm details .text {{ border: 0; padding: .25rem 0 .5rem }}
.hfm summary span, .hfm footer, .hfm .note {{ color: var(--muted); font-size: .8125rem }}
.hfm footer {{ margin-top: 1.5rem; padding-top: .75rem; border-top: 1px solid var(--line) }}
@media (max-width: 30rem) {{
  .hfm {{ padding: 1rem }} .hfm .text {{ font-size: 1.0625rem }} .hfm .bars {{ display: none }} }}
"""

ALONE = """
.hfm { all: initial; display: block }
.hfm * { all: revert }
"""
"""Nothing of the page around holds inside."""

PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{title}}</title>
<style>
:root {{{{ color-scheme: light dark }}}}
body {{{{ margin: 0; background: {LIGHT.background} }}}}
body > .hfm {{{{ margin: 0 auto }}}}
@media (prefers-color-scheme: dark) {{{{ body {{{{ background: {DARK.background} }}}} }}}}
{{style}}</style>
</head>
<body>
<main class="hfm">
<h1>{{title}}</h1>
{{body}}
</main>
</body>
</html>
"""


def document(body: str, title: str, style: str = "") -> str:
    """Wrap a body, and what its ``style`` needs beside :data:`STYLE`, into a complete HTML5 document."""
    return PAGE.format(title=_text(title), style=STYLE + style, body=body)


def fragment(body: str, style: str = "") -> str:
    """Wrap a body into what a notebook cell shows, on a background of its own that fits any theme.

    The pages around it style tables, lists and headings by rules of up to two classes, and the size of a rem. Those
    rules are taken back for all that is inside, by a class that is named three times and so is stronger.
    """
    rules = f"{ALONE}{STYLE}{style}".replace(".hfm", ".hfm.hfm.hfm")
    rules = re.sub(r"([\d.]+)rem\b", lambda size: f"{REM * float(size[1]):g}px", rules)
    return f'<div class="hfm"><style>{rules}</style>\n{body}\n</div>'


def explanation_body(ex: "Explanation", level: "Level", limit: int | None) -> str:
    """Return a section per row (at most ``limit``) and the footer."""
    rows = range(len(ex))[:limit]
    sections = "\n".join(_row(ex, row, level) for row in rows)
    return sections + _more(len(ex) - len(rows)) + _footer(ex)


def generation_body(ex: "GenerationExplanation", level: "Level", limit: int | None) -> str:
    """Return a section per row (at most ``limit``) with one part to unfold per generated token, and the footer."""
    rows = range(len(ex))[:limit]
    sections = "\n".join(_generated_row(ex, row, level) for row in rows)
    return sections + _more(len(ex) - len(rows)) + _footer(ex)


def _row(ex: "Explanation", row: int, level: "Level") -> str:
    peak = max((abs(word.relevance) for word in ex.words(row, level=level)), default=0.0)
    listed = "".join(
        f"<div><dt>{_text(name[0].upper() + name[1:])}</dt><dd>{_text(value)}</dd></div>"
        for name, value in facts(ex, row)
    )
    count = f'<p class="note">Row {row + 1} of {len(ex)}</p>' if len(ex) > 1 else ""
    return (
        f'<section>{count}<h2>{_text(question(ex, row))}</h2><dl class="facts">{listed}</dl>\n'
        f"{_colored(ex, row, level)}\n"
        f"{_legend(*speaks(ex, row), signed(-peak), signed(peak))}\n{_sum(ex, row, ending(ex, row))}\n"
        f"{_table(ex, row, level, TABLE_WORDS)}</section>"
    )


def _generated_row(ex: "GenerationExplanation", row: int, level: "Level") -> str:
    parts, one = [], ex[row]
    for t in ex.generated(row):
        step = one.step(t)
        chance, score = f"{ex.probability[row, t].item():.1%}", unsigned(ex.score[row, t].item())
        parts.append(
            f"<details{' open' if t == 0 else ''}><summary>{t + 1}. <b>{escape(label(step.target_text[0]))}</b> "
            f"<span>score {score}, probability {chance}</span></summary>\n"
            f"{_colored(step, 0, level)}\n{_sum(step, 0)}\n{_table(step, 0, level, 5)}</details>"
        )
    count = f'<p class="note">Row {row + 1} of {len(ex)}</p>' if len(ex) > 1 else ""
    legend = _legend(
        "speaks for the generated token", "speaks against the generated token", "strongest against", "strongest for"
    )
    return f"<section>{count}<h2>What speaks for each generated token?</h2>{legend}\n{''.join(parts)}</section>"


def _colored(ex: "Explanation", row: int, level: "Level") -> str:
    words = ex.words(row, level=level)
    peak = max((abs(word.relevance) for word in words), default=0.0)
    says = speaks(ex, row)
    text = None if ex.texts is None else ex.texts[row]
    marks = (
        escape(before) + _mark(word, shown, peak, says)
        for before, shown, word in layout(words, text, level, ex.tokens[row])
    )
    return f'<p class="text" lang="" dir="auto">{"".join(marks)}</p>'


def _mark(word: Word, shown: str, peak: float, says: tuple[str, str]) -> str:
    side, part = _side(word.relevance), strength(word.relevance, peak)
    what = {"pos": says[0], "neg": says[1], "": "no relevance"}[side]
    name = _text(f"{shown}: {signed(word.relevance)} ({what})")
    look = f'class="w {side}"' + (f' style="--a:{MAX_ALPHA * part:.3f};--u:{min(1.5 * part, 1):.2f}"' if side else "")
    return f'<span {look} role="img" title="{name}" aria-label="{name}">{escape(shown)}</span>'


def _side(relevance: float) -> str:
    return "pos" if relevance > 0 else "neg" if relevance < 0 else ""


def _legend(positive: str, negative: str, low: str, high: str) -> str:
    ends = f"--a:{MAX_ALPHA};--u:1"
    return (
        f'<div class="legend"><div class="scale"><span>{low}</span><span class="ramp"></span><span>{high}</span></div>'
        f'<span class="w pos" style="{ends}">word</span><span>blue, solid underline: {escape(positive)}</span>'
        f'<span class="w neg" style="{ends}">word</span><span>red, dashed underline: {escape(negative)}</span></div>'
    )


def _sum(ex: "Explanation", row: int, more: str = "") -> str:
    return f'<p class="sum"><b>{escape(balance(ex, row))}</b><br>{reading(ex, row)} {escape(more)}</p>'


def _table(ex: "Explanation", row: int, level: "Level", k: int) -> str:
    words = ex.words(row, level=level)
    total = sum(abs(word.relevance) for word in words) or 1.0
    peak = max((abs(word.relevance) for word in words), default=0.0)
    lines = []
    for word in ex.top(k, row, level=level):
        side, width = _side(word.relevance), 50 * strength(word.relevance, peak)
        left = 50 - width if side == "neg" else 50
        bar = (
            f'<i style="margin-left:{left:.1f}%;width:{width:.1f}%;background:rgb(var(--{side}))"></i>' if side else ""
        )
        lines.append(
            f"<tr><td><bdi>{escape(shorten(visible(word.text), 40))}</bdi></td>"
            f'<td class="num {side}-text">{signed(word.relevance)}</td>'
            f'<td class="num">{abs(word.relevance) / total:.1%}</td>'
            f'<td class="bars" aria-hidden="true"><div>{bar}</div></td></tr>'
        )
    return (
        f'<table><caption>Strongest {level}s</caption><thead><tr><th scope="col">{level.capitalize()}</th>'
        f'<th scope="col" class="num">Relevance</th><th scope="col" class="num">Share of all |R|</th>'
        f'<th class="bars" aria-hidden="true"></th></tr></thead><tbody>{"".join(lines)}</tbody></table>'
    )


def _more(count: int) -> str:
    return f'<p class="note">{count} more rows are not shown here; to_html(path) writes them all.</p>' if count else ""


def _footer(ex: "Explanation | GenerationExplanation") -> str:
    parts = [f"Method {ex.method}", *([f"model {ex.model_id}"] if ex.model_id else [])]
    parts += [f"{package} {version}" for package, version in ex.versions.items()]
    return f"\n<footer>{_text(' · '.join(parts))}</footer>"


def _text(text: str) -> str:
    return escape(visible(text))
