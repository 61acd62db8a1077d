"""The gated RMSNorm of Mamba-2 (gate first, then the norm of each group), with the D skip before it, in one pass.

A program takes one group of one row, which stays in registers between the mean square and the output.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# Kernels have no annotations: Triton reads those that it finds, and knows no typing.Any.

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_mambalrp.ops.triton_common import in_units, one_row, rows, sigmoid
from hf_mambalrp.rules import Rules

FORWARD_PER_WARP, BACKWARD_PER_WARP = 1024, 512
"""Channels of a group for each warp: 32 and 16 a thread."""


@triton.jit
def gated_norm_forward(
    y,
    z,
    x,
    D,
    weight,
    o,
    normaliser,
    y_row,
    z_row,
    x_row,
    groups,
    size,
    head,
    eps,
    BLOCK: tl.constexpr,
    UNIT: tl.constexpr,
):
    """o = p r w with p = (y + D x) z sigmoid(z) and r = rsqrt(mean(p^2) + eps)."""
    row, group = (tl.program_id(0) // groups).to(tl.int64), tl.program_id(0) % groups
    within = tl.arange(0, BLOCK)
    e, inside = group * size + within, within < size
    y_value = tl.load(y + row * y_row * UNIT + e, inside, 0.0).to(tl.float32)
    z_value = tl.load(z + row * z_row * UNIT + e, inside, 0.0).to(tl.float32)
    if x is not None:
        skipping = tl.load(x + row * x_row * UNIT + e, inside, 0.0).to(tl.float32)
        y_value += skipping * tl.load(D + e // head, inside, 0.0).to(tl.float32)
    w = tl.load(weight + e, inside, 0.0).to(tl.float32)
    p = y_value * z_value * sigmoid(z_value)
    r = tl.rsqrt(tl.sum(p * p, 0) / size + eps)
    tl.store(normaliser + tl.program_id(0), r)
    tl.store(o + row * groups * size + e, (p * r * w).to(o.dtype.element_ty), inside)


@triton.jit
def gated_norm_backward(
    go,
    y,
    z,
    x,
    D,
    weight,
    normaliser,
    gy,
    gz,
    gx,
    go_row,
    y_row,
    z_row,
    x_row,
    groups,
    size,
    head,
    BLOCK: tl.constexpr,
    UNIT: tl.constexpr,
):
    """gp = go r w,  gy = gp z sigmoid(z) / 2,  gz = gp (y + D x) sigmoid(z) / 2,  gx = D gy."""
    row, group = (tl.program_id(0) // groups).to(tl.int64), tl.program_id(0) % groups
    within = tl.arange(0, BLOCK)
    e, inside = group * size + within, within < size
    out = row * groups * size + e
    g = tl.load(go + row * go_row * UNIT + e, inside, 0.0).to(tl.float32)
    y_value = tl.load(y + row * y_row * UNIT + e, inside, 0.0).to(tl.float32)
    z_value = tl.load(z + row * z_row * UNIT + e, inside, 0.0).to(tl.float32)
    w = tl.load(weight + e, inside, 0.0).to(tl.float32)
    half = 0.5 * g * tl.load(normaliser + tl.program_id(0)) * w * sigmoid(z_value)
    g_y = half * z_value
    if x is not None:
        d = tl.load(D + e // head, inside, 0.0).to(tl.float32)
        y_value += d * tl.load(x + row * x_row * UNIT + e, inside, 0.0).to(tl.float32)
        tl.store(gx + out, (d * g_y).to(gx.dtype.element_ty), inside)
    tl.store(gy + out, g_y.to(gy.dtype.element_ty), inside)
    tl.store(gz + out, (half * y_value).to(gz.dtype.element_ty), inside)


class _GatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y: Tensor, z: Tensor, x: Tensor | None, D: Tensor | None, weight: Tensor, eps: float, size: int
    ) -> Tensor:
        D, weight = None if D is None else D.contiguous(), weight.contiguous()
        ys, zs, xs = rows(y), rows(z), None if x is None else rows(x)
        count, width = ys.shape
        ctx.size, ctx.head = size, 1 if D is None else width // len(D)
        o = torch.empty(y.shape, dtype=y.dtype, device=y.device)
        normaliser = torch.empty((*y.shape[:-1], width // size), dtype=torch.float32, device=y.device)
        ctx.save_for_backward(y, z, x, D, weight, normaliser)
        unit, strides = in_units(*(width if value is None else value.stride(0) for value in (ys, zs, xs)))
        if count:
            with torch.cuda.device_of(y):
                gated_norm_forward[(normaliser.numel(),)](
                    *(ys, zs, xs, D, weight, o, normaliser, *strides, width // size, size, ctx.head, eps),
                    UNIT=unit,
                    **one_row(size, FORWARD_PER_WARP),
                )
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, go: Tensor) -> tuple[Tensor | None, ...]:
        y, z, x, D, weight, normaliser = ctx.saved_tensors
        gos, ys, zs, xs = rows(go), rows(y), rows(z), None if x is None else rows(x)
        gy, gz = (torch.empty(kept.shape, dtype=kept.dtype, device=kept.device) for kept in (y, z))
        gx = None if x is None else torch.empty(x.shape, dtype=x.dtype, device=x.device)
        count, width = ys.shape
        unit, strides = in_units(*(width if value is None else value.stride(0) for value in (gos, ys, zs, xs)))
        if count:
            with torch.cuda.device_of(y):
                gated_norm_backward[(normaliser.numel(),)](
                    *(gos, ys, zs, xs, D, weight, normaliser, gy, gz, gx),
                    *(*strides, width // ctx.size, ctx.size, ctx.head),
                    UNIT=unit,
                    **one_row(ctx.size, BACKWARD_PER_WARP),
                )
        return gy, gz, gx, None, None, None, None


def gated_norm_triton(
    y: Tensor,
    z: Tensor,
    weight: Tensor,
    eps: float,
    group_size: int,
    skip: tuple[Tensor, Tensor] | None,
    rules: Rules,
) -> Tensor:
    """Same contract as :func:`gated_norm_reference`; y, z (and x) themselves and the normalisers are kept."""
    x, D = (None, None) if skip is None else skip
    o: Tensor = _GatedNorm.apply(y, z, x, D, weight, eps, group_size)
    return o
