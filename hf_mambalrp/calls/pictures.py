"""What ``explain`` accepts as pictures, brought into one form: RGB as a viewer shows it."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from torch import Tensor

from hf_mambalrp.calls.inputs import brief
from hf_mambalrp.calls.pixels import from_array, rgb
from hf_mambalrp.errors import InputError
from hf_mambalrp.runs.pillow import pillow

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 64_000_000
"""Of one picture, below the 89 million from which Pillow warns; decoded, it takes 192 MB."""
MAX_ASPECT = 100
"""The longer side by the shorter one: an image processor makes the shorter one a few hundred pixels."""
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""Formats of files that are read, as far as Pillow has them; others of its formats start programs, or guess."""
OF_SEVERAL_VIEWS = "MPO"
"""A JPEG of a camera that holds a depth map or a second view behind the picture: the picture is the first one."""
URL = re.compile(r"[a-z][a-z0-9+.-]+:/|data:", re.IGNORECASE)
ELSEWHERE = (
    (
        re.compile(rb"(\xef\xbb\xbf)?\s*<(?!html|!doctype html)(.*<)?(svg|!doctype svg)", re.IGNORECASE | re.DOTALL),
        "SVG",
        "Render it: rsvg-convert a.svg -o a.png",
    ),
    (
        re.compile(rb"....ftyp(hei|hev|mif1|msf1)", re.DOTALL),
        "HEIC",
        "Save it as JPEG or PNG; or pip install pillow-heif, and call pillow_heif.register_heif_opener() first",
    ),
    (re.compile(rb"%PDF"), "PDF", "Render a page: pdftoppm -png -singlefile a.pdf a"),
)
"""What Pillow cannot read and people have: how the file begins, its name, and what to do."""


@dataclass(frozen=True)
class Pictures:
    """Checked pictures, all RGB, each of its own size."""

    images: list["Image"]
    sources: list[str | None]
    """Names of the files, without folders; None for what is from no file."""


def read_pictures(call: str, images: Any, *, first: int = 0) -> Pictures:
    """Bring every accepted form of pictures into :class:`Pictures`.

    ``images`` is a PIL image of any mode, a path, an array or tensor (uint8, or floats from 0 to 1; (H, W), (H, W, C),
    (C, H, W), a batch of the latter two; C of 1, 3 or 4), or a list of such. ``call`` is the user's call, for messages,
    in which they are numbered from ``first`` on.

    A picture is read as a viewer shows it: turned by its EXIF orientation, 16 bits scaled to 8, the colours of palettes
    and CMYK converted. What is transparent is blended over white, a choice of this package: models are usually trained
    on what lies hidden below. Colour profiles are left aside, as they are where models are trained.

    Raises:
        InputError: no picture, one that is damaged, animated or empty, of more than :data:`MAX_PIXELS`, of sides that
            differ more than :data:`MAX_ASPECT`-fold, of another dtype, shape or range; no such file.
        MissingExtraError: Pillow is not installed.
    """
    single = isinstance(images, str | bytes | bytearray | os.PathLike | pillow().Image | np.ndarray | Tensor)
    if not single and not isinstance(images, Sequence):
        raise _no_picture(f"{call}() got", images)
    if not single and not len(images):
        raise InputError(f"{call}() got an empty list of images; give at least one.")
    found: list[Image] = []
    sources: list[str | None] = []
    for index, given in enumerate([images] if single else images, first):
        read = _read(given, index)
        found += read
        sources += [_source(given)] * len(read)
    return Pictures(found, sources)


def _read(given: Any, index: int) -> list["Image"]:
    """The pictures that one entry of the input holds: one, or those of a batch."""
    from PIL import Image

    if isinstance(given, Image.Image):
        name = f"Image {index} ({given.format or 'PIL'}, {given.mode}, {given.width} x {given.height} pixels)"
        return [_decoded(given, name, MAX_PIXELS)]
    if isinstance(given, np.ndarray | Tensor):
        name = f"Image {index} ({str(given.dtype).removeprefix('torch.')} of shape {tuple(given.shape)})"
        read = from_array(given, name)
        _check_size(read[0], name, MAX_PIXELS)
        return read
    if isinstance(given, str | os.PathLike):
        return [_from_file(os.fsdecode(given), index)]
    raise _no_picture(f"Image {index} is", given)


