"""The causal depthwise convolution with SiLU under the identity rule, in one pass.

A program takes a block of channels and walks along time in runs of a few positions. All loads of a run come first, so
that they are in flight together; taps and gradients then come from registers, and each input is read once, but for
K - 1 (forward) or 2 K - 2 (backward) positions around a run, which the cache holds.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# Kernels have no annotations: Triton reads those that it finds, and knows no typing.Any.

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_mambalrp.ops.triton_common import in_units, sigmoid, with_unit_stride
from hf_mambalrp.rules import Rules


class Tiling(NamedTuple):
    """How the work is cut into programs."""

    steps: int = 8
    """Positions in a run."""
    block: int = 128
    """Channels of a program: four a thread, 8 bytes of bfloat16."""
    warps: int = 1
    programs: int = 4096
    """Programs enough to fill the device: with more runs than these, a program takes several."""
    most_runs: int = 16


FORWARD = Tiling()
BACKWARD = Tiling()


@triton.jit
def load_taps(weight, e, inside, K: tl.constexpr):
    """w_0 .. w_{K-1} of the channels ``e``."""
    w = ()
    for k in tl.static_range(K):
        w += (tl.load(weight + e * K + k, inside, 0.0).to(tl.float32),)  # type: ignore[assignment]
    return w


@triton.jit
def load_positions(
    x,
    x_time,
    earlier,
    earlier_time,
    start,
    length,
    channels,
    e,
    COUNT: tl.constexpr,
    BEFORE: tl.constexpr,
    UNIT: tl.constexpr,
):
    """x from position ``start`` - BEFORE on, BEFORE of which ``earlier`` holds before position 0; zero past the end."""
    xs = ()
    for i in tl.static_range(COUNT):
        t = start - BEFORE + i
        value = tl.load(x + t.to(tl.int64) * x_time * UNIT + e, e < tl.where((t >= 0) & (t < length), channels, 0), 0.0)
        if i < BEFORE:
            is_before = e < tl.where(t < 0, channels, 0)
            before = tl.load(earlier + (t + BEFORE).to(tl.int64) * earlier_time * UNIT + e, is_before, 0.0)
            value = tl.where(is_before, before.to(value.dtype), value)
        xs += (value,)  # type: ignore[assignment]
    return xs


@triton.jit
def convolved(xs, w, b, i: tl.constexpr, K: tl.constexpr):
    """b + sum_k w_k xs_{i+k}."""
    c = b
    for k in tl.static_range(K):
        c += w[k] * xs[i + k].to(tl.float32)
    return c


@triton.jit
def damped(g, xs, w, b, c, gamma, i: tl.constexpr, K: tl.constexpr, GAMMA: tl.constexpr):
    """g c / (c + gamma s), s the sum of the contributions of c's sign (hf_mambalrp.rules.gamma)."""
    if GAMMA:
        sign = tl.where(c > 0, 1.0, -1.0)
        same = tl.maximum(b * sign, 0.0)
        for k in tl.static_range(K):
            same += tl.maximum(w[k] * xs[i + k].to(tl.float32) * sign, 0.0)
        size = tl.abs(c)
        g = g * size / tl.maximum(size + gamma * same, 1e-37)
    return g


@triton.jit
def raised(x, w, c, gamma, GAMMA: tl.constexpr):
    """w, raised by gamma where the contribution x w has c's sign."""
    if GAMMA:
        w = w * tl.where(x.to(tl.float32) * w * c > 0.0, 1.0 + gamma, 1.0)
    return w


