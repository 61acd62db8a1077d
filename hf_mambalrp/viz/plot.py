"""Figures: signed bars per word, and heat maps."""

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any, cast

from hf_mambalrp.errors import MissingExtraError
from hf_mambalrp.viz.colors import LIGHT
from hf_mambalrp.viz.document import Heat, Stretch
from hf_mambalrp.viz.fonts import drawable, families
from hf_mambalrp.viz.wording import axis_label, signed
from hf_mambalrp.viz.words import Word

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ROWS = 64
"""A heat map grows no higher with more rows, unless they have names."""
MAX_NAMES = 320
"""Of more rows every second has its name, or fewer, and it grows no higher."""
LINE = 84
"""Characters of a line above a figure, at most."""
HEADER = 0.75
"""Inches of a figure's height for the title and the lines below it, as long as they need no more."""
STRIP = 1.4
"""Inches of the height of a strip along a text."""
MARGIN = 0.12
"""Inches between what is drawn and the figure's edge."""


def bars(
    words: Sequence[Word],
    *,
    title: str,
    lines: Sequence[str],
    strip: Sequence[Stretch] = (),
    ax: "Axes | None",
) -> "Figure":
    """Draw a horizontal bar per word, from the top down, below what was explained in some ``lines``.

    In a figure of its own a ``strip`` along the whole text stands above them.
    """
    values = [word.relevance for word in words]
    own, height, top = ax is None, 1.6 + 0.26 * len(words), None
    if ax is None and strip:
        top, ax = new_figure(7, height + STRIP).subplots(2, 1, height_ratios=(STRIP, height))
        _along(top, strip)
    ax = ax or _axes(7, height)
    colors = [LIGHT.negative if value < 0 else LIGHT.positive for value in values]
    drawn = ax.barh(range(len(words)), values, color=colors, height=0.72)
    ax.bar_label(drawn, [signed(value) for value in values], padding=4, fontsize=8, color=LIGHT.muted)
    ax.set_yticks(range(len(words)), drawable([axis_label(word.text) for word in words]), parse_math=False)
    ax.set_ylim(len(words) - 0.4, -0.6)
    ax.axvline(0, color=LIGHT.text, linewidth=0.8)
    ax.margins(x=0.16)
    ax.set_xlabel("relevance, in units of the score", fontsize=9, color=LIGHT.muted)
    ax.grid(axis="x", color=LIGHT.line, linewidth=0.6)
    if top is not None:
        quiet(ax)
    dress(top or ax, title, lines, grows=own)
    return cast("Figure", ax.figure)


def _along(ax: Any, strip: Sequence[Stretch]) -> None:
    """Draw the sums of relevance along a text, stretch by stretch."""
    values = [stretch.relevance for stretch in strip]
    colors = [LIGHT.negative if value < 0 else LIGHT.positive for value in values]
    widths = [stretch.size for stretch in strip]
    ax.bar([stretch.first + 1 for stretch in strip], values, widths, align="edge", color=colors)
    ax.axhline(0, color=LIGHT.text, linewidth=0.8)
    ax.margins(x=0)
    ax.set_xlabel(f"along the text, in words; each bar is of {widths[0]}", fontsize=9, color=LIGHT.muted)
    ax.locator_params(axis="y", nbins=3)


