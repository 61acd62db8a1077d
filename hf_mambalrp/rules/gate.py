"""The multiplicative gate y * silu(z) with the half rule."""

from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.activation import silu


class _HalfGate(torch.autograd.Function):
    """p = y * silu(z) under the half rule on the product and the identity rule on silu(z) = z * [sigmoid(z)].

    dp/dy = silu(z) / 2 and dp/dz = y sigmoid(z) / 2: two tensors are kept.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, z: Tensor) -> Tensor:
        sigmoid = torch.sigmoid(z)
        to_y, to_z = z * sigmoid, sigmoid.mul_(y)
        ctx.save_for_backward(to_y, to_z)
        return y * to_y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        to_y, to_z = ctx.saved_tensors
        half = grad / 2
        return half * to_y, half * to_z


def gate(y: Tensor, z: Tensor, rules: Rules) -> Tensor:
    """p = y * silu(z); under the half rule p / 2 + [p / 2], the bracket constant."""
    if rules.gate and rules.silu:
        gated: Tensor = _HalfGate.apply(y, z)
        return gated
    product = y * silu(z, rules)
    return product / 2 + (product / 2).detach() if rules.gate else product
