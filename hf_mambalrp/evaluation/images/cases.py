"""The pictures to evaluate on, with what is to be explained and where it is."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_mambalrp.calls.pictures import read_pictures
from hf_mambalrp.calls.targets import Outputs
from hf_mambalrp.errors import InputError, TargetError


@dataclass(frozen=True)
class Case:
    """One picture: T classes that are explained in turn, and the mask of the object of each."""

    index: int
    id: str
    image: Any
    """What ``explain`` takes as one picture."""
    labels: tuple[int, ...] | None
    """Ids of the T classes; None for the predicted one."""
    masks: tuple[Any, ...] | None
    """A mask for each."""

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"Picture {self.index} (id {self.id!r})"


def read_cases(images: Any, labels: Any, masks: Any, ids: Any, outputs: Outputs) -> list[Case]:
    """Bring pictures, labels and masks into cases; pictures and masks themselves are read when they are evaluated.

    Raises:
        InputError: no pictures; not one mask a picture, or not one a label of it.
        TargetError: not one label a picture; a class that the model does not have.
    """
    pictures = _listed(images, "images")
    n = len(pictures)
    given_labels = [None] * n if labels is None else _one_each(labels, "labels", n, TargetError)
    given_masks = [None] * n if masks is None else _one_each(masks, "masks", n, InputError)
    given_ids = [_own_id(image, i) for i, image in enumerate(pictures)] if ids is None else [*map(str, ids)]
    if len(given_ids) != n:
        raise InputError(f"ids has {len(given_ids)} entries for {n} pictures; give one a picture.")
    cases = []
    for index, (image, label, mask) in enumerate(zip(pictures, given_labels, given_masks, strict=True)):
        classes = None if labels is None else _classes(label, f"labels[{index}]", index, outputs)
        objects = None if masks is None else _objects(mask, 1 if classes is None else len(classes), index)
        cases.append(Case(index, given_ids[index], image, classes, objects))
    return cases


def read_mask(case: Case, given: Any, size: tuple[int, int], process: Any) -> Tensor:
    """A mask as the model sees its picture: through the image processor, nearest pixel. Shape: (S, S) bool.

    Args:
        case: what it belongs to.
        given: a picture, or an array (H, W); what is not 0 is the object.
        size: width and height of the picture.
        process: the image processor.

    Raises:
        InputError: of another size than the picture; no object, or nothing else, in what the model sees.
    """
    mask = seen_mask("evaluate_image_explanations", case.name, given, size, process)
    if not bool(mask.any()) or bool(mask.all()):
        what = "the object covers everything" if bool(mask.any()) else "there is nothing of the object"
        raise InputError(f"{case.name}: in what the model sees {what}, so nothing can be measured. Leave it out.")
    return mask


def seen_mask(call: str, name: str, given: Any, size: tuple[int, int], process: Any) -> Tensor:
    """The same, where an object may be nowhere or everywhere; ``call`` and ``name`` are what errors call it by."""
    from PIL import Image

    if isinstance(given, np.ndarray | Tensor):
        array = np.asarray(given)
        if array.ndim != 2:
            raise InputError(f"{name} has a mask of shape {array.shape}; give (H, W), not 0 on the object.")
    else:
        try:
            array = np.asarray(read_pictures(call, given).images[0]).max(-1)
        except InputError as error:
            raise InputError(f"{name} has a mask that cannot be read: {error}") from error
    if array.shape[::-1] != size:
        raise InputError(
            f"{name} is {size[0]} x {size[1]} pixels and its mask {array.shape[1]} x {array.shape[0]}; give a "
            "mask of the picture's size."
        )
    picture = Image.fromarray(np.where(array != 0, 255, 0).astype(np.uint8)).convert("RGB")
    options = {"resample": Image.Resampling.NEAREST, "do_normalize": False, "do_rescale": False}
    seen = process(images=[picture], return_tensors="pt", **options)["pixel_values"][0]
    mask: Tensor = seen.float().amax(0) > 127
    return mask


def digest(cases: Sequence[Case]) -> str:
    """A fingerprint of what these cases hold; of a file its name and its bytes."""
    found = hashlib.sha256()
    for case in cases:
        found.update(json.dumps([case.id, case.labels]).encode())
        for part in (case.image, *(case.masks or ())):
            found.update(_content(part))
    return found.hexdigest()


def _content(part: Any) -> bytes:
    if isinstance(part, str | PathLike):
        path = Path(part)
        return path.read_bytes() if path.is_file() else b""
    array = np.asarray(part)
    return f"{array.dtype} {array.shape}".encode() + array.tobytes()


def _listed(value: Any, name: str) -> list[Any]:
    """The entries of a list, or of an array whose first dimension counts pictures."""
    if isinstance(value, np.ndarray | Tensor) and value.ndim == 4:
        value = list(value)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        raise InputError(
            f"{name} is {type(value).__name__}; give a list with at least one picture, or an array (n, H, W, 3)."
        )
    return list(value)


def _one_each(value: Any, name: str, n: int, error: type[InputError] | type[TargetError]) -> list[Any]:
    if isinstance(value, np.ndarray | Tensor):
        value = list(value)
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise error(f"{name} is {type(value).__name__}; give a list with one entry a picture.")
    if len(value) != n:
        raise error(f"{name} has {len(value)} entries for {n} pictures; give one a picture.")
    return list(value)


def _classes(value: Any, name: str, row: int, outputs: Outputs) -> tuple[int, ...]:
    """Ids of one class, or of several."""
    several = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(several, str) or not isinstance(several, Sequence):
        several = [several]
    found = tuple(outputs.ids_of(one, name, row)[0] for one in several)
    if not found or len(set(found)) < len(found):
        raise TargetError(f"{name}={value!r} is not allowed; give a class, or a list of different ones.")
    return found


def _objects(value: Any, count: int, row: int) -> tuple[Any, ...]:
    """The masks of a picture, one a class: a single one may stand for itself."""
    stacked = isinstance(value, np.ndarray | Tensor) and value.ndim == 3
    several = list(value) if stacked or (isinstance(value, Sequence) and not isinstance(value, str)) else [value]
    if len(several) != count:
        raise InputError(f"masks[{row}] has {len(several)} masks and the picture {count} classes; give one a class.")
    return tuple(np.asarray(one.cpu()) if isinstance(one, torch.Tensor) else one for one in several)


def _own_id(image: Any, index: int) -> str:
    return Path(image).name if isinstance(image, str | PathLike) else str(index)