def heat_map(
    heat: Heat,
    *,
    title: str,
    lines: Sequence[str],
    down: str,
    across: str = "",
    meaning: str = "relevance: blue for, red against",
    inches: float,
    numbered: bool = False,
    ax: "Axes | None",
) -> "Figure":
    """Draw a matrix around a white zero; ``down`` and ``across`` say what its rows and columns are.

    A row of a figure of its own is so many ``inches`` high. ``numbered`` rows count from 0 at the bottom instead of
    having names. All rows are drawn, however many they are.
    """
    columns = heat.columns
    width, height = max(7, 3 + 0.24 * len(columns)), 1.8 + 0.08 * max(map(len, columns))
    high = min(len(heat.rows), MAX_ROWS if numbered else MAX_NAMES)
    own, ax = ax is None, ax or _axes(width, height + inches * high)
    _draw(ax, heat, meaning)
    if numbered:
        ax.invert_yaxis()
        ax.locator_params(axis="y", integer=True)
    else:
        named = range(0, len(heat.rows), -(-len(heat.rows) // MAX_NAMES))
        ax.set_yticks(named, drawable([heat.rows[i] for i in named]), parse_math=False)
    ax.set_ylabel(down, fontsize=9, color=LIGHT.muted)
    ax.set_xlabel(across, fontsize=9, color=LIGHT.muted)
    dress(ax, title, lines, grows=own)
    return cast("Figure", ax.figure)


def _axes(width: float, height: float) -> Any:
    return new_figure(width, height).add_subplot()


def new_figure(width: float, height: float) -> Any:
    """A figure of so many inches that pyplot does not know. MissingExtraError: matplotlib is not installed."""
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise MissingExtraError('plot needs matplotlib: pip install "hf_mambalrp[plot]"') from error
    figure = plt.figure(figsize=(width, height), layout="constrained", facecolor=LIGHT.background)
    figure.get_layout_engine().set(w_pad=MARGIN, h_pad=MARGIN)
    plt.close(figure)  # only pyplot lets go of it: a notebook would show it twice, a loop would pile figures up
    return figure


def relevance_colors() -> Any:
    """The scale of colours from red over white to blue."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("relevance", [LIGHT.negative, LIGHT.background, LIGHT.positive])


def _draw(ax: Any, heat: Heat, meaning: str) -> None:
    """Draw the values, with a colour bar that says what the signs mean."""
    peak = heat.values.abs().max().item() or 1.0
    image = ax.imshow(
        heat.values.numpy(), cmap=relevance_colors(), vmin=-peak, vmax=peak, aspect="auto", interpolation="nearest"
    )
    ax.set_xticks(
        range(len(heat.columns)),
        drawable(heat.columns),
        rotation=60,
        ha="right",
        rotation_mode="anchor",
        parse_math=False,
    )
    color_bar(image, ax, meaning, pad=0.02, aspect=30)


def color_bar(scale: Any, ax: Any, meaning: str, **place: Any) -> None:
    """Draw a scale beside axes, with what its signs mean."""
    bar = (ax[0] if isinstance(ax, list) else ax).figure.colorbar(scale, ax=ax, **place)
    bar.set_label(meaning, fontsize=9, color=LIGHT.muted)
    bar.ax.tick_params(labelsize=8, colors=LIGHT.text)
    bar.outline.set_visible(False)


def dress(ax: Any, title: str, lines: Sequence[str], *, grows: bool) -> None:
    """Give finished axes a title, what was explained in a few lines below it, and a quiet frame.

    Both are wrapped to the room right of the axes' left edge, which depends on the names there, up to the figure's
    edge or the axes beside them. A figure that ``grows`` gets higher where they need more lines than usual.
    """
    quiet(ax)
    figure = ax.figure.canvas.figure
    _lay_out(figure, ax)
    place = ax.get_subplotspec()
    right = figure.bbox.x1 - MARGIN * figure.dpi if place is None or place.is_last_col() else ax.bbox.x1
    room = right - ax.bbox.x0
    under = ax.annotate(
        "",
        (0, 1),
        (0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9,
        fontfamily=families(),
        color=LIGHT.muted,
        linespacing=1.3,
        parse_math=False,
    )
    under.set_in_layout(False)  # a long line must not squeeze the axes; the title keeps the room for it
    fill(under, drawable(lines), room)
    heading = ax.set_title(
        "",
        loc="left",
        pad=10 + under.get_window_extent().height * 72 / figure.dpi,
        fontsize=12,
        fontfamily=families(),
        fontweight="bold",
        color=LIGHT.text,
        verticalalignment="bottom",
        parse_math=False,
    )
    fill(heading, drawable([title], "bold"), room)
    header = sum(text.get_window_extent().height for text in (heading, under)) / figure.dpi
    if grows:
        figure.set_figheight(figure.get_figheight() + max(0, header - HEADER))


def _lay_out(figure: Any, ax: Any) -> None:
    """Put axes where they will be drawn, which is half of the work of drawing them."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        ax.apply_aspect()
    else:
        figure.draw_without_rendering()


def quiet(ax: Any) -> None:
    """Give axes a background, names of this size, and no frame."""
    ax.set_facecolor(LIGHT.background)
    ax.set_axisbelow(True)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelsize=9, colors=LIGHT.text, labelfontfamily=families())


def fill(text: Any, paragraphs: Sequence[str], room: float, most: int = LINE) -> None:
    """Wrap paragraphs to as many characters a line as fit into ``room`` pixels, at ``most`` so many."""
    for width in range(most, 8, -2):
        text.set_text("\n".join(part for paragraph in paragraphs for part in wrap(paragraph, width)))
        if text.get_window_extent().width <= room:
            return
