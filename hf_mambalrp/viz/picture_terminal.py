"""An image in a terminal: two pixels a character where there are colours, else the shares of its patches as a grid."""

from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style
from rich.text import Text
from torch import Tensor, nn

from hf_mambalrp.viz.colors import TERMINAL_NEGATIVE, TERMINAL_POSITIVE
from hf_mambalrp.viz.document import Picture
from hf_mambalrp.viz.picture import overlay
from hf_mambalrp.viz.wording import visible

COLUMNS = 48
"""Characters of an image's width, at most; it has as many pixels."""
HALF = "▀"
"""Its upper half has the colour of the text, its lower half that of the background."""
NONE = "."
"""A patch whose share rounds to 0."""


class PictureLines:
    """The map over the image, or its numbers; below it where the relevance is and what the signs say."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        has_colors = bool(console.color_system) and not console.no_color
        yield ""
        if has_colors and not options.ascii_only:
            yield half_blocks(self.picture, min(COLUMNS, options.max_width))
            signs = (("blue", Style(color=TERMINAL_POSITIVE)), ("red", Style(color=TERMINAL_NEGATIVE)))
        else:
            yield Text(shares(self.picture.patches, options.max_width))
            signs = (("+", Style()), ("-", Style()))
        yield ""
        yield Text(visible(self.picture.where))
        (plus, minus), picture = signs, self.picture
        yield Text.assemble(plus, f": {visible(picture.positive)}; ", minus, f": {visible(picture.negative)}")


def half_blocks(picture: Picture, columns: int) -> Text:
    """The map over the image, ``columns`` characters wide: a character is two pixels high."""
    height, width = picture.image.shape[:2]
    size = (2 * max(1, round(columns * height / width / 2)), columns)
    image = nn.functional.interpolate(picture.image.permute(2, 0, 1)[None].float(), size, mode="area")[0]
    heat = nn.functional.interpolate(picture.heat[None, None], size, mode="area")[0, 0]
    pixels = overlay(image.permute(1, 2, 0), heat, picture.peak, striped=False).tolist()
    return Text("\n").join(_line(upper, lower) for upper, lower in zip(pixels[::2], pixels[1::2], strict=True))


def _line(upper: list[list[int]], lower: list[list[int]]) -> Text:
    pairs = zip(upper, lower, strict=True)
    return Text.assemble(*((HALF, Style(color=_rgb(above), bgcolor=_rgb(below))) for above, below in pairs))


def _rgb(pixel: list[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*pixel)


def shares(patches: Tensor, width: int) -> str:
    """Signed percentages of all |relevance|, for every patch, or for groups of patches where ``width`` is short."""
    percent = 100 * patches / (patches.abs().sum().item() or 1.0)
    for side in range(1, max(patches.shape) + 1):
        cells = [[_share(value) for value in line] for line in _grouped(percent, side).tolist()]
        longest = max(len(cell) for line in cells for cell in line)
        if len(cells[0]) * (longest + 1) <= width:
            break
    grid = "\n".join(" ".join(cell.rjust(longest) for cell in line) for line in cells)
    group = "a patch" if side == 1 else f"{side} x {side} patches"
    return f"{grid}\n\nEach number: the share of {group} in all |R|, in percent."


def _grouped(values: Tensor, side: int) -> Tensor:
    """The sums of groups of ``side`` x ``side``, fewer at the right and at the bottom."""
    down, across = (-size % side for size in values.shape)
    padded = nn.functional.pad(values, (0, across, 0, down))[None, None]
    return nn.functional.avg_pool2d(padded, side)[0, 0] * side**2


def _share(percent: float) -> str:
    return f"{percent:+.0f}" if abs(percent) >= 0.5 else NONE
