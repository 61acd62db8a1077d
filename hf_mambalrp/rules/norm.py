"""RMSNorm with the normaliser constant (the LN-rule of Ali et al. 2022): with a weight and without; and the L2 norm."""

import torch
from torch import Tensor

from hf_mambalrp.rules import Rules


def rms_norm(x: Tensor, weight: Tensor, eps: float, rules: Rules) -> Tensor:
    """x * [rsqrt(mean(x^2) + eps)] * w, the bracket constant under the norm rule. Shape: (..., D) -> (..., D)."""
    return (x * _normaliser(x, eps, rules)).mul_(weight)


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
