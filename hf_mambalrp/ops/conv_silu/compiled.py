"""The convolution with SiLU for the CPU, compiled by numba: one pass each way, a block of channels at a time."""

from typing import Any

import numpy as np
import torch
from numba import njit
from numpy import float32
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_mambalrp.ops.numba_common import copy_to, over_channels, sigmoid
from hf_mambalrp.rules import Rules

TINY = float32(1e-37)


@njit(inline="always", cache=True)
def sign(x: Any) -> Any:
    """-1, 0 or 1."""
    return float32(x > 0) - float32(x < 0)


@njit(nogil=True, fastmath={"contract"}, error_model="numpy", cache=True)
def forward(x: Any, earlier: Any, w: Any, b: Any, u: Any, factors: Any, start: int, stop: int) -> None:
    """u_t = c_t sigmoid(c_t), c_t = b + sum_k w_k x_{t-K+1+k}; before position 0 there are the ``earlier`` inputs."""
    taps, bias, c = w[:, start:stop].copy(), b[start:stop], np.empty(stop - start, float32)
    for t in range(u.shape[0]):
        copy_to(c, bias)
        for k in range(taps.shape[0]):
            tap, at = taps[k], t + k - earlier.shape[0]
            read = x[at, start:stop] if at >= 0 else earlier[t + k, start:stop]
            for e in range(stop - start):
                c[e] += tap[e] * read[e]
        factor, out = factors[t, start:stop], u[t, start:stop]
        for e in range(stop - start):
            factor[e] = sigmoid(c[e])
            out[e] = c[e] * factor[e]


@njit(inline="always", fastmath={"contract"}, error_model="numpy", cache=True)
def damp(reads: Any, taps: Any, bias: Any, half: Any, g: Any, signed: Any, c: Any, sizes: Any) -> None:
    """For LRP-gamma: g becomes (1 + half) g_damped, and signed half sign(c) g_damped, c of the K rows ``reads``."""
    for e in range(g.shape[0]):
        c[e], sizes[e] = bias[e], abs(bias[e])
    for k in range(taps.shape[0]):
        tap, read = taps[k], reads[k]
        for e in range(g.shape[0]):
            part = tap[e] * read[e]
            c[e] += part
            sizes[e] += abs(part)
    for e in range(g.shape[0]):
        size = abs(c[e])
        g[e] *= size / max(size + half * (size + sizes[e]), TINY)
        signed[e] = half * sign(c[e]) * g[e]
        g[e] *= float32(1.0) + half


@njit(nogil=True, fastmath={"contract"}, error_model="numpy", cache=True)
def transposed(
    gu: Any, factors: Any, x: Any, w: Any, b: Any, half: Any, gx: Any, earlier: Any, gb: Any, start: int, stop: int
) -> None:
    """Gradients of x, of the ``earlier`` inputs and of b: LRP-0 for ``half`` = gamma / 2 = 0, else as
    :mod:`hf_mambalrp.rules.gamma` has them.
    """
    width, K = stop - start, w.shape[0]
    taps, bias, of_bias = w[:, start:stop].copy(), b[start:stop], gb[start:stop]
    g, signed = np.empty(width, float32), np.zeros(width, float32)
    c, sizes, reads = np.empty(width, float32), np.empty(width, float32), np.empty((K, width), float32)
    for t in range(gu.shape[0]):
        arriving, factor = gu[t, start:stop], factors[t, start:stop]
        for e in range(width):
            g[e] = arriving[e] * factor[e]
        if half > 0:
            for k in range(K):  # rows of their own: of a slice in both directions no loop would be in vectors
                copy_to(reads[k], x[t + k, start:stop])
            damp(reads, taps, bias, half, g, signed, c, sizes)
        for e in range(width):
            of_bias[e] += g[e] + signed[e] * sign(bias[e])
        for k in range(K):
            tap, read, at = taps[k], reads[k], t + k - earlier.shape[0]
            out = gx[at, start:stop] if at >= 0 else earlier[t + k, start:stop]
            if half > 0:
                for e in range(width):
                    out[e] += tap[e] * g[e] + abs(tap[e]) * signed[e] * sign(read[e])
            else:
                for e in range(width):
                    out[e] += tap[e] * g[e]


class _CompiledConvSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, earlier: Tensor, weight: Tensor, bias: Tensor | None, gamma: float) -> Tensor:
        w = weight.t().to(x.dtype).contiguous()
        b = x.new_zeros(len(x), x.shape[2]) if bias is None else bias.detach()[:, 0].contiguous()
        u, factors = (torch.empty(x.shape, dtype=x.dtype) for _ in range(2))
        read = [value.detach().contiguous().numpy() for value in (x, earlier)]
        arrays = [value.numpy() for value in (b, u, factors)]
        over_channels(
            len(x), x.shape[2],
            lambda row, start, stop: forward(
                *(one[row] for one in read), w.numpy(), *(array[row] for array in arrays), start, stop
            ),
        )  # fmt: skip
        ctx.gamma = gamma
        ctx.save_for_backward(factors, w, b, *([torch.cat([earlier, x], 1)] if gamma else []))
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        factors, w, b, *kept = ctx.saved_tensors
        rows, length, channels = grad.shape
        gx, earlier = (grad.new_zeros(rows, size, channels) for size in (length, len(w) - 1))
        gb = grad.new_zeros(rows, channels)
        whole = kept[0] if kept else gx  # not read without gamma
        signals = [value.detach().contiguous().numpy() for value in (grad, factors, whole)]
        found, half, taps, biases = (
            [value.numpy() for value in (gx, earlier, gb)],
            float32(ctx.gamma / 2),
            w.numpy(),
            b.numpy(),
        )
        over_channels(
            rows, channels,
            lambda row, start, stop: transposed(
                *(one[row] for one in signals), taps, biases[row], half, *(one[row] for one in found), start, stop
            ),
        )  # fmt: skip
        return gx, earlier, None, gb[:, None] if ctx.needs_input_grad[3] else None, None


def conv_silu_compiled(
    x: Tensor, weight: Tensor, bias: Tensor | None, earlier: Tensor, mask: Tensor | None, rules: Rules
) -> Tensor:
    """Same contract as :func:`conv_silu_reference` for float32 on the CPU, under the identity rule."""
    u: Tensor = _CompiledConvSiLU.apply(x, earlier, weight, bias, rules.gamma_of("conv1d"))
    return u if mask is None else u * mask.reshape(*x.shape[:2], 1)
