"""RMSNorm with its normaliser constant, in one pass, and with what is added to a residual stream before it.

A program takes one row, which stays in registers between the sum, its mean square and the output.
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
def norm_forward(
    x, added, weight, h, y, normaliser, x_row, added_row, width, eps, BLOCK: tl.constexpr, UNIT: tl.constexpr
):
    """y = h r w with r = rsqrt(mean(h^2) + eps); h = x + added, or x where nothing is."""
    row, e = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = e < width
    value = tl.load(x + row * x_row * UNIT + e, inside, 0.0).to(tl.float32)
    if added is not None:
        value += tl.load(added + row * added_row * UNIT + e, inside, 0.0).to(tl.float32)
        tl.store(h + row * width + e, value, inside)
    w = tl.load(weight + e, inside, 0.0).to(tl.float32)
    r = tl.rsqrt(tl.sum(value * value, 0) / width + eps)
    tl.store(normaliser + row, r)
    tl.store(y + row * width + e, (value * r * w).to(y.dtype.element_ty), inside)


@triton.jit
def norm_backward(
    gy, gh, normaliser, weight, gx, g_added, gy_row, gh_row, width, BLOCK: tl.constexpr, UNIT: tl.constexpr
):
    """gx = gy r w, and where h leaves too, g_added = gx = gy r w + gh."""
    row, e = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = e < width
    g = tl.load(gy + row * gy_row * UNIT + e, inside, 0.0).to(tl.float32)
    g *= tl.load(normaliser + row) * tl.load(weight + e, inside, 0.0).to(tl.float32)
    if gh is not None:
        g += tl.load(gh + row * gh_row * UNIT + e, inside, 0.0).to(tl.float32)
        tl.store(g_added + row * width + e, g.to(g_added.dtype.element_ty), inside)
    tl.store(gx + row * width + e, g.to(gx.dtype.element_ty), inside)


def _forward(
    x: Tensor, added: Tensor | None, weight: Tensor, eps: float, out_dtype: torch.dtype
) -> tuple[Tensor | None, Tensor, Tensor]:
    """The sum where there is one, y, and the normaliser of every row."""
    flat, more = rows(x), None if added is None else rows(added)
    count, width = flat.shape
    unit, strides = in_units(flat.stride(0), 0 if more is None else more.stride(0))
    h = None if added is None else torch.empty(x.shape, dtype=x.dtype, device=x.device)
    y = torch.empty(x.shape, dtype=out_dtype, device=x.device)
    normaliser = torch.empty(count, dtype=torch.float32, device=x.device)
    if count:
        with torch.cuda.device_of(x):
            norm_forward[(count,)](
                flat, more, weight, h, y, normaliser, *strides, width, eps, UNIT=unit,
                **one_row(width, FORWARD_PER_WARP),
            )  # fmt: skip
    return h, y, normaliser


def _backward(
    gy: Tensor, gh: Tensor | None, normaliser: Tensor, weight: Tensor, dtype: torch.dtype, added: torch.dtype | None
) -> tuple[Tensor, Tensor | None]:
    """Gradients of x and of what was added to it, in these dtypes."""
    flat, past = rows(gy), None if gh is None else rows(gh)
    count, width = flat.shape
    unit, strides = in_units(flat.stride(0), 0 if past is None else past.stride(0))
    gx = torch.empty(gy.shape, dtype=dtype, device=gy.device)
    g_added = None if added is None else torch.empty(gy.shape, dtype=added, device=gy.device)
    if count:
        with torch.cuda.device_of(gy):
            norm_backward[(count,)](
                flat, past, normaliser, weight, gx, g_added, *strides, width, UNIT=unit,
                **one_row(width, BACKWARD_PER_WARP),
            )  # fmt: skip
    return gx, g_added


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype) -> Tensor:
        weight = weight.contiguous()
        _, y, normaliser = _forward(x, None, weight, eps, out_dtype)
        ctx.save_for_backward(normaliser, weight)
        ctx.dtype = x.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        normaliser, weight = ctx.saved_tensors
        return _backward(gy, None, normaliser, weight, ctx.dtype, None)[0], None, None, None


class _NormOfSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, added: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        weight = weight.contiguous()
        h, y, normaliser = _forward(x, added, weight, eps, out_dtype)
        assert h is not None
        ctx.save_for_backward(normaliser, weight)
        ctx.dtypes = x.dtype, added.dtype
        return h, y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gh: Tensor, gy: Tensor) -> tuple[Tensor | None, ...]:
        normaliser, weight = ctx.saved_tensors
        return *_backward(gy, gh, normaliser, weight, *ctx.dtypes), None, None, None


def norm_triton(x: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype, rules: Rules) -> Tensor:
    """Same contract as :func:`norm_reference`; the normaliser is kept, one number a row."""
    y: Tensor = _Norm.apply(x, weight, eps, out_dtype)
    return y


def norm_of_sum_triton(
    x: Tensor, added: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype, rules: Rules
) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`norm_of_sum_reference`, x being float32."""
    found: tuple[Tensor, Tensor] = _NormOfSum.apply(x, added, weight, eps, out_dtype)
    return found
