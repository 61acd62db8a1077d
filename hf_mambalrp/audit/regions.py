"""Images with named regions: which patches a region touches, its relevance, and the image without it."""

import hashlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from hf_mambalrp.calls.image_inputs import ImageBatch, read_images
from hf_mambalrp.calls.pictures import read_file, read_pictures
from hf_mambalrp.calls.tokenizing import Place
from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.evaluation.images.cases import seen_mask
from hf_mambalrp.evaluation.images.maps import covered
from hf_mambalrp.families import Network
from hf_mambalrp.runs.rows import Unreadable, records

CALL = "audit"


class Seen(NamedTuple):
    """An image as the model reads it, and of every region that it has the share of each patch, (rows, columns)."""

    batch: ImageBatch
    regions: dict[str, Tensor]

    def patches(self, region: str) -> list[int]:
        """Those that a region touches, counted row by row."""
        return self.regions[region].flatten().nonzero().flatten().tolist()

    def key(self, *about: str) -> str:
        """A fingerprint of what is seen, and of what it is asked ``about``."""
        found = hashlib.sha256(repr(about).encode())
        for name, share in (("", self.batch.pixel_values), ("", self.batch.black), *self.regions.items()):
            found.update(f"{name!r} {tuple(share.shape)}".encode() + share.cpu().contiguous().numpy().tobytes())
        return found.hexdigest()


class Regions:
    """The images of an audit, which are read when they are asked for, one at a time.

    Raises:
        InputError: no images; no masks, or not one an image; a column of images or masks that no row has; a table that
            cannot be read.
        OptionError: masks that are no mapping from names.
    """

    def __init__(self, data: Any, masks: Any, image_column: str, network: Network, process: Any, place: Place) -> None:
        self._network, self._process, self._place, self._column = network, process, place, image_column
        self._folder = Path(data).parent if isinstance(data, (str, Path)) else None
        if self._folder is not None:
            data = _of_table(data)
        if isinstance(data, bytes) or not hasattr(data, "__len__") or not len(data):
            raise InputError(
                f"data is {'empty' if hasattr(data, '__len__') else type(data).__name__}; an audit of images takes a "
                f"list of pictures, an array (n, H, W, 3), or rows with a column {image_column!r}, or a table of them."
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
        if self.has_rows:
            self._check_columns([image_column, *(mask for mask in self.masks.values() if isinstance(mask, str))])

    def __len__(self) -> int:
        return len(self._data)

    def _check_columns(self, wanted: Sequence[str]) -> None:
        """Raise :class:`InputError` for a column that no row has."""
        names = getattr(self._data, "column_names", None)  # of datasets, whose rows are decoded when they are read
        if names is None:
            names = sorted({str(name) for row in self._data if isinstance(row, Mapping) for name in row})
        missing = [name for name in wanted if name not in names]
        if missing:
            raise InputError(f"No row has a column {missing}; their columns are {list(names)}. Name the right ones.")

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
        image = self._picture(self.column(self._column, row) if self.has_rows else self._data[row], row)
        (picture,) = read_pictures(CALL, [image], first=row).images
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
            found = self._data[row].get(given)
            return None if isinstance(found, str) and not found else self._picture(found, row)
        return given[row] if _is_list(given) else given

    def _picture(self, cell: Any, row: int) -> Any:
        """What a cell of a table means: a path from the table's folder, or a file that the table itself holds."""
        if self._folder is None:
            return cell
        if isinstance(cell, Mapping) and {*cell} == {"bytes", "path"}:  # as datasets writes a picture into Parquet
            if cell["bytes"]:
                return read_file(BytesIO(cell["bytes"]), f"Image {row}")
            cell = cell["path"]
        return self._folder / cell if isinstance(cell, str) and "://" not in cell else cell


def _of_table(path: str | Path) -> list[Any]:
    """The records of a file. InputError: it cannot be read; one of its records cannot."""
    found = list(records(path))
    for number, record in enumerate(found):
        if isinstance(record, Unreadable):
            raise InputError(f"Row {number} of {str(path)!r}: {record.reason}.")
    return found


def _is_list(given: Any) -> bool:
    """Whether there is one an image, rather than one for all."""
    if isinstance(given, np.ndarray | Tensor):
        return given.ndim == 3
    return isinstance(given, Sequence) and not isinstance(given, (str, bytes))
