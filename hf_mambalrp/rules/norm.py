"""RMSNorm with the normaliser constant (the LN-rule of Ali et al. 2022): with a weight and without; and the L2 norm."""

from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.rules import Rules


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


def rms_norm(x: Tensor, weight: Tensor, eps: float, rules: Rules) -> Tensor:
    """x * [rsqrt(mean(x^2) + eps)] * w, the bracket constant under the norm rule. Shape: (..., D) -> (..., D)."""
    normaliser = _normaliser(x, eps, rules)
    if rules.norm:
        y: Tensor = _ScaledByConstant.apply(x, normaliser, weight)
        return y
    return x * normaliser * weight


def weightless_rms_norm(x: Tensor, eps: float, rules: Rules) -> Tensor:
    """x * [rsqrt(mean(x^2) + eps)], the bracket constant under the norm rule. Shape: (..., F) -> (..., F)."""
    return x * _normaliser(x, eps, rules)


def l2_norm(x: Tensor, eps: float, rules: Rules) -> Tensor:
    """x * [rsqrt(sum(x^2) + eps)], the bracket constant under the norm rule. Shape: (..., F) -> (..., F)."""
    seen = x.detach() if rules.norm else x
    return x * torch.rsqrt(seen.pow(2).sum(-1, keepdim=True) + eps)


def _normaliser(x: Tensor, eps: float, rules: Rules) -> Tensor:
    seen = x.detach() if rules.norm else x
    return torch.rsqrt(seen.pow(2).mean(-1, keepdim=True) + eps)
