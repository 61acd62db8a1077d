"""The gated RMSNorm of Mamba-2 (gate first, then the norm of each group), in one pass.

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
    y, z, weight, o, normaliser, y_row, z_row, groups, size, eps, BLOCK: tl.constexpr, UNIT: tl.constexpr
):
    """o = p r w with p = y z sigmoid(z) and r = rsqrt(mean(p^2) + eps)."""
    row, group = (tl.program_id(0) // groups).to(tl.int64), tl.program_id(0) % groups
    within = tl.arange(0, BLOCK)
    e, inside = group * size + within, within < size
    y_value = tl.load(y + row * y_row * UNIT + e, inside, 0.0).to(tl.float32)
    z_value = tl.load(z + row * z_row * UNIT + e, inside, 0.0).to(tl.float32)
    w = tl.load(weight + e, inside, 0.0).to(tl.float32)
    p = y_value * z_value * sigmoid(z_value)
    r = tl.rsqrt(tl.sum(p * p, 0) / size + eps)
    tl.store(normaliser + tl.program_id(0), r)
    tl.store(o + row * groups * size + e, (p * r * w).to(o.dtype.element_ty), inside)


@triton.jit
def gated_norm_backward(
    go, y, z, weight, normaliser, gy, gz, go_row, y_row, z_row, groups, size, BLOCK: tl.constexpr, UNIT: tl.constexpr
):
    """gp = go r w,  gy = gp z sigmoid(z) / 2,  gz = gp y sigmoid(z) / 2."""
    row, group = (tl.program_id(0) // groups).to(tl.int64), tl.program_id(0) % groups
    within = tl.arange(0, BLOCK)
    e, inside = group * size + within, within < size
    out = row * groups * size + e
    g = tl.load(go + row * go_row * UNIT + e, inside, 0.0).to(tl.float32)
    y_value = tl.load(y + row * y_row * UNIT + e, inside, 0.0).to(tl.float32)
    z_value = tl.load(z + row * z_row * UNIT + e, inside, 0.0).to(tl.float32)
    w = tl.load(weight + e, inside, 0.0).to(tl.float32)
    half = 0.5 * g * tl.load(normaliser + tl.program_id(0)) * w * sigmoid(z_value)
    tl.store(gy + out, (half * z_value).to(gy.dtype.element_ty), inside)
    tl.store(gz + out, (half * y_value).to(gz.dtype.element_ty), inside)


class _GatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, z: Tensor, weight: Tensor, eps: float, size: int) -> Tensor:
        weight, ys, zs = weight.contiguous(), rows(y), rows(z)
        count, width = ys.shape
        ctx.size = size
        o = torch.empty(y.shape, dtype=y.dtype, device=y.device)
        normaliser = torch.empty((*y.shape[:-1], width // size), dtype=torch.float32, device=y.device)
        ctx.save_for_backward(y, z, weight, normaliser)
        unit, strides = in_units(width, ys.stride(0), zs.stride(0))
        if count:
            with torch.cuda.device_of(y):
                gated_norm_forward[(normaliser.numel(),)](
                    *(ys, zs, weight, o, normaliser, *strides[1:], width // size, size, eps),
                    UNIT=unit,
                    **one_row(size, FORWARD_PER_WARP),
                )
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, go: Tensor) -> tuple[Tensor | None, ...]:
        y, z, weight, normaliser = ctx.saved_tensors
        gos, ys, zs = rows(go), rows(y), rows(z)
        gy, gz = (torch.empty(kept.shape, dtype=kept.dtype, device=kept.device) for kept in (y, z))
        count, width = ys.shape
        unit, strides = in_units(width, gos.stride(0), ys.stride(0), zs.stride(0))
        if count:
            with torch.cuda.device_of(y):
                gated_norm_backward[(normaliser.numel(),)](
                    *(gos, ys, zs, weight, normaliser, gy, gz, *strides[1:], width // ctx.size, ctx.size),
                    UNIT=unit,
                    **one_row(ctx.size, BACKWARD_PER_WARP),
                )
        return gy, gz, None, None, None


def gated_norm_triton(y: Tensor, z: Tensor, weight: Tensor, eps: float, group_size: int, rules: Rules) -> Tensor:
    """Same contract as :func:`gated_norm_reference`; y and z themselves and the normalisers are kept."""
    o: Tensor = _GatedNorm.apply(y, z, weight, eps, group_size)
    return o
