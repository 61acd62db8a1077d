"""Pixels of every kind as 8-bit RGB: what Pillow's modes mean, and how arrays and tensors hold a picture."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hf_mambalrp.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

SIXTEEN = 65535
"""White in 16 bits."""
GREY_FILES = {"PNG", "PPM"}
"""Formats whose mode I is 16-bit grey: of other integers nobody says which one is white."""


def rgb(image: "Image", name: str, kind: str | None = None) -> "Image":
    """A loaded picture of any mode, from a file of that ``kind``, as RGB; ``name`` is what errors call it."""
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in GREY_FILES):
        image = _eight_bits(image)
    elif image.mode == "F":
        return from_array(np.asarray(image), name)[0]
    elif image.mode == "I":
        raise InputError(
            f"{name} holds 32-bit integers, of which none is known to be white. Give an array of uint8, or of floats "
            "from 0 to 1."
        )
    if image.mode in ("P", "PA", "LA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        return _over_white(image)
    return image.convert("RGB")


def from_array(value: Any, name: str) -> list["Image"]:
    """The pictures of an array or tensor, one or a batch.

    Shapes are (H, W), (H, W, C), (C, H, W) and, of a batch, (B, H, W, C), (B, C, H, W), with C of 1, 3 or 4.

    Raises:
        InputError: another shape or dtype, NaN, floats outside 0 to 1, which of a shape's ends is C cannot be told.
    """
    from PIL import Image

    array = _eight_bit_values(_numpy(value, name), name)
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise InputError(
            f"{name} holds no picture; the shape of one is (H, W), (H, W, C) or (C, H, W), of a batch (B, H, W, C) or "
            "(B, C, H, W), with C of 1, 3 or 4, and no side is 0."
        )
    if array.ndim == 2:
        batch = array[None, :, :, None]
    else:
        batch = _channels_last(array if array.ndim == 4 else array[None], name)
    # Pillow takes grey without a side of channels.
    shaped = (one[..., 0] if one.shape[-1] == 1 else one for one in batch)
    return [rgb(Image.fromarray(np.ascontiguousarray(one)), name) for one in shaped]


def _eight_bits(image: "Image") -> "Image":
    """16-bit grey as 8 bits, scaled; the value that a PNG may name as transparent is."""
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    grey = Image.fromarray(np.rint(values.clip(0, SIXTEEN) * (255 / SIXTEEN)).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _over_white(image: "Image") -> "Image":
    from PIL import Image

    if image.mode == "La":
        image = image.convert("LA")
    top = image.convert("RGBA")
    white = Image.new("RGBA", top.size, "white")
    white.alpha_composite(top)
    return white.convert("RGB")


def _numpy(value: Any, name: str) -> np.ndarray:
    if not isinstance(value, Tensor):
        return np.asarray(value)
    try:
        value = value.detach().cpu()
        array: np.ndarray = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    except (TypeError, ValueError, RuntimeError) as error:  # without data, sparse, or of an 8-bit float
        raise InputError(f"{name} cannot be read: {error} Give a plain tensor of numbers.") from error
    return array


def _eight_bit_values(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise InputError(
            f"{name} is of neither uint8 nor floats. Give uint8 from 0 to 255, or floats from 0 to 1: of 16 bits "
            "array / 65535, of True and False array.astype(float); file names go in as a list of str."
        )
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds NaN or infinite numbers. Give floats from 0 to 1.")
    if array.size and (array.min() < 0 or array.max() > 1):
        raise InputError(
            f"{name} goes from {array.min():.4g} to {array.max():.4g}; a picture's floats are from 0 to 1. Of 0 to 255 "
            "give array.astype('uint8'); what an image processor made goes in as pixel_values=...."
        )
    return np.rint(array.astype(np.float64) * 255).astype(np.uint8)


def _channels_last(batch: np.ndarray, name: str) -> np.ndarray:
    """(B, H, W, C) of either order: colours count before grey, and what could be both is refused."""
    for channels in ((3, 4), (1,)):
        ends = [axis for axis in (3, 1) if batch.shape[axis] in channels]
        if len(ends) == 1 or (ends and batch[0].size == 1):
            return np.moveaxis(batch, ends[0], 3)
        if ends:
            raise InputError(
                f"{name} could hold its channels first or last. Give Image.fromarray(...) of (H, W, C) in its place."
            )
    raise InputError(
        f"{name} has neither its first nor its last side of 1, 3 or 4 channels. Grey pictures of a batch are "
        "(B, H, W, 1)."
    )
