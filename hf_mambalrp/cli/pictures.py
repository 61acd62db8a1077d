"""Folders of pictures, and of the masks that belong to them."""

from pathlib import Path
from typing import NamedTuple

from hf_mambalrp.errors import InputError

PICTURES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings of the files of a folder that are read."""


class Pictures(NamedTuple):
    """The pictures of a folder."""

    paths: list[Path]
    ids: list[str]
    """Their names from the folder on."""
    classes: list[str] | None
    """The names of the folders that they are in, where they are in folders."""

    def masks_in(self, folder: Path) -> list[Path]:
        """Where the mask of each picture is: named as it, .png."""
        return [(folder / name).with_suffix(".png") for name in self.ids]


def pictures_in(folder: Path) -> Pictures:
    """Pictures of a folder, or of the folders in it. InputError: none are there."""
    paths, classes = _of(folder), None
    if not paths:
        paths = [path for inner in sorted(folder.iterdir()) if inner.is_dir() for path in _of(inner)]
        classes = [path.parent.name for path in paths]
    if not paths:
        raise InputError(f"{str(folder)!r} has no pictures, nor folders with pictures. Their names end in {PICTURES}.")
    return Pictures(paths, [path.relative_to(folder).as_posix() for path in paths], classes)


def _of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
