"""Pictures as an image classifier reads them, and as a person sees what it read."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.image_processing_base import ImageProcessingMixin

from hf_mambalrp.calls.inputs import brief
from hf_mambalrp.calls.pictures import read_pictures
from hf_mambalrp.calls.tokenizing import Place
from hf_mambalrp.errors import InputError
from hf_mambalrp.families import Network
from hf_mambalrp.families.modules import execution_device

BLUR = 8
"""A blurred picture has a standard deviation of its side / BLUR: no garment, face or sign is left of it."""


@dataclass(frozen=True)
class ImageBatch:
    """A checked batch."""

    pixel_values: Tensor
    """(B, C, S, S) float32, as the model reads it, where the model begins."""
    images: Tensor
    """(B, S, S, 3) uint8, as a person sees it."""
    black: Tensor
    """(C, 1, 1): the pixel values of black."""
    sources: list[str | None] | None
    """Names of the files."""

    def __len__(self) -> int:
        return len(self.pixel_values)


def read_images(
    call: str,
    network: Network,
    images: Any,
    pixel_values: Any,
    processor: Any,
    place: Place,
    default: Callable[[], Any],
) -> ImageBatch:
    """Bring what ``explain`` was given into an :class:`ImageBatch`.

    ``images`` go through the image processor: the caller's, else the one beside the model, else what ``default`` makes.
    Of ``pixel_values`` the processor says how they look.

    Raises:
        InputError: none or both of them, no pictures, pixels of another shape than the model takes.
        MissingExtraError: Pillow is not installed.
    """
    if (images is None) == (pixel_values is None):
        raise InputError(
            f"{call}() got {'no input' if images is None else 'images and pixel_values'}; give exactly one of a "
            "picture, a list of pictures, pixel_values=...."
        )
    process = processor if processor is not None else processor_beside(place) or default()
    sources = None
    if images is not None:
        pictures = read_pictures(call, images)
        pixel_values = process(images=pictures.images, return_tensors="pt")["pixel_values"]
        sources = pictures.sources
    pixels = _checked_pixels(network, pixel_values)
    mean, deviation = (value.to(pixels.device) for value in _normalisation(process, pixels.shape[1]))
    seen = ((pixels * deviation + mean).clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1).cpu()
    black = (-mean / deviation).expand(pixels.shape[1], 1, 1)
    return ImageBatch(pixels, seen.expand(-1, -1, -1, 3) if seen.shape[-1] == 1 else seen, black, sources)


def processor_beside(place: Place) -> Any | None:
    """The image processor of the model's folder or repository; None where there is none.

    It is made from its settings, since transformers' AutoImageProcessor needs torchvision in some releases, and warns
    without it in others.

    Raises:
        InputError: of a class that this release of transformers lacks: another one would show the model other pixels.
    """
    if not place.name:
        return None
    where = {"revision": place.revision} if place.revision else {}
    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(place.name, **where)
    except (OSError, ValueError):
        return None
    name = str(settings.get("image_processor_type") or settings.get("feature_extractor_type")).removesuffix("Fast")
    pil = None if find_spec("torchvision") else getattr(transformers, f"{name}Pil", None)
    found = pil or getattr(transformers, name, None)
    if found is None:
        raise InputError(
            f"The image processor beside {place.name} is {name!r}, which transformers {transformers.__version__} does "
            "not have. Pass processor=..., one that makes the model's pixels."
        )
    return found.from_dict(settings)


def as_read(images: Tensor, process: Any, channels: int) -> Tensor:
    """Pictures (B, S, S, 3) of uint8 that a person sees as a model with this image processor reads them."""
    mean, deviation = _normalisation(process, channels)
    return (images[..., :channels].movedim(-1, 1).float() / 255 - mean) / deviation


def without_content(batch: ImageBatch, how: str) -> Tensor:
    """The pixel values (B, C, S, S) of pictures without their content: "mean", each one's own mean colour; "black";
    "blur", by a Gaussian of an eighth of the side.
    """
    pixels = batch.pixel_values
    if how == "mean":
        return pixels.mean((2, 3), keepdim=True).expand_as(pixels)
    if how == "black":
        return batch.black.expand_as(pixels)
    size = pixels.shape[-1]
    at = torch.arange(size, device=pixels.device)
    offsets = at[:, None] - at
    kernel = torch.exp(-0.5 * (offsets * BLUR / size) ** 2)
    kernel = kernel / kernel.sum(-1, keepdim=True)  # at an edge, over what is inside
    return torch.einsum("rh,bchw,sw->bcrs", kernel, pixels, kernel)


WITHOUT_CONTENT = ("mean", "black", "blur")
"""What :func:`without_content` takes."""


def _normalisation(process: Any, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation that the image processor takes from colours in [0, 1], (C, 1, 1) each."""
    found = []
    for name, without in (("image_mean", 0.0), ("image_std", 1.0)):
        given = getattr(process, name, None) if getattr(process, "do_normalize", True) else None
        values = torch.tensor([without] if given is None else given, dtype=torch.float32).reshape(-1, 1, 1)
        found.append(values if len(values) in (1, channels) else values.mean(0, keepdim=True))
    return found[0], found[1]


def _checked_pixels(network: Network, pixel_values: Any) -> Tensor:
    config = network.config
    wanted = (config.num_channels, config.image_size, config.image_size)
    shape = f"(B, {', '.join(map(str, wanted))})"
    if not isinstance(pixel_values, Tensor) or not pixel_values.is_floating_point():
        raise InputError(
            f"pixel_values is {brief(pixel_values)}; expected a float tensor of shape {shape}, as an image "
            "processor returns it. Pictures go in as images=...."
        )
    if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != wanted or not len(pixel_values):
        raise InputError(
            f"pixel_values have shape {tuple(pixel_values.shape)}, and this model takes {shape}. "
            "Pass what the image processor returns, or the pictures themselves as images=...."
        )
    pixels = pixel_values.detach().to(execution_device(network.embeddings)).float()
    if not pixels.isfinite().all():
        raise InputError("pixel_values hold NaN or infinity. Check how they were made.")
    return pixels
