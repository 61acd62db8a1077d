"""The picture of a question: an example by its name, or the file that a visitor chose, as base64.

A file is text here like all that is asked, so that it has the limits of a request, and none is left on the server.
"""

import re
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from hf_mambalrp.calls.pictures import read_file
from hf_mambalrp.errors import InputError
from hf_mambalrp.evaluation.scenes import FOLDER
from hf_mambalrp.space.limits import RefusedError

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES: dict[str, Path] = {path.stem: path for path in sorted((FOLDER / "pictures").glob("*.png"))}
"""Pictures to begin with, by the names that links have."""
PREFIX = re.compile(r"data:[^,]{0,100};base64,")
"""What stands before base64 in an address that holds its data, as browsers make them of a file."""
OTHERWISE = "Choose another one: a JPEG, PNG or WebP file."


def title(name: str) -> str:
    """What an example shows, as a visitor reads it.

    Example:
        >>> title("bag_ankle-boot")
        'Bag and ankle boot'
    """
    return name.replace("_", " and ").replace("-", " ").capitalize()


def picture(text: str, most_pixels: int) -> "Image":
    """The picture that is asked about. RefusedError: it cannot be read, or has more pixels than are allowed."""
    try:
        read = read_file(BytesIO(content(text)), "The picture", most_pixels)
    except InputError as error:
        raise RefusedError(f"{str(error).partition('. ')[0].rstrip('.')}. {OTHERWISE}") from error
    read.filename = file_name(text)  # type: ignore[attr-defined]
    return read


def content(text: str) -> bytes:
    """The bytes of its file. RefusedError: this is no base64."""
    if text in PICTURES:
        return PICTURES[text].read_bytes()
    try:
        return b64decode(PREFIX.sub("", text, count=1), validate=True)
    except ValueError as error:
        raise RefusedError("A picture is sent as base64, the bytes of a JPEG, PNG or WebP file.") from error


def file_name(text: str) -> str:
    """The name that its file has in the Python of an answer, and when it is downloaded."""
    return PICTURES[text].name if text in PICTURES else f"picture.{kind(content(text))}"


def kind(data: bytes) -> str:
    """The format of a picture that was read, as the ending of a name."""
    from PIL import Image

    with Image.open(BytesIO(data)) as image:
        return str(image.format).lower()


def source(name: str) -> str:
    """The address of an example, which holds its data."""
    return f"data:image/png;base64,{b64encode(PICTURES[name].read_bytes()).decode()}"


def thumbnails() -> str:
    """Buttons with the examples, as HTML: the page's script asks about the one that is pressed."""
    return "".join(
        f'<button type="button" class="thumb" data-picture="{name}"><img src="{source(name)}" alt="{title(name)}">'
        "</button>"
        for name in PICTURES
    )
