"""A figure of stacked bars: what each of a few named things adds to a sum, signs kept."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from hf_mambalrp.viz.colors import LIGHT, PARTS
from hf_mambalrp.viz.fonts import families
from hf_mambalrp.viz.plot import MAX_ROWS, dress, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES = 0.2
"""Height of a bar."""
LEGEND = 1.3
"""Width of a name in the legend, in inches."""
LABELS = 24
"""Bars that have a name, at most."""


class Stack(NamedTuple):
    """One bar."""

    name: str
    """On the axis; "" for one that belongs to the bar above it."""
    terms: Mapping[str, float]


def stacked_bars(
    stacks: Sequence[Stack], names: Sequence[str], *, down: str, title: str, lines: Sequence[str], ax: "Axes | None"
) -> "Figure":
    """Draw a bar a stack, from the top down: positive terms to the right of 0, negative ones to the left.

    A mark shows the sum of a bar. ``names`` are those of all terms, in the order from 0 outwards.
    """
    own, ax = ax is None, ax or new_figure(7, 2.2 + INCHES * min(len(stacks), MAX_ROWS)).add_subplot()
    ends = {sign: [0.0] * len(stacks) for sign in (True, False)}
    for name in names:
        values = [stack.terms.get(name, 0.0) for stack in stacks]
        left = [ends[value >= 0][row] for row, value in enumerate(values)]
        ax.barh(range(len(stacks)), values, left=left, height=0.78, color=PARTS.get(name, LIGHT.muted), label=name)
        for row, value in enumerate(values):
            ends[value >= 0][row] += value
    sums = [sum(stack.terms.values()) for stack in stacks]
    ax.plot(sums, range(len(stacks)), "|", color=LIGHT.text, markersize=9, markeredgewidth=1.6, label="sum")
    named = [row for row, stack in enumerate(stacks) if stack.name]
    named = named[:: -(-len(named) // LABELS)]
    ax.set_yticks(named, [stacks[row].name for row in named])
    ax.set_ylim(len(stacks) - 0.4, -0.6)
    ax.axvline(0, color=LIGHT.text, linewidth=0.8)
    ax.set_ylabel(down, fontsize=9, color=LIGHT.muted)
    ax.set_xlabel("relevance, in units of the score", fontsize=9, color=LIGHT.muted)
    ax.grid(axis="x", color=LIGHT.line, linewidth=0.6)
    columns = max(1, int(ax.bbox.width / ax.figure.canvas.figure.dpi / LEGEND))
    ax.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        borderaxespad=4,  # below the axis and its name
        ncols=columns,
        frameon=False,
        labelcolor=LIGHT.text,
        prop={"family": families(), "size": 9},
    )
    dress(ax, title, lines, grows=own)
    return cast("Figure", ax.figure)
