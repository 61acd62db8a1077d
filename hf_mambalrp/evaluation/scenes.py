"""Pictures in which the evidence for each class is known to the pixel: one or two garments among painted shapes.

``examples/training/vision`` made them from the test split of Fashion-MNIST. They lie in ``vision_demo/scenes`` as
sheets that any viewer opens; in a sheet of masks, 1 is the scene's first garment and 2 its second.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_mambalrp.errors import OptionError
from hf_mambalrp.runs.pillow import pillow

FOLDER = Path(__file__).parents[1] / "vision_demo" / "scenes"
NAMES = {1: "one", 2: "two"}


@dataclass(frozen=True)
class Scenes:
    """n scenes with G garments each, S pixels high and wide."""

    images: NDArray[np.uint8]
    """(n, S, S, 3)."""
    masks: NDArray[np.bool_]
    """(n, G, S, S): True at the pixels that a garment was painted on."""
    labels: NDArray[np.int64]
    """(n, G): the class of each garment, different within a scene."""
    classes: list[str]
    """Names of the classes, as the model's ``config.id2label`` has them."""


def load_scenes(garments: int = 1) -> Scenes:
    """Return the test scenes that ship with the package: 200 with one garment, or 200 with two.

    In the scenes with one garment every class occurs equally often; with two, equally often in the first and in the
    second place. The order of classes is the same in every ten scenes, so a part from the start is balanced too.

    Args:
        garments: 1 or 2 a scene.

    Raises:
        OptionError: another number of garments.
        MissingExtraError: Pillow is not installed.

    Example:
        >>> from hf_mambalrp.evaluation.scenes import load_scenes
        >>> scenes = load_scenes(2)
        >>> scenes.images.shape, scenes.masks.shape
        ((200, 64, 64, 3), (200, 2, 64, 64))
        >>> [scenes.classes[label] for label in scenes.labels[0]]
        ['T-shirt', 'trouser']
    """
    if garments not in NAMES:
        raise OptionError(f"garments={garments!r} is no number of garments of the scenes that ship. Give 1 or 2.")
    about = json.loads((FOLDER / "scenes.json").read_text(encoding="utf-8"))
    name = NAMES[garments]
    masks = _tiles(FOLDER / f"{name}_masks.png", about["size"])
    return Scenes(
        images=_tiles(FOLDER / f"{name}.png", about["size"]),
        masks=masks[:, None] == np.arange(1, garments + 1)[:, None, None],
        labels=np.array(about["labels"][name], np.int64),
        classes=about["classes"],
    )


def _tiles(path: Path, size: int) -> NDArray[Any]:
    """Cut a sheet into its squares, row by row. (n, size, size, ...)."""
    with pillow().open(path) as sheet:
        pixels = np.asarray(sheet)
    rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
    parts = pixels.reshape(rows, size, columns, size, *pixels.shape[2:])
    return parts.swapaxes(1, 2).reshape(rows * columns, size, size, *pixels.shape[2:])
