"""What the kernels share: the sigmoid, and how tensors are seen by a kernel."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# Kernels have no annotations: Triton reads those that it finds, and knows no typing.Any.

from math import gcd

import triton
import triton.language as tl
from torch import Tensor

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)), exact at both ends: never a ratio of silu(x) and x."""
    return 1.0 / (1.0 + tl.exp2(-x * LOG2_E))


def rows(x: Tensor) -> Tensor:
    """(..., E) as (rows, E) with the last dimension contiguous: a view wherever one exists."""
    flat = x.reshape(-1, x.shape[-1])
    return flat if flat.stride(1) == 1 or flat.shape[1] == 1 else flat.contiguous()


def in_units(*strides: int) -> tuple[int, list[int]]:
    """What all strides are multiples of, at most 16, and each of them in it: what wide loads may rely on.

    By itself Triton sees only whether an argument is a multiple of 16, and the width of a projection is often one of 8.
    """
    unit = gcd(16, *strides)
    return unit, [stride // unit for stride in strides]


def one_row(width: int, per_warp: int) -> dict[str, int]:
    """Block and warps of a program that holds one row."""
    block = triton.next_power_of_2(width)
    return {"BLOCK": block, "num_warps": max(1, min(16, block // per_warp))}
