"""What the kernels share: the sigmoid, sums of logarithms, and how tensors are seen by a kernel."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# Kernels have no annotations: Triton reads those that it finds, and knows no typing.Any.

from math import gcd

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = tl.constexpr(1.4426950408889634)


NOTHING = tl.constexpr(-256.0)
"""A log2 whose exp2 is 0 in float32: below it decays are all the same."""
GRID = tl.constexpr(2.0**-9)
"""128 multiples of it, none above 256, have an exact sum in float32."""


@triton.jit
def sums(logs):
    """Sums of log2 decays (Q, ...) up to each position and of all, each as an exact coarse part and a small rest.

    Differences of such sums keep their digits where the sums are large.
    """
    logs = tl.maximum(logs, NOTHING)
    coarse = tl.floor(logs / GRID + 0.5) * GRID
    rest = logs - coarse
    return tl.cumsum(coarse, 0), tl.cumsum(rest, 0), tl.sum(coarse, 0), tl.sum(rest, 0)


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


def processors(device: torch.device) -> int:
    """How many multiprocessors a device has; 1 of what is no GPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def with_unit_stride(value: Tensor) -> Tensor:
    """The same numbers with the last dimension contiguous."""
    return value if value.stride(-1) == 1 else value.contiguous()
