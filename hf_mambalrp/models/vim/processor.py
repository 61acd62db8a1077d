"""The pixels that Vision Mamba was evaluated on."""

from importlib.util import find_spec
from typing import Any

import transformers

from hf_mambalrp.models.vim.configuration import VimConfig

CROP_RATIO = 0.875
"""Of the shorter side, what the centre crop keeps: 224 of 256."""
BICUBIC = 3
MEAN, STANDARD_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's channels."""


def image_processor(config: VimConfig, **options: Any) -> Any:
    """Return transformers' image processor with the settings of the released evaluation.

    The shorter side becomes ``image_size`` / 0.875 (bicubic), the centre is cropped, and channels are normalised by
    ImageNet's mean and standard deviation. It needs PIL; torchvision is used where it is installed.

    Args:
        config: says ``image_size``.
        **options: other settings of ``BitImageProcessor``, in place of these.

    Example:
        >>> import numpy
        >>> from hf_mambalrp import VimConfig
        >>> from hf_mambalrp.models.vim.processor import image_processor
        >>> process = image_processor(VimConfig())
        >>> process(numpy.zeros((300, 400, 3), "uint8"), return_tensors="pt").pixel_values.shape
        torch.Size([1, 3, 224, 224])
    """
    size = config.image_size
    settings = {
        "size": {"shortest_edge": int(size / CROP_RATIO)},
        "crop_size": {"height": size, "width": size},
        "resample": BICUBIC,
        "image_mean": list(MEAN),
        "image_std": list(STANDARD_DEVIATION),
    }
    # Without torchvision, releases with an image processor for it say at every use that they take the other one.
    pil = None if find_spec("torchvision") else getattr(transformers, "BitImageProcessorPil", None)
    return (pil or transformers.BitImageProcessor)(**{**settings, **options})
