"""The selective scan for the CPU, compiled by numba: the recurrence as it is written, a block of channels at a time.

A block's states stay in the first-level cache for the whole length, so the only memory traffic is inputs and outputs.
Gradients exist for the input and the initial state: what the SSM rule leaves. The compiled code is cached on disk.
"""

from collections.abc import Callable
from math import log
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy import float32
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_mambalrp.ops.numba_common import BLOCK, LANES, copy_to, over_channels, power_of_two

SMALLEST = float32(1e-30)
"""States below it become 0, for they would decay into subnormal numbers and stay there, a hundred times slower."""
FLUSH_EVERY = 16
"""Steps between looking for such states; looking at every step would double the time."""


TOGETHER = 4
"""States of a channel that are computed at once, so that they share what is loaded; there are zeros behind the last."""
ROW = BLOCK + 16
"""Numbers between two states of a block's first channel: no power of 2, whose multiples share a place in caches."""


@njit(inline="always", cache=True)
def in_rows(values: Any, start: int, stop: int) -> Any:
    """Channels ``start`` to ``stop`` of values (N, E), a state every ``ROW`` numbers."""
    rows = np.zeros(-(-values.shape[0] // TOGETHER) * TOGETHER * ROW, float32)
    for n in range(values.shape[0]):
        copy_to(rows[n * ROW :], values[n, start:stop])
    return rows


@njit(inline="always", cache=True)
def out_of_rows(rows: Any, values: Any, start: int, stop: int) -> None:
    """What :func:`in_rows` was given, put back."""
    for n in range(values.shape[0]):
        copy_to(values[n, start:stop], rows[n * ROW : n * ROW + stop - start])


@njit(inline="always", cache=True)
def lanes(width: int) -> Any:
    """Zeros for the numbers of a position's channels and, behind them, of what fills the last vector.

    A loop over whole vectors has no remainder, whose constants would take up registers.
    """
    return np.zeros(-(-width // LANES) * LANES, float32)


@njit(inline="always", cache=True)
def flush(rows: Any) -> None:
    """Set states below ``SMALLEST`` to 0, in place."""
    for i in range(rows.shape[0]):
        if abs(rows[i]) < SMALLEST:
            rows[i] = float32(0.0)


@njit(inline="always", fastmath={"contract"}, cache=True)
def advance(h: Any, a: Any, step: Any, x: Any, B: Any, C: Any, out: Any) -> None:
    """One position of some channels: h = 2^(dt a) h + B x, out += C h; h and a = A / ln 2 in rows, x = dt u.

    B and C are arrays of the kernel's own, with zeros behind the states that there are: read where they lie, they keep
    the compiler from vector instructions, and the scan takes five times as long.
    """
    for n in range(0, B.shape[0], TOGETHER):
        b0, b1, b2, b3 = B[n], B[n + 1], B[n + 2], B[n + 3]
        c0, c1, c2, c3 = C[n], C[n + 1], C[n + 2], C[n + 3]
        for e in range(out.shape[0] // LANES * LANES):
            i, dt, content = n * ROW + e, step[e], x[e]
            h0 = power_of_two(dt * a[i]) * h[i] + b0 * content
            h1 = power_of_two(dt * a[i + ROW]) * h[i + ROW] + b1 * content
            h2 = power_of_two(dt * a[i + 2 * ROW]) * h[i + 2 * ROW] + b2 * content
            h3 = power_of_two(dt * a[i + 3 * ROW]) * h[i + 3 * ROW] + b3 * content
            h[i], h[i + ROW], h[i + 2 * ROW], h[i + 3 * ROW] = h0, h1, h2, h3
            out[e] += (c0 * h0 + c1 * h1) + (c2 * h2 + c3 * h3)


@njit(inline="always", fastmath={"contract"}, cache=True)
def retreat(g: Any, a: Any, step: Any, arriving: Any, B: Any, C: Any, out: Any) -> None:
    """Its transpose: total = g + C grad_y, out += B total, g = 2^(dt a) total."""
    for n in range(0, B.shape[0], TOGETHER):
        b0, b1, b2, b3 = B[n], B[n + 1], B[n + 2], B[n + 3]
        c0, c1, c2, c3 = C[n], C[n + 1], C[n + 2], C[n + 3]
        for e in range(out.shape[0] // LANES * LANES):
            i, dt, grad = n * ROW + e, step[e], arriving[e]
            g0, g1 = g[i] + c0 * grad, g[i + ROW] + c1 * grad
            g2, g3 = g[i + 2 * ROW] + c2 * grad, g[i + 3 * ROW] + c3 * grad
            out[e] += (b0 * g0 + b1 * g1) + (b2 * g2 + b3 * g3)
            g[i], g[i + ROW] = power_of_two(dt * a[i]) * g0, power_of_two(dt * a[i + ROW]) * g1
            g[i + 2 * ROW] = power_of_two(dt * a[i + 2 * ROW]) * g2
            g[i + 3 * ROW] = power_of_two(dt * a[i + 3 * ROW]) * g3


@njit(nogil=True, fastmath={"contract"}, cache=True)
def scan_channels(u: Any, dt: Any, A: Any, B: Any, C: Any, state: Any, y: Any, start: int, stop: int) -> None:
    """h = 2^(dt A) h + dt B u, y = C h for channels ``start`` to ``stop`` of one row; ``state`` (N, E) in place."""
    width = stop - start
    h, a = in_rows(state, start, stop), in_rows(A, start, stop)
    b, c = np.zeros(len(h) // ROW, float32), np.zeros(len(h) // ROW, float32)
    step, x, out = lanes(width), lanes(width), lanes(width)
    for t in range(u.shape[0]):
        content, given = u[t, start:stop], dt[t, start:stop]
        for e in range(width):
            step[e], x[e], out[e] = given[e], given[e] * content[e], float32(0.0)
        copy_to(b, B[t])
        copy_to(c, C[t])
        advance(h, a, step, x, b, c, out)
        copy_to(y[t, start:stop], out[:width])
        if t % FLUSH_EVERY == 0:
            flush(h)
    out_of_rows(h, state, start, stop)


@njit(nogil=True, fastmath={"contract"}, cache=True)
def transposed_scan_channels(
    grad_y: Any, dt: Any, A: Any, B: Any, C: Any, adjoint: Any, grad_u: Any, start: int, stop: int
) -> None:
    """g = g + C grad_y, grad_u = dt B g, g = 2^(dt A) g, backwards in time; ``adjoint`` (N, E) in place."""
    width = stop - start
    g, a = in_rows(adjoint, start, stop), in_rows(A, start, stop)
    b, c = np.zeros(len(g) // ROW, float32), np.zeros(len(g) // ROW, float32)
    step, arriving, out = lanes(width), lanes(width), lanes(width)
    for t in range(grad_y.shape[0] - 1, -1, -1):
        grad, given, of_content = grad_y[t, start:stop], dt[t, start:stop], grad_u[t, start:stop]
        for e in range(width):
            step[e], arriving[e], out[e] = given[e], grad[e], float32(0.0)
        copy_to(b, B[t])
        copy_to(c, C[t])
        retreat(g, a, step, arriving, b, c, out)
        for e in range(width):
            of_content[e] = step[e] * out[e]
        if t % FLUSH_EVERY == 0:
            flush(g)
    out_of_rows(g, adjoint, start, stop)


def in_powers_of_two(A: Tensor) -> Tensor:
    """A / ln 2 in float32, rounded once: exp(dt A) = 2^(dt A / ln 2), which takes a product less a state."""
    return (A.double() / log(2)).float()


def _over_channels(
    kernel: Callable[..., None], x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Run a kernel on every row and block of channels. State: (B, E, N)."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    carried = state.transpose(1, 2).clone(memory_format=torch.contiguous_format)  # (B, N, E)
    xs, dts, As, Bs, Cs = (value.detach().contiguous().numpy() for value in (x, dt, in_powers_of_two(A.t()), B, C))

    def run(row: int, start: int, stop: int) -> None:
        kernel(xs[row], dts[row], As, Bs[row], Cs[row], carried[row].numpy(), out[row].numpy(), start, stop)

    over_channels(x.shape[0], x.shape[2], run)
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
