"""RMSNorm with its normaliser constant, alone or with the residual sum before it, in one pass.

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

from hf_mambalrp.ops.fused.triton.common import in_units, one_row, rows

FORWARD_PER_WARP, BACKWARD_PER_WARP = 1024, 512
"""Channels of a row for each warp: 32 and 16 a thread."""


@triton.jit
def norm_forward(
    x, branch, weight, h, y, normaliser, x_row, branch_row, width, eps, BLOCK: tl.constexpr, UNIT: tl.constexpr
):
    """y = h r w with h = x + branch (or x) and r = rsqrt(mean(h^2) + eps)."""
    row, e = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = e < width
    value = tl.load(x + row * x_row * UNIT + e, inside, 0.0).to(tl.float32)
    if branch is not None:
        value += tl.load(branch + row * branch_row * UNIT + e, inside, 0.0).to(tl.float32)
        tl.store(h + row * width + e, value, inside)
    w = tl.load(weight + e, inside, 0.0).to(tl.float32)
    r = tl.rsqrt(tl.sum(value * value, 0) / width + eps)
    tl.store(normaliser + row, r)
    tl.store(y + row * width + e, (value * r * w).to(y.dtype.element_ty), inside)


@triton.jit
def norm_backward(
    gy, gh, normaliser, weight, gx, g_branch, gy_row, gh_row, width, BLOCK: tl.constexpr, UNIT: tl.constexpr
):
    """g = gh + gy r w, in the dtypes of both terms of the sum."""
    row, e = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = e < width
    g = tl.load(gy + row * gy_row * UNIT + e, inside, 0.0).to(tl.float32)
    g *= tl.load(normaliser + row) * tl.load(weight + e, inside, 0.0).to(tl.float32)
    if gh is not None:
        g += tl.load(gh + row * gh_row * UNIT + e, inside, 0.0).to(tl.float32)
    tl.store(gx + row * width + e, g.to(gx.dtype.element_ty), inside)
    if g_branch is not None:
        tl.store(g_branch + row * width + e, g.to(g_branch.dtype.element_ty), inside)


def _launch_forward(
    x: Tensor, branch: Tensor | None, weight: Tensor, eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """h (``x`` itself without a branch), y and the normaliser of every row."""
    flat, branch_flat = rows(x), None if branch is None else rows(branch)
    count, width = flat.shape
    unit, strides = in_units(flat.stride(0), width if branch_flat is None else branch_flat.stride(0))
    h = x if branch is None else torch.empty(x.shape, dtype=torch.float32, device=x.device)
    y = torch.empty(x.shape, dtype=out_dtype, device=x.device)
    normaliser = torch.empty(count, dtype=torch.float32, device=x.device)
    if count:
        with torch.cuda.device_of(x):
            norm_forward[(count,)](
                *(flat, branch_flat, weight, None if branch is None else h, y, normaliser),
                *(*strides, width, eps),
                UNIT=unit,
                **one_row(width, FORWARD_PER_WARP),
            )
    return h, y, normaliser


def _launch_backward(
    gy: Tensor, gh: Tensor | None, normaliser: Tensor, weight: Tensor, *dtypes: torch.dtype
) -> list[Tensor]:
    """g in each of one or two dtypes; the same tensor twice where they are equal."""
    gy_flat, gh_flat = rows(gy), None if gh is None else rows(gh)
    count, width = gy_flat.shape
    unit, strides = in_units(gy_flat.stride(0), width if gh_flat is None else gh_flat.stride(0))
    distinct = list(dict.fromkeys(dtypes))
    grads = [torch.empty(gy.shape, dtype=dtype, device=gy.device) for dtype in distinct]
    if count:
        with torch.cuda.device_of(gy):
            norm_backward[(count,)](
                *(gy_flat, gh_flat, normaliser, weight, grads[0], grads[1] if len(grads) > 1 else None),
                *(*strides, width),
                UNIT=unit,
                **one_row(width, BACKWARD_PER_WARP),
            )
    return [grads[distinct.index(dtype)] for dtype in dtypes]


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype) -> Tensor:
        weight = weight.contiguous()
        _, y, normaliser = _launch_forward(x, None, weight, eps, out_dtype)
        ctx.save_for_backward(normaliser, weight)
        ctx.dtype = x.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        (gx,) = _launch_backward(gy, None, *ctx.saved_tensors, ctx.dtype)
        return gx, None, None, None


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, residual: Tensor, branch: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        weight = weight.contiguous()
        h, y, normaliser = _launch_forward(residual, branch, weight, eps, out_dtype)
        ctx.save_for_backward(normaliser, weight)
        ctx.dtypes = residual.dtype, branch.dtype
        ctx.set_materialize_grads(False)
        return h, y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gh: Tensor | None, gy: Tensor | None) -> tuple[Tensor | None, ...]:
        if gy is None:  # the normed stream had no reader: only the sum is left
            return *(None if gh is None else gh.to(dtype) for dtype in ctx.dtypes), None, None, None
        g_residual, g_branch = _launch_backward(gy, gh, *ctx.saved_tensors, *ctx.dtypes)
        return g_residual, g_branch, None, None, None


def norm_triton(x: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype) -> Tensor:
    """Same contract as :func:`norm_reference`; the normaliser is kept, one number a row."""
    y: Tensor = _Norm.apply(x, weight, eps, out_dtype)
    return y


def add_norm_triton(
    residual: Tensor, branch: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`add_norm_reference`; the normaliser is kept, one number a row."""
    result: tuple[Tensor, Tensor] = _AddNorm.apply(residual, branch, weight, eps, out_dtype)
    return result
