"""Gates: y * f(z), f an activation, and y * z, with the half rule; y * sigmoid(z), whose signal takes all."""

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
        return half * to_y, half.mul_(to_z), None


def gate(y: Tensor, z: Tensor, rules: Rules, factor: Factor = torch.sigmoid) -> Tensor:
    """p = y * f(z), f(z) = z factor(z), SiLU by default; under the half rule p / 2 + [p / 2], the bracket constant."""
    if rules.gate and rules.silu:
        gated: Tensor = _HalfGate.apply(y, z, factor)
        return gated
    product = y * activation(z, rules, factor)
    return product / 2 + (product / 2).detach() if rules.gate else product


class _HalfProduct(torch.autograd.Function):
    """p = y * z under the half rule: dp/dy = z / 2 and dp/dz = y / 2."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, z: Tensor) -> Tensor:
        ctx.save_for_backward(y, z)
        return y * z

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        y, z = ctx.saved_tensors
        half = grad / 2
        return half * z, half.mul_(y)


def product(y: Tensor, z: Tensor, rules: Rules) -> Tensor:
    """p = y * z of two signals; under the half rule p / 2 + [p / 2], the bracket constant."""
    p: Tensor = _HalfProduct.apply(y, z) if rules.gate else y * z
    return p


def sigmoid_gate(y: Tensor, z: Tensor, rules: Rules) -> Tensor:
    """p = y * [sigmoid(z)], the bracket constant under the rule of gates: the signal takes all (Arras et al. 2017).

    That all of R(p) = p dp goes to y conserves it, y (sigmoid(z) dp) = R(p), and p is homogeneous of degree 1 in y. No
    half can go to z: sigmoid(0) is not 0, so z has no factor to be multiplied with, and a half would divide by z. This
    use of the rule, for gates behind attention and delta nets and for shared experts, is this project's own.
    """
    return y * torch.sigmoid(z.detach() if rules.gate else z)
