"""The gated scan for the CPU, compiled by numba: one pass each way, a block of channels at a time.

Step sizes, skip and gate are computed beside the recurrence of :mod:`hf_mambalrp.ops.selective_scan.compiled`, while a
position's numbers are in the first-level cache. For the backward stay z, which the gate has read anyway, and y.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy import float32
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_mambalrp.ops.numba_common import copy_to, over_channels, sigmoid, softplus
from hf_mambalrp.ops.selective_scan.compiled import (
    FLUSH_EVERY,
    ROW,
    advance,
    flush,
    in_powers_of_two,
    in_rows,
    lanes,
    out_of_rows,
    retreat,
)
from hf_mambalrp.rules import Rules

SMALL = 2**18
"""Step sizes that are kept until the backward: to compute so few again costs more than a megabyte."""


@njit(nogil=True, fastmath={"contract"}, error_model="numpy", cache=True)
def forward(
    u: Any, delta: Any, z: Any, A: Any, B: Any, C: Any, D: Any, bias: Any, state: Any, y: Any, p: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    """p = y silu(z), y = C h + D u, h = 2^(dt A) h + dt B u for channels of one row; ``state`` (N, E) in place.

    p may be delta, and y p where it is not asked for.
    """
    width = stop - start
    h, a, skip, shift = in_rows(state, start, stop), in_rows(A, start, stop), D[start:stop], bias[start:stop]
    b, c = np.zeros(len(h) // ROW, float32), np.zeros(len(h) // ROW, float32)
    step, x, out = lanes(width), lanes(width), lanes(width)
    for t in range(u.shape[0]):
        content, before, gate = u[t, start:stop], delta[t, start:stop], z[t, start:stop]
        for e in range(width):
            step[e] = softplus(before[e] + shift[e])
            x[e], out[e] = step[e] * content[e], skip[e] * content[e]
        copy_to(b, B[t])
        copy_to(c, C[t])
        advance(h, a, step, x, b, c, out)
        mixed, gated = y[t, start:stop], p[t, start:stop]
        for e in range(width):
            mixed[e] = out[e]
        for e in range(width):
            gated[e] = out[e] * gate[e] * sigmoid(gate[e])
        if t % FLUSH_EVERY == 0:
            flush(h)
    out_of_rows(h, state, start, stop)


@njit(nogil=True, fastmath={"contract"}, error_model="numpy", cache=True)
def transposed(
    gp: Any, delta: Any, z: Any, y: Any, A: Any, B: Any, C: Any, D: Any, bias: Any, adjoint: Any, gu: Any, gz: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Gradients of u and z: half of p's to each factor of the gate, then the scan backwards in time and the skip.

    gu may be delta.
    """
    width = stop - start
    g, a, skip, shift = in_rows(adjoint, start, stop), in_rows(A, start, stop), D[start:stop], bias[start:stop]
    b, c = np.zeros(len(g) // ROW, float32), np.zeros(len(g) // ROW, float32)
    step, arriving, out = lanes(width), lanes(width), lanes(width)
    for t in range(gp.shape[0] - 1, -1, -1):
        given, before, gate, mixed = gp[t, start:stop], delta[t, start:stop], z[t, start:stop], y[t, start:stop]
        of_gate, of_content = gz[t, start:stop], gu[t, start:stop]
        for e in range(width):
            half = float32(0.5) * sigmoid(gate[e]) * given[e]
            arriving[e], of_gate[e] = half * gate[e], half * mixed[e]
            step[e], out[e] = softplus(before[e] + shift[e]), float32(0.0)
        copy_to(b, B[t])
        copy_to(c, C[t])
        retreat(g, a, step, arriving, b, c, out)
        for e in range(width):
            of_content[e] = step[e] * out[e] + skip[e] * arriving[e]
        if t % FLUSH_EVERY == 0:
            flush(g)
    out_of_rows(g, adjoint, start, stop)


def _over_channels(
    kernel: Callable[..., None],
    by_position: list[Tensor],
    of_scan: tuple[Tensor, ...],
    state: Tensor,
    outs: list[Tensor],
) -> Tensor:
    """Run a kernel on every row and block of channels; returns the state (B, E, N) behind it."""
    carried = state.transpose(1, 2).clone(memory_format=torch.contiguous_format)  # (B, N, E)
    A, B, C, D, bias = (value.detach().contiguous().numpy() for value in of_scan)
    signals = [value.detach().contiguous().numpy() for value in by_position]
    found = [value.numpy() for value in (carried, *outs)]

    def run(row: int, start: int, stop: int) -> None:
        rows = [signal[row] for signal in signals]
        kernel(*rows, A, B[row], C[row], D, bias, *(one[row] for one in found), start, stop)

    over_channels(len(outs[0]), outs[0].shape[2], run)
    return carried.transpose(1, 2).contiguous()


class _CompiledGatedScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, u: Tensor, z: Tensor, initial_state: Tensor, step_size: Callable[[], Tensor], *of_scan: Tensor
    ) -> tuple[Tensor, Tensor]:
        delta = step_size().contiguous()
        # What is not kept is written over: one tensor of this size fewer, which the system would have to clear.
        kept = delta if delta.numel() <= SMALL else None
        p = delta if kept is None else torch.empty(u.shape, dtype=u.dtype)
        y = torch.empty(u.shape, dtype=u.dtype) if any(ctx.needs_input_grad) else p
        last = _over_channels(forward, [u, delta, z], of_scan, initial_state, [y, p])
        ctx.step_size = step_size
        ctx.save_for_backward(z, y, kept, *of_scan)
        return p, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_p: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        z, y, kept, *of_scan = ctx.saved_tensors
        delta = ctx.step_size().contiguous() if kept is None else kept
        gu, gz = delta if kept is None else torch.empty(z.shape, dtype=z.dtype), torch.empty(z.shape, dtype=z.dtype)
        of_state = _over_channels(transposed, [grad_p, delta, z, y], tuple(of_scan), grad_last, [gu, gz])
        return gu, gz, of_state, *[None] * 6


def gated_scan_compiled(
    u: Tensor,
    step_size: Callable[[], Tensor],
    z: Tensor,
    A_log: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    bias: Tensor,
    initial_state: Tensor | None,
    rules: Rules,
) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`gated_scan_reference` for float32 on the CPU, under MambaLRP's rules."""
    if initial_state is None:
        initial_state = u.new_zeros(len(u), *A_log.shape)
    A_log, D, bias = (parameter.detach().float() for parameter in (A_log, D, bias))
    of_scan = (in_powers_of_two(-torch.exp(A_log.t().double())), B.detach(), C.detach(), D, bias)
    found: tuple[Tensor, Tensor] = _CompiledGatedScan.apply(
        u, z, initial_state, step_size, *(one.contiguous() for one in of_scan)
    )
    return found
