"""What ops that numba compiles share: functions in vector instructions, and loops over rows and channels.

A division stays one such instruction only with ``error_model="numpy"``: else each looks whether to raise an error.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from numba import njit
from numpy import float32, int32

BLOCK = 512
"""Channels at a time, at most: 16 states each are 32 KiB of float32, and long enough rows for vector instructions."""


LANES = 8
"""Numbers of float32 in the widest vector that is common: a loop over a multiple of it has nothing left over."""


LOG2_E = float32(1.44269504)
LN2_HIGH, LN2_LOW = float32(0.693359375), float32(-2.12194440e-4)
"""ln 2 in two parts, so that x - i ln 2 loses nothing (Cody and Waite 1980)."""
ROUND = float32(1.5 * 2**23)
"""Adding this to a small float32 leaves its nearest integer in the low bits."""
P1, P2, P3, P4, P5 = map(float32, (0.69314697, 0.24022243, 0.055507337, 0.0096715128, 0.0013264728))
"""2^z = 1 + P1 z + ... + P5 z^5 for |z| <= 1/2, relative error 1e-7: the best polynomial of this degree."""


@njit(inline="always", fastmath={"contract"}, cache=True)
def scaled_power(z: Any, shifted: Any) -> Any:
    """2^(i + z), |z| <= 1/2, of i in the low bits of ``shifted``: it is added to the exponent bits.

    The polynomial is summed in pairs, which wait less for each other than its nested form.
    """
    squared = z * z
    p = (float32(1.0) + P1 * z) + squared * ((P2 + P3 * z) + squared * (P4 + P5 * z))
    return int32(float32(p).view(int32) + int32(float32(shifted).view(int32) << int32(23))).view(float32)


@njit(inline="always", fastmath={"contract"}, cache=True)
def power_of_two(x: Any) -> Any:
    """2^x for x <= 0, in vector instructions; relative error below 2e-7. Below 2^-126 the result stays there."""
    x = max(x, float32(-126.0))
    shifted = x + ROUND
    return scaled_power(x - (shifted - ROUND), shifted)


@njit(inline="always", fastmath={"contract"}, cache=True)
def exp_of_negative(x: Any) -> Any:
    """exp(x) for x <= 0 as 2^i 2^z, in vector instructions; relative error below 3e-7.

    Below exp(-87) the result stays there.
    """
    x = max(x, float32(-87.0))
    shifted = x * LOG2_E + ROUND
    i = shifted - ROUND
    return scaled_power(((x - i * LN2_HIGH) - i * LN2_LOW) * LOG2_E, shifted)


@njit(inline="always", fastmath={"contract"}, error_model="numpy", cache=True)
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), by exp(-|x|)."""
    small = exp_of_negative(-abs(x))
    return (float32(1.0) if x > 0 else small) / (float32(1.0) + small)


@njit(inline="always", fastmath={"contract"}, error_model="numpy", cache=True)
def softplus(x: Any) -> Any:
    """log(1 + exp(x)) = max(x, 0) + log(1 + w), w = exp(-|x|); relative error below 1e-6.

    log(1 + w) = 2 artanh(s), s = w / (2 + w) <= 1/3, by its Taylor polynomial.
    """
    w = exp_of_negative(-abs(x))
    s = w / (float32(2.0) + w)
    q = s * s
    p = float32(1 / 7) + q * (float32(1 / 9) + q * (float32(1 / 11) + q * (float32(1 / 13) + q * float32(1 / 15))))
    return (float32(0.0) if x < 0 else x) + (s + s) * (
        float32(1.0) + q * (float32(1 / 3) + q * (float32(1 / 5) + q * p))
    )


@njit(inline="always", cache=True)
def copy_to(into: Any, values: Any) -> None:
    """Write values over the beginning of ``into``.

    For an assignment to a slice numba compiles the text of an error as well, seconds of a first explanation.
    """
    for e in range(values.shape[0]):
        into[e] = values[e]


@lru_cache(maxsize=1)
def _workers(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads beside the caller's own; a forked process, which has none of them, gets new ones."""
    return ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="compiled-loops")


IMPORTED_IN = os.getpid()
GOMP = getattr(ctypes.CDLL(None), "GOMP_parallel", None) if sys.platform == "linux" else None
"""What runs a function on every thread of the team that torch computes with, where that is GNU's."""


def on_all_threads(work: Callable[[], None]) -> None:
    """Call ``work`` on as many threads as torch computes with, and wait for all; an error of any is raised.

    On torch's own threads, if they can be had: after a product they spin for milliseconds, on cores that others would
    have to share with them. In a forked process GNU's team is lost, and waiting for it would never end.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        work()
    elif GOMP is None or os.getpid() != IMPORTED_IN:
        others = [_workers(os.getpid(), threads).submit(work) for _ in range(threads - 1)]
        work()
        for other in others:
            other.result()
    else:
        errors: list[BaseException] = []

        def guarded(_: Any) -> None:
            try:
                work()
            except BaseException as error:  # nothing may leave a function that C calls
                errors.append(error)

        GOMP(ctypes.CFUNCTYPE(None, ctypes.c_void_p)(guarded), None, threads, 0)
        if errors:
            raise errors[0]


def over_channels(rows: int, channels: int, kernel: Callable[[int, int, int], None]) -> None:
    """Call ``kernel(row, start, stop)`` for every row and block of channels; it lets go of the interpreter's lock."""
    threads = torch.get_num_threads()
    width = min(BLOCK, max(64, -(-rows * channels // (2 * threads))))
    # One queue for all threads, of which some may be late.
    blocks = iter([(row, start) for row in range(rows) for start in range(0, channels, width)])

    def work() -> None:
        for row, start in blocks:
            kernel(row, start, min(start + width, channels))

    on_all_threads(work)
