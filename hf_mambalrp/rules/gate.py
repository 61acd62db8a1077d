"""The multiplicative gate y * f(z), f an activation, with the half rule."""

from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.activation import Factor, activation


class _HalfGate(torch.autograd.Function):
    """p = y * f(z) under the half rule on the product and the identity rule on f(z) = z * [factor(z)].

    dp/dy = f(z) / 2 and dp/dz = y factor(z) / 2: two tensors are kept.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, z: Tensor, factor: Factor) -> Tensor:
        bracket = factor(z)
        to_y, to_z = z * bracket, bracket.mul_(y)
        ctx.save_for_backward(to_y, to_z)
        return y * to_y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        to_y, to_z = ctx.saved_tensors
        half = grad / 2
        return half * to_y, half * to_z, None


def gate(y: Tensor, z: Tensor, rules: Rules, factor: Factor = torch.sigmoid) -> Tensor:
    """p = y * f(z), f(z) = z factor(z), SiLU by default; under the half rule p / 2 + [p / 2], the bracket constant."""
    if rules.gate and rules.silu:
        gated: Tensor = _HalfGate.apply(y, z, factor)
        return gated
    product = y * activation(z, rules, factor)
    return product / 2 + (product / 2).detach() if rules.gate else product
