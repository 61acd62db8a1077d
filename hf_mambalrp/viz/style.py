"""The style sheets of HTML pages and notebook cells: light and dark, narrow and wide, and as strong as they must be."""

from hf_mambalrp.viz.colors import DARK, LIGHT, MAX_ALPHA
from hf_mambalrp.viz.picture import FADED, OPAQUE

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

GRID_STYLE = """
.hfm h3 { font-size: 1rem; margin: 1.75rem 0 .25rem }
.hfm .scroll { overflow-x: auto; width: fit-content; max-width: 100%; margin-bottom: .5rem; background:
  linear-gradient(90deg, transparent, var(--bg) 40%) right / 3rem 100% no-repeat local,
  linear-gradient(90deg, transparent, var(--line)) right / 1.25rem 100% no-repeat }
.hfm .grid { width: auto; min-width: min(100%, 34rem) }
.hfm .grid th, .hfm .grid td { text-align: right; vertical-align: top; padding: .375rem 1rem }
.hfm .grid td { white-space: nowrap }
.hfm .grid thead th { vertical-align: bottom; overflow-wrap: normal }
.hfm .grid tr > :first-child { text-align: left; position: sticky; left: 0; background: var(--bg); padding-left: 0 }
.hfm .grid tbody th { min-width: 6.5rem; font-size: .875rem; color: var(--fg) }
.hfm .grid small { display: block; font-size: .8125rem; font-weight: 400; color: var(--muted); white-space: nowrap }
.hfm .grid em { display: block; font-style: normal; font-size: .8125rem }
@media (min-width: 60rem) { .hfm .grid td small { display: inline; margin-left: .25rem } }
@media (max-width: 30rem) { .hfm .grid { min-width: 0 } .hfm .grid th, .hfm .grid td { padding: .375rem .5rem } }
@media print { .hfm .scroll { overflow: visible; background: none }
  .hfm .grid th, .hfm .grid td { padding: .25rem .5rem } }
"""
"""What grids need beside :data:`STYLE`: a wide one scrolls under its first column."""

PASSAGES_STYLE = """
.hfm h3 { font-size: 1rem; margin: 1.5rem 0 .5rem }
.hfm .passages { margin: 0; padding: 0 0 0 1.5rem }
.hfm .passages li { margin: .625rem 0; line-height: 1.9 }
.hfm .passages a { font-weight: 600; font-variant-numeric: tabular-nums }
.hfm a.pos-text { color: var(--pos-text) }
.hfm a.neg-text { color: var(--neg-text) }
.hfm .strip { display: flex; height: 2rem; border: 1px solid var(--line); border-radius: 3px; margin-bottom: 1rem }
.hfm .strip > * { flex: 1; min-width: 0; border-bottom-width: 6px }
.hfm .strip a:hover, .hfm .strip a:focus-visible { outline: 2px solid var(--fg); outline-offset: 1px }
.hfm .text :target, .hfm .text .reached { outline: 2px solid var(--fg); outline-offset: 3px; border-radius: 2px }
"""
"""What long texts need beside :data:`STYLE`: the strip, and the passage that a part of it leads to."""

LINES_STYLE = """
.hfm:has(.lines) { max-width: 72rem }
.hfm .lines { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0 2rem; margin: 1rem 0 }
.hfm .lines .line { margin: 0; padding: 0; border: 0 }
.hfm .lines .line:last-child { grid-column: 1 / -1 }
.hfm .lines .line > h3 { margin: 1.25rem 0 0 }
.hfm .lines .text { border: 0; padding: .5rem 0 }
.hfm .lines .legend { margin: .25rem 0 .5rem }
@media (max-width: 40rem) { .hfm .lines { grid-template-columns: minmax(0, 1fr) } }
"""
"""What several lines need beside :data:`STYLE`: two side by side, and below them what differs."""

