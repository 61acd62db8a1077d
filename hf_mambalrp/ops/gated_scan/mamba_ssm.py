"""The gated selective scan by the forward kernel of the package mamba_ssm, with our transposed scan as its backward."""

from typing import Any

import torch
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_mambalrp.ops.gated_scan.triton import gated_scan_backward


class _GatedScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        z: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor,
        bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        channels_first = (value.transpose(1, 2).contiguous() for value in (u, delta, B, C))
        inputs, steps, B_first, C_first = channels_first
        y, last = selective_scan_fn(
            inputs, steps, A, B_first, C_first, D, delta_bias=bias, delta_softplus=True, return_last_state=True
        )
        y = y.transpose(1, 2).contiguous()
        ctx.save_for_backward(delta, z, y, A, B, C, D, bias)
        ctx.set_materialize_grads(False)
        return y * torch.nn.functional.silu(z), last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None, G_last: Tensor | None) -> tuple[Tensor | None, ...]:
        delta, z, y, *parameters = ctx.saved_tensors
        g = torch.zeros_like(y) if g is None else g
        gu, gz, _ = gated_scan_backward(g, G_last, delta, z, y, *parameters)
        return gu, gz, *[None] * (1 + len(parameters))


def gated_scan_mamba_ssm(
    u: Tensor,
    delta: Tensor,
    z: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    bias: Tensor,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`gated_scan_reference` for an initial state of zero, which has no gradient."""
    constants = (value.detach() for value in (delta, A, B, C, D, bias))
    result: tuple[Tensor, Tensor] = _GatedScan.apply(u, z, *constants)
    return result
