"""Heat maps of hidden attention: queries down, keys across, blue for positive and red for negative."""

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor

from hf_mambalrp.viz.colors import LIGHT, strength
from hf_mambalrp.viz.plot import AXIS_LABEL, drawable, dress, heat, heat_axes
from hf_mambalrp.viz.wording import label, shorten, signed, unsigned, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_mambalrp.results.hidden_attention import HiddenAttention

CELLS = 48
"""Queries and keys shown, at most; a longer input shows groups of consecutive tokens."""
SUMMARY_ROWS, SUMMARY_LAYERS, SUMMARY_QUERIES, SUMMARY_KEYS = 3, 4, 3, 5
"""What the plain summary lists, at most."""
SHADES = 20
"""Shades of a colour in HTML, where a class is shorter than a style."""


class Shown(NamedTuple):
    """What is drawn of one matrix: attended tokens only, grouped where there are many."""

    values: Tensor
    """(queries, keys)."""
    queries: list[str]
    keys: list[str]
    note: str
    """What was grouped; empty where nothing was."""


def shown(attention: "HiddenAttention", layer: int | None, row: int) -> Shown:
    """Take padding out of the matrix and group what does not fit: a cell is its group's strongest value."""
    values, tokens = attention.map(layer, row), attention.tokens[row]
    keys = attention.attention_mask[row].nonzero().flatten()
    is_token = attention.attention_mask[row, attention.rows[row]] != 0
    queries = attention.rows[row, is_token]
    values = values[is_token][:, keys]
    by = [-(-len(axis) // CELLS) for axis in (queries, keys)]
    for axis, size in enumerate(by):
        values = _strongest(values, axis, size)
    note = f"Each cell: the strongest of up to {by[0]} x {by[1]} entries; a label is its first token."
    return Shown(
        values,
        [_name(tokens[i], size=by[0]) for i in queries[:: by[0]].tolist()],
        [_name(tokens[j], size=by[1]) for j in keys[:: by[1]].tolist()],
        note if max(by) > 1 else "",
    )


def summary(attention: "HiddenAttention") -> str:
    """Return what queries read most strongly, in plain lines: of the first rows of the batch and the last layers.

    Where every position is a query it is the last one that is listed, else the last few that were asked for.
    """
    about = ", ".join(_about(attention))
    lines = [f"HiddenAttention of {len(attention)} row{'s' * (len(attention) > 1)}: {about}"]
    for row in range(min(len(attention), SUMMARY_ROWS)):
        left_out = len(attention.layers) - SUMMARY_LAYERS
        rest = f" (of {len(attention.layers)} layers the last {SUMMARY_LAYERS}; map(layer) has each)" * (left_out > 0)
        lines.append(f"[{row}] what a position reads most strongly{rest}")
        for layer in attention.layers[-SUMMARY_LAYERS:]:
            lines += [f"    layer {layer}, {read}" for read in _reads(attention, layer, row)]
    if len(attention) > SUMMARY_ROWS:
        lines.append(f"... and {len(attention) - SUMMARY_ROWS} more rows")
    return "\n".join(lines)


def _reads(attention: "HiddenAttention", layer: int, row: int) -> Iterator[str]:
    """Yield each listed query with its strongest keys and their signed weights."""
    names = [label(token) for token in attention.tokens[row]]
    keys = attention.attention_mask[row].nonzero().flatten()
    queries = [(r, i) for r, i in enumerate(attention.rows[row].tolist()) if attention.attention_mask[row, i]]
    asked = len(attention.rows[row]) < len(names)
    for r, i in queries[-SUMMARY_QUERIES if asked else -1 :]:
        weights = attention.map(layer, row)[r, keys]
        top = weights.abs().topk(min(SUMMARY_KEYS, len(keys))).indices
        found = [
            f"“{names[j]}” {signed(w)}" for j, w in zip(keys[top].tolist(), weights[top].tolist(), strict=True) if w
        ]
        yield f"position {i} “{names[i]}”: {', '.join(found) or 'nothing'}"


def heat_map(attention: "HiddenAttention", layer: int | None, row: int, ax: "Axes | None") -> "Figure":
    """Draw one layer of one row of the batch."""
    drawn = shown(attention, layer, row)
    own, ax = ax is None, ax or heat_axes(drawn.keys, 0.2 * len(drawn.queries))
    heat(ax, drawn.values, drawn.keys, "attention: blue positive, red negative")
    ax.set_yticks(range(len(drawn.queries)), drawable(drawn.queries), parse_math=False)
    ax.set_ylabel("query: the position that reads", fontsize=9, color=LIGHT.muted)
    ax.set_xlabel("key: the position that is read", fontsize=9, color=LIGHT.muted)
    about = [*_about(attention), *([drawn.note] if drawn.note else [])]
    dress(ax, f"Hidden attention of layer {attention.layers[-1] if layer is None else layer}", about, grows=own)
    return cast("Figure", ax.figure)


def attention_body(attention: "HiddenAttention", *, last_only: bool = False) -> str:
    """Return a section for every row of the batch with a part to unfold for every layer, and the footer."""
    rows, layers = range(len(attention)), attention.layers
    if last_only:
        rows, layers = rows[:1], layers[-1:]
    sections = "\n".join(_section(attention, row, layers) for row in rows)
    return f"{sections}{_footer(attention)}"


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


def _section(attention: "HiddenAttention", row: int, layers: list[int]) -> str:
    parts = [_layer(attention, layer, row, is_open=layer == layers[-1]) for layer in layers]
    count = f'<p class="note">Row {row + 1} of {len(attention)}</p>' if len(attention) > 1 else ""
    return f"<section>{count}<h2>Which position reads which?</h2>{''.join(parts)}</section>"


def _layer(attention: "HiddenAttention", layer: int, row: int, *, is_open: bool) -> str:
    drawn = shown(attention, layer, row)
    peak = drawn.values.abs().max().item()
    head = "".join(f'<th scope="col"><bdi>{escape(key)}</bdi></th>' for key in drawn.keys)
    lines = "".join(
        f'<tr><th scope="row"><bdi>{escape(query)}</bdi></th>{"".join(_cell(value, peak) for value in values)}</tr>'
        for query, values in zip(drawn.queries, drawn.values.tolist(), strict=True)
    )
    legend = (
        f'<div class="legend"><div class="scale"><span>{signed(-peak)}</span><span class="ramp"></span>'
        f"<span>{signed(peak)}</span></div></div>"
        '<p class="note">Rows: the position that reads (query). Columns: the position that is read (key). '
        f"Blue: positive; red with a stroke: negative. {escape(drawn.note)}</p>"
    )
    return (
        f"<details{' open' if is_open else ''}><summary><b>Layer {layer}</b> <span>up to ±{unsigned(peak)}</span>"
        f'</summary><div class="map"><table><thead><tr><td></td>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
        f"{legend}</details>"
    )


def _cell(value: float, peak: float) -> str:
    shade = round(SHADES * strength(value, peak))
    if not shade:
        return "<td></td>"
    look = f"p{shade}" if value > 0 else f"n n{shade}"
    return f'<td class="{look}" title="{signed(value)}"></td>'


def _footer(attention: "HiddenAttention") -> str:
    parts = [*_about(attention), *(f"{package} {version}" for package, version in attention.versions.items())]
    return f"\n<footer>{escape(visible(' · '.join(parts)))}</footer>"


def _about(attention: "HiddenAttention") -> list[str]:
    channels = attention.matrix.shape[2] if attention.matrix.dim() == 5 else 0
    what = f"{attention.kind} attention" + (f", mean of {channels} channels" if channels else "")
    return [what, *([f"model {attention.model_id}"] if attention.model_id else [])]


def _strongest(values: Tensor, axis: int, size: int) -> Tensor:
    """The value of largest magnitude, sign kept, of every ``size`` entries along an axis."""
    parts = values.split(size, axis)
    return torch.stack([p.gather(axis, p.abs().argmax(axis, keepdim=True)).squeeze(axis) for p in parts], axis)


def _name(token: str, size: int) -> str:
    return shorten(label(token), AXIS_LABEL) + (" …" if size > 1 else "")
