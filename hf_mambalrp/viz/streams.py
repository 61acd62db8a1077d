"""Printing to any stream: what its encoding lacks is replaced, and a reader that has gone ends nothing."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any


def printable(text: str, stream: Any = None) -> str:
    """The text as the stream can write it, by default standard output; "?" stands for what it cannot."""
    stream = stream or sys.stdout
    encoding, errors = getattr(stream, "encoding", None) or "utf-8", getattr(stream, "errors", None) or "strict"
    try:
        text.encode(encoding, errors)
    except UnicodeEncodeError:
        return text.encode(encoding, "replace").decode(encoding)
    return text


class Lenient:
    """A stream of text that takes every character, and takes it quietly where nobody reads any more."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what the stream can write."""
        self._quietly(lambda: self._stream.write(printable(text, self._stream)))
        return len(text)

    def flush(self) -> None:
        """Pass on what is buffered. OSError: there is no room for it."""
        self._quietly(self._stream.flush)

    def _quietly(self, action: Any) -> None:
        if getattr(self._stream, "closed", False):
            return
        try:
            action()
        except BrokenPipeError:
            self._discard()
        except OSError:
            self._discard()
            raise

    def _discard(self) -> None:
        """Let what is still buffered, which the interpreter flushes once more as it ends, go nowhere."""
        with suppress(OSError, ValueError, AttributeError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lenient_streams() -> Iterator[None]:
    """Standard output and standard error as :class:`Lenient` ones inside, also where a process has none."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        out, error = Lenient(sys.stdout or nowhere), Lenient(sys.stderr or nowhere)
        with redirect_stdout(out), redirect_stderr(error):
            yield
