"""Memory: whether it ran out, and what is free given back."""

import ctypes
from collections.abc import Callable
from functools import lru_cache

import torch

LARGE = 300_000_000
"""Bytes kept for a backward from which giving free memory back is worth its time, a few percent."""


def out_of_memory(error: BaseException) -> bool:
    """Whether torch, on any device, or Python could not allocate."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def release_free_memory() -> None:
    """Give the C library's free memory back to the system; nothing where it cannot (only glibc has the call).

    A forward keeps three large tensors a block and frees a dozen. glibc cannot always use a freed, aligned piece for
    the next of the same size, so without this the resident memory grows to twice what is allocated.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # not glibc; TypeError on Windows
        return None
    return trim
