"""The gate y * silu(z) under the half rule and the identity rule, in one pass over blocks of rows and channels."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# Kernels have no annotations: Triton reads those that it finds, and knows no typing.Any.

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_mambalrp.ops.fused.triton.common import in_units, rows, sigmoid


class Tiling(NamedTuple):
    """The block of one program."""

    rows: int = 4
    block: int = 512
    """Channels."""
    warps: int = 4


FORWARD = Tiling()
BACKWARD = Tiling()


@triton.jit(do_not_specialize=["count"])
def gate_forward(y, z, p, y_row, z_row, count, width, ROWS: tl.constexpr, BLOCK: tl.constexpr, UNIT: tl.constexpr):
    """p = y z sigmoid(z)."""
    blocks = tl.cdiv(width, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    e = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = (row < count) & (e < width)
    y_value = tl.load(y + row * y_row * UNIT + e, inside, 0.0).to(tl.float32)
    z_value = tl.load(z + row * z_row * UNIT + e, inside, 0.0).to(tl.float32)
    out = y_value * z_value * sigmoid(z_value)
    tl.store(p + row * width + e, out.to(p.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["count"])
def gate_backward(
    gp, y, z, gy, gz, gp_row, y_row, z_row, count, width, ROWS: tl.constexpr, BLOCK: tl.constexpr, UNIT: tl.constexpr
):
    """gy = gp z sigmoid(z) / 2,  gz = gp y sigmoid(z) / 2."""
    blocks = tl.cdiv(width, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    e = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = (row < count) & (e < width)
    g = tl.load(gp + row * gp_row * UNIT + e, inside, 0.0).to(tl.float32)
    y_value = tl.load(y + row * y_row * UNIT + e, inside, 0.0).to(tl.float32)
    z_value = tl.load(z + row * z_row * UNIT + e, inside, 0.0).to(tl.float32)
    half = 0.5 * g * sigmoid(z_value)
    tl.store(gy + row * width + e, (half * z_value).to(gy.dtype.element_ty), inside)
    tl.store(gz + row * width + e, (half * y_value).to(gz.dtype.element_ty), inside)


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, z: Tensor) -> Tensor:
        ctx.save_for_backward(y, z)
        p = torch.empty(y.shape, dtype=y.dtype, device=y.device)
        _launch(gate_forward, FORWARD, (y, z), (p,))
        return p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gp: Tensor) -> tuple[Tensor, Tensor]:
        y, z = ctx.saved_tensors
        gy, gz = (torch.empty(kept.shape, dtype=kept.dtype, device=kept.device) for kept in (y, z))
        _launch(gate_backward, BACKWARD, (gp, y, z), (gy, gz))
        return gy, gz


def _launch(kernel: Any, tiling: Tiling, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
    flat = [rows(value) for value in inputs]
    (count, width), (unit, strides) = flat[0].shape, in_units(*(value.stride(0) for value in flat))
    if not count:
        return
    with torch.cuda.device_of(flat[0]):
        kernel[(triton.cdiv(count, tiling.rows) * triton.cdiv(width, tiling.block),)](
            *(*flat, *outputs, *strides, count, width),
            ROWS=tiling.rows,
            BLOCK=tiling.block,
            UNIT=unit,
            num_warps=tiling.warps,
        )


def gate_triton(y: Tensor, z: Tensor) -> Tensor:
    """Same contract as :func:`gate_reference`; y and z themselves are kept."""
    p: Tensor = _Gate.apply(y, z)
    return p
