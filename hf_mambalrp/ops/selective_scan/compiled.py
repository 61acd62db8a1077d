"""The selective scan for the CPU, compiled by numba: the recurrence as it is written, a block of channels at a time.

A block's states stay in the first-level cache for the whole length, so the only memory traffic is inputs and outputs.
Gradients exist for the input and the initial state: what the SSM rule leaves. The compiled code is cached on disk.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy import float32
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_mambalrp.ops.numba_common import exp_of_negative, over_channels

SMALLEST = float32(1e-30)
"""States below it become 0, for they would decay into subnormal numbers and stay there, a hundred times slower."""
FLUSH_EVERY = 16
"""Steps between looking for such states; looking at every step would double the time."""


@njit(inline="always", cache=True)
def flush(state: Any) -> None:
    """Set states below ``SMALLEST`` to 0, in place."""
    for n in range(state.shape[0]):
        for e in range(state.shape[1]):
            if abs(state[n, e]) < SMALLEST:
                state[n, e] = float32(0.0)


@njit(inline="always", fastmath={"contract"}, cache=True)
def advance(h: Any, a: Any, step: Any, x: Any, B: Any, C: Any, out: Any) -> None:
    """One position of some channels: h = exp(dt A) h + B x, out += C h; h and a (N, E), x = dt u."""
    for n in range(a.shape[0]):
        for e in range(out.shape[0]):
            h[n, e] = exp_of_negative(step[e] * a[n, e]) * h[n, e] + B[n] * x[e]
            out[e] += C[n] * h[n, e]


@njit(inline="always", fastmath={"contract"}, cache=True)
def retreat(g: Any, a: Any, step: Any, arriving: Any, B: Any, C: Any, out: Any) -> None:
    """Its transpose: total = g + C grad_y, out += B total, g = exp(dt A) total."""
    for n in range(a.shape[0]):
        for e in range(out.shape[0]):
            total = g[n, e] + C[n] * arriving[e]
            out[e] += B[n] * total
            g[n, e] = exp_of_negative(step[e] * a[n, e]) * total


@njit(nogil=True, fastmath={"contract"}, cache=True)
def scan_channels(u: Any, dt: Any, A: Any, B: Any, C: Any, state: Any, y: Any, start: int, stop: int) -> None:
    """h = exp(dt A) h + dt B u, y = C h for channels ``start`` to ``stop`` of one row; ``state`` (N, E) in place."""
    h, a, out = state[:, start:stop].copy(), A[:, start:stop].copy(), np.empty(stop - start, float32)
    for t in range(u.shape[0]):
        step = dt[t, start:stop]
        out[:] = float32(0.0)
        advance(h, a, step, step * u[t, start:stop], B[t], C[t], out)
        y[t, start:stop] = out
        if t % FLUSH_EVERY == 0:
            flush(h)
    state[:, start:stop] = h


@njit(nogil=True, fastmath={"contract"}, cache=True)
def transposed_scan_channels(
    grad_y: Any, dt: Any, A: Any, B: Any, C: Any, adjoint: Any, grad_u: Any, start: int, stop: int
) -> None:
    """g = g + C grad_y, grad_u = dt B g, g = exp(dt A) g, backwards in time; ``adjoint`` (N, E) in place."""
    g, a, out = adjoint[:, start:stop].copy(), A[:, start:stop].copy(), np.empty(stop - start, float32)
    for t in range(grad_y.shape[0] - 1, -1, -1):
        step = dt[t, start:stop]
        out[:] = float32(0.0)
        retreat(g, a, step, grad_y[t, start:stop], B[t], C[t], out)
        grad_u[t, start:stop] = step * out
        if t % FLUSH_EVERY == 0:
            flush(g)
    adjoint[:, start:stop] = g


def _over_channels(
    kernel: Callable[..., None], x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Run a kernel on every row and block of channels. State: (B, E, N)."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    carried = state.transpose(1, 2).clone(memory_format=torch.contiguous_format)  # (B, N, E)
    xs, dts, As, Bs, Cs = (value.detach().contiguous().numpy() for value in (x, dt, A.t(), B, C))

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
