r"""Text, read and said the same by every command: encodings, byte-order marks, and what ends a line.

UTF-8, with or without its mark; UTF-16 and UTF-32 with theirs, as Windows writes them. A line ends at ``\n``, ``\r\n``
or ``\r`` and nowhere else: U+2028, NEL or a form feed is a character of its text.
"""

import codecs
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hf_mambalrp.errors import InputError

MARKS = (  # UTF-32's before UTF-16's, which begins it
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True)
class Line:
    """A line with its end; ``error`` says what is wrong with its bytes, which are then ``?`` in it."""

    text: str
    error: str | None = None


def decode(content: bytes, name: object) -> str:
    """The text of some bytes, without their mark.

    Raises:
        InputError: bytes that are no text; says at which of them, counted from 0.
    """
    mark, encoding = _encoding(content)
    try:
        return content[mark:].decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name} is not {encoding[:6].upper()}: {error.reason} at byte {mark + error.start}. Convert it to UTF-8."
        ) from error


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a file, one at a time.

    Raises:
        InputError: a file with the mark of UTF-16 or UTF-32 that is not. In UTF-8 a bad line is one with its ``error``.
    """
    with path.open("rb") as file:
        mark, encoding = _encoding(file.peek(4)[:4])
        if encoding == "utf-8":
            file.read(mark)
            yield from _checked(io.TextIOWrapper(file, encoding, errors="surrogateescape", newline=""), mark)
        else:
            yield from split_lines(decode(file.read(), path))


def split_lines(text: str) -> Iterator[Line]:
    """The lines of a text."""
    return map(Line, io.StringIO(text, newline=""))


def without_end(line: str) -> str:
    """A text without the line end at its end, if it has one."""
    return line.removesuffix("\n").removesuffix("\r")


def _checked(lines: io.TextIOWrapper, start: int) -> Iterator[Line]:
    """Lines whose bytes that are not UTF-8 are surrogates; the first begins at byte ``start`` of its file."""
    for line in lines:
        try:
            line.encode()
            yield Line(line)
        except UnicodeEncodeError as error:
            place, byte = start + len(line[: error.start].encode()), ord(line[error.start]) & 0xFF
            shown = line.encode("utf-8", "replace").decode()
            yield Line(shown, f"is not UTF-8: byte {place} of the file is 0x{byte:02x}")
        start += len(line.encode("utf-8", "surrogateescape"))


def _encoding(content: bytes) -> tuple[int, str]:
    """Length of the mark at the beginning, and the encoding."""
    return next(((len(mark), name) for mark, name in MARKS if content.startswith(mark)), (0, "utf-8"))


def one_line(text: str, width: int) -> str:
    """A text of any origin on one line of at most ``width`` characters, with escapes for what acts on a terminal."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
    return line if len(line) <= width else f"{line[: width - 1]}…"
