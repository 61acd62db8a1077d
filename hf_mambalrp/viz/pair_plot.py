"""A figure of two explanations of one text: two bars a word, and beside them the difference."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from hf_mambalrp.viz.colors import LIGHT, PARTS
from hf_mambalrp.viz.fonts import drawable, families
from hf_mambalrp.viz.pairs import WordPair
from hf_mambalrp.viz.plot import dress, new_figure, quiet
from hf_mambalrp.viz.wording import axis_label, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDES = PARTS["MLP"], PARTS["SSM"]
"""Colours of the first and the second; the blue and the red of a sign are the difference's."""
BAR, ROW = 0.38, 0.36
"""Height of a bar in rows, and of a row in inches."""


def paired_bars(
    pairs: Sequence[WordPair], names: tuple[str, str], *, title: str, lines: Sequence[str], ax: "Axes | None"
) -> "Figure":
    """Draw both relevances of every word, from the top down; in a figure of its own the difference stands beside."""
    own = ax is None
    if ax is None:
        figure = new_figure(9, 2.0 + ROW * len(pairs))
        ax, beside = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    rows = range(len(pairs))
    for side, (name, color) in enumerate(zip(drawable(list(names)), SIDES, strict=True)):
        values = [pair.second if side else pair.first for pair in pairs]
        places = [row + BAR * (side - 0.5) for row in rows]
        drawn = ax.barh(places, values, height=BAR, color=color, label=name)
        ax.bar_label(drawn, [signed(value) for value in values], padding=3, fontsize=7, color=LIGHT.muted)
    ax.set_yticks(rows, drawable([axis_label(pair.text) for pair in pairs]), parse_math=False)
    ax.set_ylim(len(pairs) - 0.4, -0.6)
    _measure(ax, "relevance, in units of the score")
    ax.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        borderaxespad=4,  # below the axis and its name
        ncols=2,
        frameon=False,
        labelcolor=LIGHT.text,
        prop={"family": families(), "size": 9},
    )
    if own:
        values = [pair.difference for pair in pairs]
        colors = [LIGHT.negative if value < 0 else LIGHT.positive for value in values]
        drawn = beside.barh(rows, values, height=0.72, color=colors)
        beside.bar_label(drawn, [signed(value) for value in values], padding=3, fontsize=7, color=LIGHT.muted)
        _measure(beside, "second less first")
        quiet(beside)
    dress(ax, title, lines, grows=own)
    return cast("Figure", ax.figure)


def _measure(ax: "Axes", says: str) -> None:
    """A line at 0, room for the numbers, and the axis of relevance with what it ``says``."""
    ax.axvline(0, color=LIGHT.text, linewidth=0.8)
    ax.margins(x=0.2)
    ax.set_xlabel(says, fontsize=9, color=LIGHT.muted)
    ax.grid(axis="x", color=LIGHT.line, linewidth=0.6)