@triton.jit(do_not_specialize=["length", "runs"])
def conv_silu_forward(
    x,
    weight,
    bias,
    earlier,
    mask,
    u,
    x_batch,
    x_time,
    earlier_batch,
    earlier_time,
    length,
    channels,
    runs,
    K: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
    UNIT: tl.constexpr,
):
    """u_t = m_t c_t sigmoid(c_t) with c_t = sum_k w_k x_{t-K+1+k} + b."""
    blocks = tl.cdiv(channels, BLOCK)
    e = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    first = tl.program_id(0) // blocks * runs * STEPS
    row, inside = tl.program_id(1).to(tl.int64), e < channels
    x += row * x_batch * UNIT
    earlier += row * earlier_batch * UNIT
    w = load_taps(weight, e, inside, K)
    b = tl.zeros([BLOCK], tl.float32)
    if bias is not None:
        b += tl.load(bias + row * channels + e, inside, 0.0)
    for run in range(tl.minimum(runs, tl.cdiv(length - first, STEPS))):
        start = first + run * STEPS
        xs = load_positions(x, x_time, earlier, earlier_time, start, length, channels, e, STEPS + K - 1, K - 1, UNIT)
        for i in tl.static_range(STEPS):
            t = start + i
            c = convolved(xs, w, b, i, K)
            out = c * sigmoid(c)
            if mask is not None:
                out *= tl.load(mask + row * length + t, t < length, 0.0).to(tl.float32)
            exists = e < tl.where(t < length, channels, 0)
            tl.store(u + (row * length + t) * channels + e, out.to(u.dtype.element_ty), exists)


@triton.jit(do_not_specialize=["length", "runs", "gamma"])
def conv_silu_backward(
    gu,
    x,
    weight,
    bias,
    earlier,
    mask,
    gx,
    g_bias,
    g_earlier,
    gu_batch,
    gu_time,
    x_batch,
    x_time,
    earlier_batch,
    earlier_time,
    length,
    channels,
    runs,
    gamma,
    K: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
    UNIT: tl.constexpr,
    GAMMA: tl.constexpr,
):
    """gc_t = m_t gu_t sigmoid(c_t),  gx_t = sum_k w_k gc_{t+K-1-k},  g_bias = sum_t gc_t, one part for each program.

    With gamma, gc_t is damped by c_t / (c_t + gamma s_t), and weights of contributions of c's sign are raised.
    """
    blocks = tl.cdiv(channels, BLOCK)
    e = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    part = tl.program_id(0) // blocks
    first = part * runs * STEPS
    row, inside = tl.program_id(1).to(tl.int64), e < channels
    x += row * x_batch * UNIT
    gu += row * gu_batch * UNIT
    earlier += row * earlier_batch * UNIT
    w = load_taps(weight, e, inside, K)
    b = tl.zeros([BLOCK], tl.float32)
    if bias is not None:
        b += tl.load(bias + row * channels + e, inside, 0.0)
    absorbed = tl.zeros([BLOCK], tl.float32)
    for run in range(tl.minimum(runs, tl.cdiv(length - first, STEPS))):
        start = first + run * STEPS
        xs = load_positions(
            x, x_time, earlier, earlier_time, start, length, channels, e, STEPS + 2 * K - 2, K - 1, UNIT
        )
        gus = load_positions(gu, gu_time, None, 0, start, length, channels, e, STEPS + K - 1, 0, UNIT)
        gcs, cs = (), ()  # gc and c from position start on
        for i in tl.static_range(STEPS + K - 1):
            c = convolved(xs, w, b, i, K)
            gc = damped(gus[i].to(tl.float32) * sigmoid(c), xs, w, b, c, gamma, i, K, GAMMA)
            if mask is not None:
                gc *= tl.load(mask + row * length + start + i, start + i < length, 0.0).to(tl.float32)
            if i < STEPS:
                absorbed += gc * raised(b, 1.0, c, gamma, GAMMA)
            gcs += (gc,)  # type: ignore[assignment]
            cs += (c,)  # type: ignore[assignment]
        if gx is not None:
            for i in tl.static_range(STEPS):
                t = start + i
                g = tl.zeros([BLOCK], tl.float32)
                for k in tl.static_range(K):
                    g += raised(xs[i + K - 1], w[k], cs[i + K - 1 - k], gamma, GAMMA) * gcs[i + K - 1 - k]
                exists = e < tl.where(t < length, channels, 0)
                tl.store(gx + (row * length + t) * channels + e, g.to(gx.dtype.element_ty), exists)
        if g_earlier is not None:
            for i in tl.static_range(K - 1):  # position i - K + 1, read by positions from 0 on only
                g = tl.zeros([BLOCK], tl.float32)
                for k in tl.static_range(i + 1):
                    g += raised(xs[i], w[k], cs[i - k], gamma, GAMMA) * gcs[i - k]
                at = g_earlier + (row * (K - 1) + i) * channels + e
                tl.store(at, g.to(g_earlier.dtype.element_ty), e < tl.where(start == 0, channels, 0))
    if g_bias is not None:
        parts = tl.num_programs(0) // blocks
        tl.store(g_bias + (row * parts + part) * channels + e, absorbed, inside)


