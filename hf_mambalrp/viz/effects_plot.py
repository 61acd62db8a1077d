"""A figure of effects: a point and its interval for each, between what is too small to count."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from hf_mambalrp.viz.colors import LIGHT
from hf_mambalrp.viz.fonts import drawable
from hf_mambalrp.viz.plot import dress, new_figure
from hf_mambalrp.viz.wording import axis_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure


ROOM = 1.6
"""The axis reaches so far beyond the largest effect; an interval that is wider is cut there."""


class Point(NamedTuple):
    """The effect of something on what it is ``of``, with its interval; one that counts is filled.

    ``beside`` are effects to compare it with.
    """

    name: str
    of: str
    value: float
    low: float
    high: float
    counts: bool
    beside: Sequence[float] = ()


def effects(points: Sequence[Point], *, title: str, lines: Sequence[str], smallest: float, across: str) -> "Figure":
    """Draw effects from the top down, with dashed lines at plus and minus the ``smallest`` that counts."""
    figure = new_figure(7, 1.6 + 0.3 * max(1, len(points)))
    ax = figure.add_subplot()
    for row, point in enumerate(points):
        color = LIGHT.negative if point.value < 0 else LIGHT.positive
        ax.plot(point.beside, [row] * len(point.beside), "|", color=LIGHT.muted, markersize=9)
        ax.plot([point.low, point.high], [row, row], color=color, linewidth=1.6)
        ax.plot(
            [point.value], [row], "o", color=color, markersize=6, markerfacecolor=color if point.counts else "white"
        )
    shown = [smallest, *(abs(value) for point in points for value in (point.value, *point.beside))]
    ax.set_xlim(-ROOM * max(shown), ROOM * max(shown))
    for edge in (-smallest, smallest):
        ax.axvline(edge, color=LIGHT.muted, linewidth=0.8, linestyle=(0, (4, 3)))
    ax.axvline(0, color=LIGHT.text, linewidth=0.8)
    names = [f"{axis_label(point.name)} · {axis_label(point.of)}" for point in points]
    ax.set_yticks(range(len(points)), drawable(names), parse_math=False)
    ax.set_ylim(len(points) - 0.4, -0.6)
    ax.set_xlabel(across, fontsize=9, color=LIGHT.muted)
    ax.grid(axis="x", color=LIGHT.line, linewidth=0.6)
    dress(ax, title, lines, grows=True)
    return cast("Figure", figure)