INDEX_STYLE = """
.hfm section { margin-top: 1.25rem }
.hfm section + section { margin-top: 1.5rem; padding-top: 1.5rem }
.hfm .index { max-height: 18rem; overflow-y: auto; margin: 0 0 1.25rem; padding: .5rem 1rem; font-size: .875rem;
  border: 1px solid var(--line); border-radius: 4px }
.hfm .index ol { margin: 0; padding: 0 0 0 2.25rem; }
.hfm .index li { padding: .125rem 0 }
.hfm .index a { color: var(--fg) }
.hfm .index span { color: var(--muted); font-variant-numeric: tabular-nums }
.hfm section:target h2 { text-decoration: underline; text-underline-offset: .25em }
.hfm section details { border: 0 }
@media print { .hfm section + section { margin-top: 1.5rem; padding-top: 1.5rem }
.hfm .index { max-height: none } }
"""
"""What several rows need beside :data:`STYLE`: the list that leads to them."""

SHADES = 20
"""Shades of a colour in a heat map, where a class is shorter than a style."""
MAP_STYLE = f"""
.hfm {{ max-width: 72rem }}
.hfm .map {{ overflow-x: auto; padding: .5rem 0 }}
.hfm .map table {{ width: auto; border-collapse: separate; border-spacing: 1px; font-size: .75rem; line-height: 1.1 }}
.hfm .map th, .hfm .map td {{ border: 0; padding: 0 }}
.hfm .map tbody th {{ text-align: right; padding-right: .375rem; white-space: pre; font-size: .75rem;
  color: var(--fg) }}
.hfm .map thead th {{ writing-mode: vertical-rl; transform: rotate(180deg); white-space: pre; font-size: .75rem;
  padding-bottom: .375rem; text-align: left; vertical-align: top; color: var(--fg) }}
.hfm .map td {{ width: 1.125rem; min-width: 1.125rem; height: 1.125rem; border-radius: 2px }}
.hfm .map td.n {{ background-image: linear-gradient(135deg, transparent 45%, var(--bg) 45% 55%, transparent 55%) }}
{"".join(f".hfm .p{k} {{ background-color: rgba(var(--pos), {k / SHADES:.2f}) }} " for k in range(1, SHADES + 1))}
{"".join(f".hfm .n{k} {{ background-color: rgba(var(--neg), {k / SHADES:.2f}) }} " for k in range(1, SHADES + 1))}
.hfm .map + .legend .ramp {{ background: linear-gradient(90deg, rgb(var(--neg)), rgba(var(--neg), 0) 50%,
  rgba(var(--pos), 0) 50%, rgb(var(--pos))) }}
"""
"""What heat maps need beside :data:`STYLE`."""

GENERATION_STYLE = f"""{MAP_STYLE}
.hfm .generation {{ display: flex; flex-wrap: wrap; gap: 1rem 2rem; margin-top: 1rem; align-items: flex-start }}
.hfm .generation > div {{ min-width: 0; max-width: 100%; flex: 1 1 24rem }}
.hfm .generation > :last-child {{ flex: 0 1 auto }}
.hfm .generation details > .note {{ width: 0; min-width: 100% }}
.hfm .name {{ font-size: .8125rem; font-weight: 500; color: var(--muted) }}
.hfm .generation .text {{ border: 0; padding: 0 0 .75rem; line-height: 1.9 }}
.hfm .before {{ max-height: 21rem; overflow-y: auto }}
.hfm .before:focus-visible, .hfm .map:focus-visible {{ outline: 2px solid var(--fg); outline-offset: 2px }}
.hfm .written {{ font-weight: 600 }}
.hfm .written .w:focus-visible {{ outline: 2px solid var(--fg); outline-offset: 1px }}
.hfm .live {{ display: none }}
.scripted .hfm .choices {{ display: flex }}
.scripted .hfm p.live {{ display: block }}
.scripted .hfm .still {{ display: none }}
.scripted .hfm .written .w, .scripted .hfm .generation .map tbody tr {{ cursor: pointer }}
.hfm .written .lit {{ box-shadow: inset 0 2px 0 var(--fg); border-radius: 0 }}
.hfm .map .lit th {{ font-weight: 700; text-decoration: underline }}
.hfm .choices {{ flex-wrap: wrap; gap: .5rem; margin: 0 0 .75rem }}
.hfm .choices button {{ font: inherit; font-size: .875rem; color: var(--fg); background: none; cursor: pointer;
  border: 1px solid var(--muted); border-radius: 999px; padding: .25rem .875rem; min-height: 2rem }}
.hfm .choices button:hover {{ border-color: var(--fg) }}
.hfm .choices button:focus-visible {{ outline: 2px solid var(--fg); outline-offset: 2px }}
.hfm .choices [aria-pressed="true"] {{ background: var(--fg); color: var(--bg) }}
.hfm .asked {{ font-weight: 600; margin-top: .75rem }}
.hfm .generation .sum {{ margin-bottom: .75rem }}
.hfm .generation details {{ border: 0; padding: 0 }}
.hfm .generation .map td {{ width: .8125rem; min-width: .8125rem }}
@media print {{ .hfm .before {{ max-height: none }} }}
"""
"""What generated tokens need beside :data:`STYLE`: their text beside the map, and no buttons where no script runs."""

