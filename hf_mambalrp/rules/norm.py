"""RMSNorm with the normaliser constant (the LN-rule of Ali et al. 2022): plain, gated by groups, without weights."""

from typing import Any, Protocol

import torch
from torch import Tensor

from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.gate import gate


class RMSNorm(Protocol):
    """A norm as transformers writes it."""

    weight: Tensor
    """(D,)."""
    variance_epsilon: float


class _ScaledByConstant(torch.autograd.Function):
    """x * scale with the scale constant: keeps one number a token and the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, normaliser: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(normaliser, weight)
        return (x * normaliser).mul_(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        normaliser, weight = ctx.saved_tensors
        return (grad * normaliser).mul_(weight), None, None


def rms_norm(module: RMSNorm, x: Tensor, rules: Rules) -> Tensor:
    """x * [rsqrt(mean(x^2) + eps)] * w, the bracket constant under the norm rule. Shape: (..., D) -> (..., D)."""
    return _weighted(x, constant(module.weight, x.dtype), module.variance_epsilon, rules)


def gated_rms_norm(module: RMSNorm, y: Tensor, z: Tensor, rules: Rules) -> Tensor:
    """RMSNorm of p = y * silu(z), each group by itself: the half rule for p, then the norm rule per group.

    The groups are the module's own ``group_size``; releases of transformers without it normalise the whole width.
    Shape: (..., E) -> (..., E).
    """
    p, weight = gate(y, z, rules), constant(module.weight, y.dtype)
    groups = (-1, getattr(module, "group_size", None) or len(weight))
    normed = _weighted(p.unflatten(-1, groups), weight.unflatten(0, groups), module.variance_epsilon, rules)
    return normed.flatten(-2)


def weightless_rms_norm(x: Tensor, eps: float, rules: Rules) -> Tensor:
    """x * [rsqrt(mean(x^2) + eps)], the bracket constant under the norm rule. Shape: (..., F) -> (..., F)."""
    return x * _normaliser(x, eps, rules)


def _normaliser(x: Tensor, eps: float, rules: Rules) -> Tensor:
    seen = x.detach() if rules.norm else x
    return torch.rsqrt(seen.pow(2).mean(-1, keepdim=True) + eps)


def _weighted(x: Tensor, weight: Tensor, eps: float, rules: Rules) -> Tensor:
    normaliser = _normaliser(x, eps, rules)
    if rules.norm:
        y: Tensor = _ScaledByConstant.apply(x, normaliser, weight)
        return y
    return x * normaliser * weight
