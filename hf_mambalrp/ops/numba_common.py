"""What ops that numba compiles share: an exponential in vector instructions, and loops over rows and channels."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from numba import njit
from numpy import float32, int32

BLOCK = 512
"""Channels at a time, at most: 16 states each are 32 KiB of float32, and long enough rows for vector instructions."""


LOG2_E = float32(1.44269504)
LN2_HIGH, LN2_LOW = float32(0.693359375), float32(-2.12194440e-4)
"""ln 2 in two parts, so that x - i ln 2 loses nothing (Cody and Waite 1980)."""
ROUND = float32(1.5 * 2**23)
"""Adding this to a small float32 leaves its nearest integer in the low bits."""


@njit(inline="always", fastmath={"contract"}, cache=True)
def exp_of_negative(x: Any) -> Any:
    """exp(x) for x <= 0 as 2^i exp(z), |z| <= ln(2) / 2, in vector instructions; relative error below 3e-7.

    exp(z) is its Taylor polynomial, and i is added to the exponent bits. Below exp(-87) the result stays there.
    """
    x = max(x, float32(-87.0))
    shifted = x * LOG2_E + ROUND
    i = shifted - ROUND
    z = (x - i * LN2_HIGH) - i * LN2_LOW
    p = float32(1.0) + z * (
        float32(1.0)
        + z
        * (
            float32(1 / 2)
            + z * (float32(1 / 6) + z * (float32(1 / 24) + z * (float32(1 / 120) + z * float32(1 / 720))))
        )
    )
    return int32(float32(p).view(int32) + int32(float32(shifted).view(int32) << int32(23))).view(float32)


@lru_cache(maxsize=1)
def _workers(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads beside the caller's own; a forked process, which has none of them, gets new ones."""
    return ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="compiled-loops")


def over_channels(rows: int, channels: int, kernel: Callable[[int, int, int], None]) -> None:
    """Call ``kernel(row, start, stop)`` for every row and block of channels; it lets go of the interpreter's lock."""
    threads = torch.get_num_threads()
    width = min(BLOCK, max(64, -(-rows * channels // (2 * threads))))
    # One queue for all threads: torch's own thread may still be spinning on a core, and then the others take more.
    blocks = iter([(row, start) for row in range(rows) for start in range(0, channels, width)])

    def work() -> None:
        for row, start in blocks:
            kernel(row, start, min(start + width, channels))

    others = [_workers(os.getpid(), threads).submit(work) for _ in range(threads - 1)]
    work()
    for other in others:
        other.result()