class _ConvSiLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, earlier: Tensor, mask: Tensor | None, gamma: float
    ) -> Tensor:
        x, earlier = with_unit_stride(x), with_unit_stride(earlier)
        weight, bias = weight.contiguous(), None if bias is None else bias.contiguous()
        mask = None if mask is None else mask.reshape(x.shape[:2]).contiguous()
        ctx.save_for_backward(x, weight, bias, earlier, mask)
        ctx.gamma = gamma
        _, length, channels = x.shape
        u = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        grid, runs = _cut(x, FORWARD)
        unit, strides = in_units(*x.stride()[:2], *earlier.stride()[:2])
        with torch.cuda.device_of(x):
            conv_silu_forward[grid](
                *(x, weight, bias, earlier, mask, u),
                *(*strides, length, channels, runs),
                K=weight.shape[1],
                STEPS=FORWARD.steps,
                BLOCK=FORWARD.block,
                UNIT=unit,
                num_warps=FORWARD.warps,
            )
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gu: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, earlier, mask = ctx.saved_tensors
        needs_x, _, needs_bias, needs_earlier, *_ = ctx.needs_input_grad
        gu = with_unit_stride(gu)
        batch, length, channels = x.shape
        grid, runs = _cut(x, BACKWARD)
        unit, strides = in_units(*gu.stride()[:2], *x.stride()[:2], *earlier.stride()[:2])
        parts = (batch, grid[0] // triton.cdiv(channels, BACKWARD.block), channels)

        def empty(needed: bool, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
            return torch.empty(shape, dtype=dtype, device=x.device) if needed else None

        gx = empty(needs_x, x.shape, x.dtype)
        g_bias = empty(needs_bias, parts, torch.float32)
        g_earlier = empty(needs_earlier, earlier.shape, earlier.dtype)
        with torch.cuda.device_of(x):
            conv_silu_backward[grid](
                *(gu, x, weight, bias, earlier, mask, gx, g_bias, g_earlier),
                *(*strides, length, channels, runs, ctx.gamma),
                K=weight.shape[1],
                STEPS=BACKWARD.steps,
                BLOCK=BACKWARD.block,
                UNIT=unit,
                GAMMA=ctx.gamma > 0,
                num_warps=BACKWARD.warps,
            )
        g_bias = None if g_bias is None else g_bias.sum(1, keepdim=True).to(bias.dtype)
        return gx, None, g_bias, g_earlier, None, None


def _cut(x: Tensor, tiling: Tiling) -> tuple[tuple[int, int], int]:
    """The grid and the runs of one program."""
    batch, length, channels = x.shape
    blocks, runs = triton.cdiv(channels, tiling.block), triton.cdiv(length, tiling.steps)
    each = max(1, min(tiling.most_runs, batch * blocks * runs // tiling.programs))
    return (blocks * triton.cdiv(runs, each), batch), each


def conv_silu_triton(
    x: Tensor, weight: Tensor, bias: Tensor | None, earlier: Tensor, mask: Tensor | None, rules: Rules
) -> Tensor:
    """Same contract as :func:`conv_silu_reference`, for a mask of zeros and ones; x and earlier are kept."""
    u: Tensor = _ConvSiLU.apply(x, weight, bias, earlier, mask, rules.gamma_of("conv1d"))
    return u