def _from_file(path: str, index: int) -> "Image":

    name = f"Image {index} ({brief(path, 200)})"
    if URL.match(path):
        raise InputError(f"{name} is an address, and nothing is fetched. Download it first, and give the file.")
    if os.path.isdir(path):
        raise InputError(f"{name} is a folder. Give its files: sorted(Path(...).glob('*.png')).")
    if not os.path.lexists(path):
        raise InputError(f"{name} is not there: no such file. Give the path of a picture.")
    if not os.path.isfile(path):
        raise InputError(f"{name} is no file that can be read. Give the path of a picture.")
    try:
        with open(path, "rb") as file:
            return read_file(file, name)
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror or error}. Give a file of your own.") from error


def read_file(file: BinaryIO, name: str, most: int = MAX_PIXELS) -> "Image":
    """The picture in an open file, of at most so many pixels, in RGB; ``name`` is what errors call it.

    Raises:
        InputError: as :func:`read_pictures`.
    """
    from PIL import Image

    Image.init()
    start = file.read(512)
    file.seek(0)
    try:
        image = Image.open(file, formats=[known for known in FORMATS if known in Image.OPEN])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, most) from error
    except Exception as error:  # of untrusted bytes: a decoder may raise anything
        raise InputError(f"{name} {_what_it_is(start)}") from error
    with image:
        return _decoded(image, name, most)


def _decoded(image: "Image", name: str, most: int) -> "Image":
    """A picture in RGB; its header is checked before its pixels are read."""
    _check_size(image, name, most)
    try:
        several = getattr(image, "is_animated", False) and image.format != OF_SEVERAL_VIEWS
        if not several:
            image.load()
    except Exception as error:  # as above: bytes that end early, an image that is closed
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name} is damaged, incomplete or closed ({said}). Give one that a viewer opens.") from error
    if several:
        raise InputError(
            f"{name} has several frames or pages. Give one of them: image = Image.open(...); image.seek(0); then "
            "image.copy()."
        )
    return rgb(_turned(image), name, image.format)


def _turned(image: "Image") -> "Image":
    """The picture upright, by its EXIF orientation where that can be read."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged block of EXIF says nothing; viewers show such a picture as it is stored
        return image


def _check_size(image: "Image", name: str, most: int) -> None:
    short, long = sorted(image.size)
    if short == 0:
        raise InputError(f"{name} is empty, {image.width} x {image.height} pixels. Give one that has pixels.")
    if short * long > most:
        raise _too_large(name, most)
    if long > MAX_ASPECT * short:
        raise InputError(
            f"{name} is {image.width} x {image.height} pixels, and one side may be at most {MAX_ASPECT} times the "
            "other. Crop it first."
        )


def _too_large(name: str, most: int) -> InputError:
    return InputError(
        f"{name} has more than {most / 10**6:g} million pixels, and a model sees far fewer. Make it smaller first."
    )


def _what_it_is(start: bytes) -> str:
    if not start:
        return "is an empty file. Give one that holds a picture."
    for pattern, kind, remedy in ELSEWHERE:
        if pattern.match(start):
            return f"is {kind}, a format that is not read. {remedy}."
    return "is of no format that is read, or damaged. Give a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file."


def _no_picture(start: str, given: Any) -> InputError:
    remedy = ""
    if isinstance(given, bytes | bytearray):
        remedy = " Of the bytes of a file give Image.open(io.BytesIO(...))."
    elif hasattr(given, "iloc"):
        remedy = " Of a column give its .tolist()."
    elif isinstance(given, dict):
        remedy = ' Of a dataset give row["image"], cast to datasets.Image().'
    elif isinstance(given, Sequence) and not isinstance(given, str):
        remedy = " Of nested lists of numbers give an array."
    elif hasattr(given, "read"):
        remedy = " Of an open file give Image.open(file)."
    return InputError(
        f"{start} {type(given).__name__} {brief(given)}. Give a PIL image, a file's path, an array, a tensor, or a "
        f"list of these.{remedy}"
    )


def _source(given: Any) -> str | None:
    """The name of the file, without its folder; a name that is not Unicode loses what is not."""
    path = os.fsdecode(given) if isinstance(given, str | os.PathLike) else getattr(given, "filename", "")
    return Path(str(path)).name.encode("utf-8", "replace").decode() or None
