"""RMSNorm with the normaliser constant (the LN-rule of Ali et al. 2022)."""

from typing import Any, Protocol

import torch
from torch import Tensor

from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.constant import constant


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
    weight = constant(module.weight, x.dtype)
    seen = x.detach() if rules.norm else x
    normaliser = torch.rsqrt(seen.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)
    if rules.norm:
        y: Tensor = _ScaledByConstant.apply(x, normaliser, weight)
        return y
    return x * normaliser * weight
