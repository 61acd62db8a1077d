"""The plots of a report, drawn with matplotlib in the two colours that every other rendering uses."""

import re
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from textwrap import fill
from typing import TYPE_CHECKING, Any

from hf_mambalrp.errors import MissingExtraError
from hf_mambalrp.viz.colors import LIGHT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hf_mambalrp.evaluation.report_parts import Plot, Plots

SIZE = (3.2, 2.1)
"""Inches of a panel; at the width of a phone its text is as large as the text around it."""
POINTS = 72
"""In an inch; as matplotlib draws SVG, so that its texts are as wide in the layout."""
COLUMNS = 3
INSTALL = 'pip install "hf_mambalrp[plot]"'
THEME = {
    LIGHT.text: "var(--fg)",
    LIGHT.muted: "var(--muted)",
    LIGHT.line: "var(--line)",
    LIGHT.background: "var(--bg)",
    LIGHT.positive: "rgb(var(--pos))",
    LIGHT.negative: "rgb(var(--neg))",
}
"""A drawn colour becomes the page's, so that one drawing is right in light and in dark."""


def perturbation(
    fractions: Sequence[float],
    *,
    upper: Sequence[float],
    lower: Sequence[float],
    upper_is_morf: bool,
    others: Sequence[Sequence[float]],
    limits: tuple[float, float],
) -> Callable[[Any], None]:
    """Two curves and the area between them: blue where ``upper``, which should be above, is above; red elsewhere."""

    def draw(ax: Any) -> None:
        for other in others:
            ax.plot(fractions, other, color=LIGHT.line, linewidth=0.6)
        for above, color, hatch in ((True, LIGHT.positive, None), (False, LIGHT.negative, "////")):
            where = [(a >= b) is above for a, b in zip(upper, lower, strict=True)]
            ax.fill_between(
                fractions, upper, lower, where=where, interpolate=True,
                facecolor=color, edgecolor=color, alpha=0.28, hatch=hatch, linewidth=0,
            )  # fmt: skip
        for curve, is_morf in ((upper, upper_is_morf), (lower, not upper_is_morf)):
            ax.plot(fractions, curve, color=LIGHT.text, linewidth=1.3, linestyle="-" if is_morf else (0, (3, 1.5)))
        ax.set_xlim(0, 1)
        ax.set_ylim(limits)
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
        ax.grid(color=LIGHT.line, linewidth=0.4)

    return draw


def intervals(names: Sequence[str], stats: Sequence[Mapping[str, Any]]) -> Callable[[Any], None]:
    """A point and its interval per method, top to bottom; 0 is drawn."""

    def draw(ax: Any) -> None:
        for row, stat in enumerate(stats):
            ax.plot([stat["low"], stat["high"]], [row, row], color=LIGHT.positive, linewidth=1.4)
            ax.plot([stat["mean"]], [row], "o", color=LIGHT.positive, markersize=4)
        ax.axvline(0, color=LIGHT.muted, linewidth=0.7)
        ax.set_yticks(range(len(names)), names, parse_math=False)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.grid(axis="x", color=LIGHT.line, linewidth=0.4)

    return draw


def scatter(scores: Sequence[float], sums: Sequence[float], limits: tuple[float, float]) -> Callable[[Any], None]:
    """A point per example and the diagonal on which the sum is the score."""

    def draw(ax: Any) -> None:
        ax.plot(limits, limits, color=LIGHT.muted, linewidth=0.9, linestyle=(0, (3, 1.5)))
        ax.plot(scores, sums, "o", color=LIGHT.positive, markersize=2.8, alpha=0.8, markeredgewidth=0)
        ax.set_xlim(limits)
        ax.set_ylim(min(limits[0], *padded(sums)), max(limits[1], *padded(sums)))
        ax.grid(color=LIGHT.line, linewidth=0.4)

    return draw


def padded(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of the values, 5 % wider on both sides."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def svg(plot: "Plot", salt: str, label: str) -> str:
    """Draw a plot as inline SVG in the page's colours and fonts; ``label`` is escaped already."""
    figure_type, canvas_type, style = _matplotlib()
    options = {"svg.fonttype": "none", "svg.hashsalt": salt, "axes.unicode_minus": False}
    with style.context(["default", options]):
        figure = figure_type(figsize=SIZE, dpi=POINTS, layout="constrained")
        canvas_type(figure)
        _draw(figure.add_subplot(), plot)
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine(None)  # savefig would draw all twice, the first time for the layout
        buffer = StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    # Up to the first </defs> stands a style sheet that would apply to the whole page.
    source = buffer.getvalue()
    drawn = source[source.index("</defs>") + 7 : source.rindex("</svg>")]
    drawn = re.sub(r">\s+<", "><", re.sub(r"<[^>]+>", lambda tag: _themed(tag[0]), drawn)).strip()
    return f'<svg viewBox="0 0 {POINTS * SIZE[0]:g} {POINTS * SIZE[1]:g}" role="img" aria-label="{label}">{drawn}</svg>'


def figure_of(groups: Sequence["Plots"]) -> "Figure":
    """Draw groups of plots below each other in one figure."""
    _matplotlib()
    from matplotlib import pyplot as plt

    rows = [-(-len(group.plots) // COLUMNS) for group in groups]
    columns = min(COLUMNS, max(len(group.plots) for group in groups))
    figure: Figure = plt.figure(
        figsize=(3.4 * columns + 0.3, sum(2.5 * count + 0.7 for count in rows)),
        layout="constrained",
        facecolor=LIGHT.background,
    )
    plt.close(figure)  # only pyplot lets go of it: a notebook would show it twice, a loop would pile figures up
    parts = figure.subfigures(len(groups), 1, height_ratios=[2.5 * count + 0.7 for count in rows], squeeze=False)
    for part, group, count in zip(parts[:, 0], groups, rows, strict=True):
        key = fill("; ".join(f"{look}: {meaning}" for look, meaning in group.key), 36 * columns)
        part.suptitle(
            f"{group.title}\n{key}" if key else group.title,
            fontsize=10,
            color=LIGHT.text,
            x=0.01,
            ha="left",
            parse_math=False,
        )
        for index, plot in enumerate(group.plots):
            ax = part.add_subplot(count, columns, index + 1)
            _draw(ax, plot)
            ax.set_title(f"{plot.title}\n{plot.shows}", loc="left", fontsize=9, color=LIGHT.text, parse_math=False)
    return figure


def _draw(ax: Any, plot: "Plot") -> None:
    ax.set_axisbelow(True)
    ax.spines[:].set_visible(False)
    plot.draw(ax)
    ax.tick_params(length=0, labelsize=8, colors=LIGHT.text)
    ax.set_xlabel(plot.x, fontsize=8, color=LIGHT.muted, parse_math=False)
    ax.set_ylabel(plot.y, fontsize=8, color=LIGHT.muted, parse_math=False)


def _themed(tag: str) -> str:
    """Give a tag the page's colours and font, drop ids nobody refers to, and shorten its numbers."""
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    tag = re.sub(r"font-family: [^;\"]*(; )?", "", tag)
    tag = re.sub(r"(\.\d\d)\d+", r"\1", re.sub(r"\s+", " ", tag))
    for color, variable in THEME.items():
        tag = tag.replace(color, variable)
    return tag


def _matplotlib() -> tuple[Any, Any, Any]:
    try:
        from matplotlib import style
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(f"plot needs matplotlib: {INSTALL}") from error
    return Figure, FigureCanvasSVG, style
