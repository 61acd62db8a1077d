"""The selective scan for the CPU, compiled by numba: the recurrence as it is written, a block of channels at a time.

A block's states stay in the first-level cache for the whole length, so the only memory traffic is inputs and outputs.
Gradients exist for the input and the initial state: what the SSM rule leaves. The compiled code is cached on disk.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy import float32, int32
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 512
"""Channels at a time, at most: 16 states each are 32 KiB of float32, and long enough rows for vector instructions."""

SMALLEST = float32(1e-30)
"""States below it become 0, for they would decay into subnormal numbers and stay there, a hundred times slower."""
FLUSH_EVERY = 16
"""Steps between looking for such states; looking at every step would double the time."""

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


@njit(inline="always", cache=True)
def flush(state: Any) -> None:
    """Set states below ``SMALLEST`` to 0, in place."""
    for n in range(state.shape[0]):
        for e in range(state.shape[1]):
            if abs(state[n, e]) < SMALLEST:
                state[n, e] = float32(0.0)


@njit(nogil=True, fastmath={"contract"}, cache=True)
def scan_channels(u: Any, dt: Any, A: Any, B: Any, C: Any, state: Any, y: Any, start: int, stop: int) -> None:
    """h = exp(dt A) h + dt B u, y = C h for channels ``start`` to ``stop`` of one row; ``state`` (N, E) in place."""
    width, states = stop - start, A.shape[0]
    h, a, out = state[:, start:stop].copy(), A[:, start:stop].copy(), np.empty(width, float32)
    for t in range(u.shape[0]):
        step, x = dt[t, start:stop], dt[t, start:stop] * u[t, start:stop]
        out[:] = float32(0.0)
        for n in range(states):
            b, c = B[t, n], C[t, n]
            for e in range(width):
                h[n, e] = exp_of_negative(step[e] * a[n, e]) * h[n, e] + b * x[e]
                out[e] += c * h[n, e]
        y[t, start:stop] = out
        if t % FLUSH_EVERY == 0:
            flush(h)
    state[:, start:stop] = h


@njit(nogil=True, fastmath={"contract"}, cache=True)
def transposed_scan_channels(
    grad_y: Any, dt: Any, A: Any, B: Any, C: Any, adjoint: Any, grad_u: Any, start: int, stop: int
) -> None:
    """g = g + C grad_y, grad_u = dt B g, g = exp(dt A) g, backwards in time; ``adjoint`` (N, E) in place."""
    width, states = stop - start, A.shape[0]
    g, a, out = adjoint[:, start:stop].copy(), A[:, start:stop].copy(), np.empty(width, float32)
    for t in range(grad_y.shape[0] - 1, -1, -1):
        step, arriving = dt[t, start:stop], grad_y[t, start:stop]
        out[:] = float32(0.0)
        for n in range(states):
            b, c = B[t, n], C[t, n]
            for e in range(width):
                total = g[n, e] + c * arriving[e]
                out[e] += b * total
                g[n, e] = exp_of_negative(step[e] * a[n, e]) * total
        grad_u[t, start:stop] = step * out
        if t % FLUSH_EVERY == 0:
            flush(g)
    adjoint[:, start:stop] = g


@lru_cache(maxsize=1)
def _workers(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads beside the caller's own; a forked process, which has none of them, gets new ones."""
    return ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="selective-scan")


def _over_channels(
    kernel: Callable[..., None], x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Run a kernel on every row and block of channels, on as many threads as torch uses. State: (B, E, N)."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    carried = state.transpose(1, 2).clone(memory_format=torch.contiguous_format)  # (B, N, E)
    xs, dts, As, Bs, Cs = (value.detach().contiguous().numpy() for value in (x, dt, A.t(), B, C))
    rows, channels, threads = x.shape[0], x.shape[2], torch.get_num_threads()
    width = min(BLOCK, max(64, -(-rows * channels // (2 * threads))))
    # One queue for all threads: torch's own thread may still be spinning on a core, and then the others take more.
    blocks = iter([(row, start) for row in range(rows) for start in range(0, channels, width)])

    def work() -> None:
        for row, start in blocks:
            stop = min(start + width, channels)
            kernel(xs[row], dts[row], As, Bs[row], Cs[row], carried[row].numpy(), out[row].numpy(), start, stop)

    others = [_workers(os.getpid(), threads).submit(work) for _ in range(threads - 1)]
    work()
    for other in others:
        other.result()
    return out, carried.transpose(1, 2).contiguous()


class _CompiledScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(dt, A, B, C)
        return _over_channels(scan_channels, u, dt, A, B, C, initial_state)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        dt, A, B, C = ctx.saved_tensors
        grad_u, grad_state = _over_channels(transposed_scan_channels, grad_y, dt, A, B, C, grad_last)
        return grad_u, None, None, None, None, grad_state


def selective_scan_compiled(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`selective_scan_reference` for float32 on the CPU and constant dt, A, B and C."""
    result: tuple[Tensor, Tensor] = _CompiledScan.apply(u, dt, A, B, C, initial_state)
    return result
