"""What the figures of an explained image show: its rows, and what stands beside them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.results.image_document import image_facts, image_sum, picture_of
from hf_mambalrp.results.sentences import question
from hf_mambalrp.viz.picture import enlarged, enlargement, overlay, png, sheet
from hf_mambalrp.viz.picture_plot import Line, layers, over_image, panels
from hf_mambalrp.viz.wording import signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from hf_mambalrp.results.image_explanation import ImageExplanation


def panels_of_rows(ex: "ImageExplanation", rows: Sequence[int], ax: "Axes | None") -> "Figure":
    """Draw image, overlay and map of every row, or the overlay of one into the caller's axes."""
    lines = [_line(ex, row) for row in rows]
    if ax is None:
        return panels(lines)
    if len(lines) > 1:
        raise OptionError(
            f"ax has room for one row, and {len(lines)} were asked for: {rows}. Leave ax out, or give one."
        )
    score, *_ = image_facts(ex, rows[0])
    return over_image(lines[0]._replace(lines=[" ".join(score)]), ax)


def maps_of_layers(ex: "ImageExplanation", rows: Sequence[int], ax: "Axes | None") -> "Figure":
    """Draw the patches of one row after the embedding and after every block."""
    if ex.layer_relevance is None or ex.layer_class_relevance is None:
        raise InputError("there is no layer_relevance to draw; call explain(..., per_layer=True).")
    if len(rows) > 1 or ax is not None:
        raise OptionError("per_layer draws many maps of one row; give one row, and no ax.")
    (row,) = rows
    tokens = ex.layer_class_relevance[:, row].sum(-1).tolist()
    names = ["embedding", *(f"block {number}" for number in range(1, len(tokens)))]
    return layers(
        [*ex.layer_relevance[:, row]],
        [f"{name}\nclass {signed(value)}" for name, value in zip(names, tokens, strict=True)],
        title=f"{question(ex, row)} Layer by layer",
        lines=[*_about(ex, row), "class: the relevance of the class token, which is in no place of the image"],
    )


def png_of_rows(ex: "ImageExplanation", rows: Sequence[int]) -> bytes:
    """Image and overlay of every row as PNG."""
    return png(sheet([[*_pair(ex, row)] for row in rows]))


def _pair(ex: "ImageExplanation", row: int) -> "Sequence[Tensor]":
    picture = picture_of(ex, row)
    times = enlargement(picture.image)
    image, heat = enlarged(picture.image, times), enlarged(picture.heat, times)
    return image, overlay(image, heat, picture.peak)


def _line(ex: "ImageExplanation", row: int) -> Line:
    pixels = None if ex.pixel_relevance is None else ex.pixel_relevance[row]
    return Line(picture_of(ex, row), pixels, question(ex, row), _about(ex, row))


def _about(ex: "ImageExplanation", row: int) -> list[str]:
    return [", ".join(f"{name} {value}" for name, value in image_facts(ex, row)), image_sum(ex, row)]