VIEWS = {"image": (1, 0), "¼": (0.7, 0.6), "½": (FADED, OPAQUE), "¾": (0.2, 1), "map": (0, 1)}
"""How much is seen of an image and of the map over it: their opacities, the middle ones as in figures."""
FIRST_VIEW = "½"
_VIEW_RULES = "\n".join(
    f".hfm .picture:has(label:nth-of-type({number}) :checked) .stage img:first-child "
    f"{{ opacity: {image}; filter: grayscale({int(image < 1)}) }}\n"
    f".hfm .picture:has(label:nth-of-type({number}) :checked) .over {{ opacity: {over} }}"
    for number, (image, over) in enumerate(VIEWS.values(), 1)
)
PICTURE_STYLE = f"""
.hfm .picture {{ display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 1rem 1.5rem;
  margin: 0 0 1.25rem; align-items: center }}
.hfm .picture figure {{ margin: 0 }}
.hfm .stage {{ position: relative; background: #fff; border: 1px solid var(--line); border-radius: 4px;
  overflow: hidden; max-width: 28rem; isolation: isolate }}
.hfm .stage img {{ display: block; width: 100%; height: auto; max-width: none; margin: 0; border: 0; padding: 0 }}
.hfm .stage .over {{ position: absolute; inset: 0; height: 100%; opacity: {OPAQUE}; image-rendering: pixelated }}
.hfm .stage img:first-child {{ opacity: {FADED}; filter: grayscale(1) }}
.hfm .coarse img {{ image-rendering: pixelated }}
.hfm figcaption {{ font-size: .875rem; margin-top: .5rem }}
.hfm .views {{ border: 0; margin: 0; padding: 0; min-width: 0 }}
.hfm .views legend {{ padding: 0; font-size: .8125rem; font-weight: 500; color: var(--muted) }}
.hfm .views div {{ display: grid; grid-template-columns: repeat({len(VIEWS)}, 1fr); position: relative }}
.hfm .views div::before {{ content: ""; position: absolute; left: 10%; right: 10%; top: 1.125rem; height: 2px;
  background: var(--line) }}
.hfm .views label {{ display: flex; flex-direction: column; align-items: center; gap: .125rem; padding: .5rem 0 .25rem;
  cursor: pointer; font-size: .8125rem; position: relative }}
.hfm .views input {{ width: 1.25rem; height: 1.25rem; margin: 0; cursor: pointer; accent-color: rgb(var(--pos)) }}
{_VIEW_RULES}
.hfm .picture .key {{ width: 1.5rem; height: 1rem; border-radius: 2px }}
.hfm .picture .key.pos {{ background: {LIGHT.positive}; border: 0 }}
.hfm .picture .key.neg {{ border: 0;
  background: repeating-linear-gradient(135deg, {LIGHT.negative} 0 4px, #fff 4px 6px) }}
.hfm .picture .ramp {{ background: linear-gradient(90deg, {LIGHT.negative}, #fff, {LIGHT.positive}) }}
@media (max-width: 40rem) {{ .hfm .picture {{ grid-template-columns: minmax(0, 1fr) }} }}
"""
"""What pictures need beside :data:`STYLE`. The stage is white in every theme, as colours on it mean the same."""

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
<meta http-equiv="Content-Security-Policy" content="{{policy}}">
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
{{script}}</body>
</html>
"""
