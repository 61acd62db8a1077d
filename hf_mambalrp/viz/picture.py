"""Images and relevance as pixels: the map in colours, the map over the image, and PNG.

Everything is a tensor (H, W, channels) of uint8. The more |relevance|, the more opaque is the colour, on a scale from
-peak to peak. Below the map the image is grey and faded to white, so that blue and red are legible on dark and on
light images alike; stripes on the negative tell the signs apart without colour.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from io import BytesIO

import torch
from torch import Tensor

from hf_mambalrp.runs.pillow import pillow
from hf_mambalrp.viz.colors import LIGHT, channels

OPAQUE = 0.9
"""Opacity of the strongest relevance over an image."""
FADED = 0.4
"""Opacity of an image, in grey, below its map."""
SIDE = 448
"""Pixels that the longer side of a shown image has at least."""
STRIPES, STRIPE = 8, 2
"""Pixels from a stripe to the next, across, and of a stripe."""
GREY = (0.2126, 0.7152, 0.0722)
"""Luminance of red, green and blue, as the style sheets' ``grayscale`` has it."""
GAP = 12
"""White pixels between panels, and around them."""


def enlargement(image: Tensor) -> int:
    """The whole number of times that an image is enlarged to be looked at."""
    return -(-SIDE // max(image.shape[:2]))


def enlarged(pixels: Tensor, times: int) -> Tensor:
    """Every pixel of (H, W, ...) as a square of ``times`` x ``times``."""
    return pixels.repeat_interleave(times, 0).repeat_interleave(times, 1)


def colors(heat: Tensor, peak: float, *, striped: bool = True) -> Tensor:
    """A map (H, W) as (H, W, 4): blue and red, with an opacity of |relevance| / ``peak``."""
    down, across = (torch.arange(size) for size in heat.shape)
    stripes = (heat < 0) & ((down[:, None] + across) % STRIPES < STRIPE)
    found = torch.empty(*heat.shape, 4, dtype=torch.uint8)
    found[..., :3] = torch.tensor(channels(LIGHT.positive), dtype=torch.uint8)
    found[..., :3][heat < 0] = torch.tensor(channels(LIGHT.negative), dtype=torch.uint8)
    found[..., :3][stripes & striped] = 255
    found[..., 3] = _rounded(255 * (heat.abs() / (peak or 1.0)).clamp(max=1))
    return found


def overlay(image: Tensor, heat: Tensor, peak: float, *, striped: bool = True) -> Tensor:
    """An image (H, W, 3) below its map (H, W), as (H, W, 3)."""
    grey = (image.float() @ torch.tensor(GREY, dtype=torch.float32))[..., None].expand(-1, -1, 3)
    return _over(255 + FADED * (grey - 255), colors(heat, peak, striped=striped), OPAQUE)


def map_alone(heat: Tensor, peak: float) -> Tensor:
    """A map (H, W) on white, as (H, W, 3)."""
    return _over(torch.full((*heat.shape, 3), 255.0, dtype=torch.float32), colors(heat, peak), 1.0)


def _over(below: Tensor, colored: Tensor, opacity: float) -> Tensor:
    alpha = opacity * colored[..., 3:].float() / 255
    return _rounded(alpha * colored[..., :3] + (1 - alpha) * below)


def _rounded(values: Tensor) -> Tensor:
    return values.round().to(torch.uint8)


def sheet(lines: Sequence[Sequence[Tensor]]) -> Tensor:
    """Panels of one size beside and below each other, on white."""
    height, width = lines[0][0].shape[:2]
    down, across = len(lines), max(map(len, lines))
    found = torch.full((down * (height + GAP) + GAP, across * (width + GAP) + GAP, 3), 255, dtype=torch.uint8)
    for row, line in enumerate(lines):
        for column, panel in enumerate(line):
            top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
            found[top : top + height, left : left + width] = panel
    return found


def png(pixels: Tensor) -> bytes:
    """(H, W, 3) or (H, W, 4) as PNG. MissingExtraError: Pillow is not installed."""
    content = BytesIO()
    pillow().fromarray(pixels.contiguous().numpy()).save(content, "PNG", optimize=True)
    return content.getvalue()


def from_png(content: bytes) -> Tensor:
    """What :func:`png` made of (H, W, 3). MissingExtraError: Pillow is not installed. ValueError: it is no image."""
    import numpy as np

    module = pillow()
    try:
        return torch.from_numpy(np.array(module.open(BytesIO(content), formats=["PNG"]).convert("RGB")))
    except (OSError, SyntaxError, module.DecompressionBombError) as error:
        raise ValueError(f"an image cannot be read: {error}") from error


def as_text(pixels: Tensor) -> str:
    """An image as PNG in base 64."""
    return b64encode(png(pixels)).decode("ascii")


def from_text(text: str) -> Tensor:
    """What :func:`as_text` made of (H, W, 3). ValueError: it is no such text."""
    return from_png(b64decode(text, validate=True))


def as_texts(images: Tensor | None) -> list[str] | None:
    """Images (B, H, W, 3) as PNG in base 64, one a row; None of none."""
    return None if images is None else [as_text(image) for image in images]


def from_texts(texts: list[str] | None) -> Tensor | None:
    """What :func:`as_texts` was given. ValueError: it is no such text."""
    return None if texts is None else torch.stack([from_text(text) for text in texts])


def spread(patches: Tensor, side: int, stride: int, size: Sequence[int]) -> Tensor:
    """Values of patches (rows, columns), ``side`` pixels wide and ``stride`` apart, evenly over their pixels.

    The map is (height, width) as ``size`` says, and sums to the patches' sum; pixels that no patch covers have 0.
    """
    kernel = torch.full((1, 1, side, side), side**-2, dtype=torch.float64)
    found = torch.nn.functional.conv_transpose2d(patches.double()[None, None], kernel, stride=stride)[0, 0]
    missing = (0, size[1] - found.shape[1], 0, size[0] - found.shape[0])
    return torch.nn.functional.pad(found, missing).float()
