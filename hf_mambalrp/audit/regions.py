"""Images with named regions: which patches a region touches, its relevance, and the image without it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from hf_mambalrp.calls.image_inputs import ImageBatch, read_images
from hf_mambalrp.calls.pictures import read_pictures
from hf_mambalrp.calls.tokenizing import Place
from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.evaluation.images.cases import seen_mask
from hf_mambalrp.evaluation.images.maps import covered
from hf_mambalrp.families import Network

CALL = "audit"


class Seen(NamedTuple):
    """An image as the model reads it, and of every region that it has the share of each patch, (rows, columns)."""

    batch: ImageBatch
    regions: dict[str, Tensor]


class Regions:
    """The images of an audit, which are read when they are asked for, one at a time.

    Raises:
        InputError: no images; no masks, or not one an image; a row without the column of images.
        OptionError: masks that are no mapping from names.
    """

    def __init__(self, data: Any, masks: Any, image_column: str, network: Network, process: Any, place: Place) -> None:
        self._network, self._process, self._place, self._column = network, process, place, image_column
        if isinstance(data, (str, bytes)) or not hasattr(data, "__len__") or not len(data):
            raise InputError(
                f"data is {type(data).__name__}; an audit of images takes a list of pictures, an array (n, H, W, 3), "
                f"or rows with a column {image_column!r}."
            )
        self._data = data
        self.has_rows = isinstance(data[0], Mapping)
        if not masks:
            raise InputError(
                "An audit of images has regions as its candidates, and masks= gives none. Give masks by the regions' "
                'names, not 0 on the region: masks={"corner": mask}, or a list with one an image, or a column\'s name.'
            )
        if not isinstance(masks, Mapping) or not all(isinstance(name, str) for name in masks):
            raise OptionError(f"masks is {type(masks).__name__}; give masks by names, such as {{'corner': array}}.")
        self.masks = dict(masks)
        for name, given in self.masks.items():
            if _is_list(given) and len(given) != len(data):
                raise InputError(
                    f"masks[{name!r}] has {len(given)} entries for {len(data)} images; give one an image, None where "
                    "an image has no such region."
                )

    def __len__(self) -> int:
        return len(self._data)

    def column(self, name: str, row: int) -> Any:
        """A value beside an image. InputError: there are no columns, or the row has not this one."""
        found = self._data[row] if self.has_rows else {}
        if found.get(name) is None:
            raise InputError(
                f"Image {row} has no {name!r}; its columns are {sorted(found)}. Give rows, mappings with a column "
                f"{self._column!r}, and a value in every one."
            )
        return found[name]

    def seen(self, row: int) -> Seen:
        """An image and its regions. InputError: it cannot be read; a mask of another size."""
        image = self.column(self._column, row) if self.has_rows else self._data[row]
        (picture,) = read_pictures(CALL, image).images
        batch = read_images(CALL, self._network, picture, None, self._process, self._place, lambda: self._process)
        config = self._network.config
        regions = {}
        for name in self.masks:
            given = self._mask(name, row)
            if given is not None:
                mask = seen_mask(CALL, f"Image {row}, region {name!r}", given, picture.size, self._process)
                share = covered(mask, config.patch_size, config.stride)
                if bool(share.any()):
                    regions[name] = share
        return Seen(batch, regions)

    def _mask(self, name: str, row: int) -> Any:
        given = self.masks[name]
        if self.has_rows and isinstance(given, str):
            return self._data[row].get(given)
        return given[row] if _is_list(given) else given


def _is_list(given: Any) -> bool:
    """Whether there is one an image, rather than one for all."""
    if isinstance(given, np.ndarray | Tensor):
        return given.ndim == 3
    return isinstance(given, Sequence) and not isinstance(given, (str, bytes))
