"""Figures of images: each with the map over it and the map alone, and the maps of layers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from hf_mambalrp.viz.colors import LIGHT
from hf_mambalrp.viz.document import Picture
from hf_mambalrp.viz.fonts import drawable, families
from hf_mambalrp.viz.picture import enlarged, enlargement, map_alone, overlay
from hf_mambalrp.viz.plot import MARGIN, color_bar, dress, fill, new_figure, relevance_colors
from hf_mambalrp.viz.wording import unsigned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

PANEL = 2.7
"""Inches of a panel's side."""
SMALL = 1.35
"""Inches of the side of a layer's map."""
WIDE = 160
"""Characters of a line beside several panels, at most."""
OUTLIERS = 0.005
"""The share of pixels whose relevance may go beyond the scale: few have far more than the rest."""
ACROSS = 7
"""Maps of layers in a line, at most."""
MEANING = "blue for, striped red against"


class Line(NamedTuple):
    """One line of a figure: an image with its maps."""

    picture: Picture
    pixels: "Tensor | None"
    """(H, W), relevance passed on to the pixels themselves."""
    title: str
    lines: Sequence[str]
    """What was explained."""


def panels(lines: Sequence[Line]) -> "Figure":
    """Draw the image, the map over it and the map alone for every line, and a map of pixels where there is one."""
    across = 4 if any(line.pixels is not None for line in lines) else 3
    figure = new_figure(across * PANEL + 1.4, len(lines) * (PANEL + 1.4))
    for line, part in zip(lines, figure.subfigures(len(lines), 1, squeeze=False)[:, 0], strict=True):
        _draw_line(line, part, across)
    figure.draw_without_rendering()  # the layout of the first drawing does not know yet where the scales end up
    return cast("Figure", figure)


def _draw_line(line: Line, part: Any, across: int) -> None:
    picture = line.picture
    part.set_facecolor(LIGHT.background)
    axes = part.subplots(1, across)
    times = enlargement(picture.image)
    image, heat = enlarged(picture.image, times), enlarged(picture.heat, times)
    shown = {
        "what the model saw": image,
        "relevance over it": overlay(image, heat, picture.peak),
        "relevance of patches": map_alone(heat, picture.peak),
    }
    if line.pixels is not None:
        sizes = line.pixels.abs().flatten().sort(descending=True).values
        full = sizes[int(OUTLIERS * len(sizes))].item()
        shown[f"of pixels, full from ±{unsigned(full)}"] = map_alone(enlarged(line.pixels, times), full)
    for ax, (name, panel) in zip(axes, shown.items(), strict=False):
        _show(ax, panel, name)
    for ax in axes[len(shown) :]:
        ax.set_visible(False)
    _scale(list(axes), picture.end, f"relevance of {picture.cell} x {picture.cell} pixels:\n{MEANING}")
    _write(part, line.title, line.lines)


def over_image(line: Line, ax: "Axes") -> "Figure":
    """Draw the map over the image into axes of the caller's."""
    picture = line.picture
    times = enlargement(picture.image)
    _show(ax, overlay(enlarged(picture.image, times), enlarged(picture.heat, times), picture.peak), "")
    _scale([ax], picture.end, f"relevance, {MEANING}")
    dress(ax, line.title, line.lines, grows=False)
    return cast("Figure", ax.figure)


def layers(maps: Sequence["Tensor"], names: Sequence[str], *, title: str, lines: Sequence[str]) -> "Figure":
    """Draw maps (rows, columns) of patches, all on one scale, in the order of reading."""
    down = -(-len(maps) // ACROSS)
    across = -(-len(maps) // down)
    figure = new_figure(max(across * SMALL + 1.6, 7), down * (SMALL + 0.45) + 1.2)
    axes = figure.subplots(down, across, squeeze=False).flatten()
    peak = max(one.abs().max().item() for one in maps)
    times = max(enlargement(one) // 2 for one in maps)
    for ax, one, name in zip(axes, maps, names, strict=False):
        _show(ax, map_alone(enlarged(one, times), peak), name)
    for ax in axes[len(maps) :]:
        ax.set_visible(False)
    _scale(list(axes), peak, f"relevance of a patch:\n{MEANING}")
    _write(figure, title, lines)
    return cast("Figure", figure)


def _show(ax: Any, pixels: "Tensor", name: str) -> None:
    """Draw an image in a thin frame, with its name above it."""
    ax.imshow(pixels.numpy(), interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_color(LIGHT.line)
    if name:
        ax.set_title(name, fontsize=9, color=LIGHT.muted, parse_math=False)


def _scale(axes: list[Any], end: float, meaning: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    end = end or 1.0
    color_bar(ScalarMappable(Normalize(-end, end), relevance_colors()), axes, meaning, pad=0.02, shrink=0.9, aspect=30)


def _write(figure: Any, title: str, lines: Sequence[str]) -> None:
    """Put a title above all panels and what was explained below them, wrapped to the figure's width."""
    whole = figure.bbox
    room, left = whole.width - 2 * MARGIN * figure.dpi, MARGIN * figure.dpi / whole.width
    look = {"x": left, "ha": "left", "fontfamily": families(), "parse_math": False}
    heading = figure.suptitle("", fontsize=12, fontweight="bold", color=LIGHT.text, **look)
    fill(heading, drawable([title], "bold"), room, WIDE)
    under = figure.supxlabel("", fontsize=9, color=LIGHT.muted, linespacing=1.3, **look)
    fill(under, drawable(lines), room, WIDE)
