"""RMSNorm with its normaliser constant, in one pass.

A program takes one row, which stays in registers between the mean square and the output.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# Kernels have no annotations: Triton reads those that it finds, and knows no typing.Any.

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_mambalrp.ops.triton_common import in_units, one_row, rows
from hf_mambalrp.rules import Rules

FORWARD_PER_WARP, BACKWARD_PER_WARP = 1024, 512
"""Channels of a row for each warp: 32 and 16 a thread."""


@triton.jit
def norm_forward(x, weight, y, normaliser, x_row, width, eps, BLOCK: tl.constexpr, UNIT: tl.constexpr):
    """y = x r w with r = rsqrt(mean(x^2) + eps)."""
    row, e = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = e < width
    value = tl.load(x + row * x_row * UNIT + e, inside, 0.0).to(tl.float32)
    w = tl.load(weight + e, inside, 0.0).to(tl.float32)
    r = tl.rsqrt(tl.sum(value * value, 0) / width + eps)
    tl.store(normaliser + row, r)
    tl.store(y + row * width + e, (value * r * w).to(y.dtype.element_ty), inside)


@triton.jit
def norm_backward(gy, normaliser, weight, gx, gy_row, width, BLOCK: tl.constexpr, UNIT: tl.constexpr):
    """gx = gy r w."""
    row, e = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = e < width
    g = tl.load(gy + row * gy_row * UNIT + e, inside, 0.0).to(tl.float32)
    g *= tl.load(normaliser + row) * tl.load(weight + e, inside, 0.0).to(tl.float32)
    tl.store(gx + row * width + e, g.to(gx.dtype.element_ty), inside)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype) -> Tensor:
        weight, flat = weight.contiguous(), rows(x)
        count, width = flat.shape
        unit, (stride,) = in_units(flat.stride(0))
        y = torch.empty(x.shape, dtype=out_dtype, device=x.device)
        normaliser = torch.empty(count, dtype=torch.float32, device=x.device)
        if count:
            with torch.cuda.device_of(x):
                norm_forward[(count,)](
                    flat, weight, y, normaliser, stride, width, eps, UNIT=unit, **one_row(width, FORWARD_PER_WARP)
                )
        ctx.save_for_backward(normaliser, weight)
        ctx.dtype = x.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        normaliser, weight = ctx.saved_tensors
        flat = rows(gy)
        count, width = flat.shape
        unit, (stride,) = in_units(flat.stride(0))
        gx = torch.empty(gy.shape, dtype=ctx.dtype, device=gy.device)
        if count:
            with torch.cuda.device_of(gy):
                norm_backward[(count,)](
                    flat, normaliser, weight, gx, stride, width, UNIT=unit, **one_row(width, BACKWARD_PER_WARP)
                )
        return gx, None, None, None


def norm_triton(x: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype, rules: Rules) -> Tensor:
    """Same contract as :func:`norm_reference`; the normaliser is kept, one number a row."""
    y: Tensor = _Norm.apply(x, weight, eps, out_dtype)
    return y
