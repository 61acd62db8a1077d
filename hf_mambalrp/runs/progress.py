"""The bars of progress, with rate and remaining time."""

import os
import stat
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

LOG_S = 10.0
"""Seconds between lines of a bar where it goes to a file."""
PATIENCE = 3
"""Seconds after which a single call shows a bar."""

Part = TypeVar("Part")


def progress_bar(items: Iterable[Any] | None = None, *, shown: bool = True, **options: Any) -> Any:
    """A bar of tqdm with its ``options``, on standard error.

    In a file, such as a cluster's log, it is written now and then only, and in a pipe not at all.
    ``transformers.utils.logging.disable_progress_bar`` hides every bar.
    """
    from transformers.utils import logging

    live = sys.stderr is not None and (sys.stderr.isatty() or _in_a_notebook())
    hidden = not shown or (not live and _is_pipe(sys.stderr))
    return logging.tqdm(items, disable=hidden, mininterval=0.1 if live else LOG_S, **options)


def patient_bar(parts: Sequence[Part], what: str, unit: str) -> Iterable[Part]:
    """A bar of a single call, shown where its parts are several and take longer than :data:`PATIENCE`."""
    if len(parts) < 2:
        return parts
    bar: Iterable[Part] = progress_bar(parts, desc=what, unit=unit, delay=PATIENCE)
    return bar


def _in_a_notebook() -> bool:
    """Whether this process is a notebook's kernel; it may have imported one without being it."""
    kernels: Any = sys.modules.get("ipykernel.kernelapp")
    return kernels is not None and bool(kernels.IPKernelApp.initialized())


def _is_pipe(stream: Any) -> bool:
    """Whether another program reads it, or nobody does."""
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (AttributeError, OSError, ValueError):  # it is no file: what a program put in its place
        return stream is None
