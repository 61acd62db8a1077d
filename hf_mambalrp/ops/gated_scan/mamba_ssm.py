"""The gated selective scan by the forward kernel of the package mamba_ssm, with our transposed scan as its backward."""

from functools import partial

import torch
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp.ops.gated_scan.triton import gated_scan_triton


def _forward(
    u: Tensor,
    delta: Tensor,
    z: Tensor,
    A_log: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    bias: Tensor,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """p, y and the last state, from a state of zero whatever ``initial_state`` is; their layout is channels-first."""
    A, D, bias = -torch.exp(A_log.float()), D.float(), bias.float()
    inputs, steps, B, C = (value.transpose(1, 2).contiguous() for value in (u, delta, B, C))
    y, last = selective_scan_fn(inputs, steps, A, B, C, D, delta_bias=bias, delta_softplus=True, return_last_state=True)
    y = y.transpose(1, 2).contiguous()
    return y * F.silu(z), y, last


gated_scan_mamba_ssm = partial(gated_scan_triton, kernel=_forward)
"""Same contract as :func:`gated_scan_reference` for an initial state of zero; needs a CUDA GPU."""
