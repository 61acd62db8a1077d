"""RMSNorm as it is defined, differentiated by autograd: for reading and tests."""

import torch
from torch import Tensor

from hf_mambalrp.rules import Rules


def norm_reference(x: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype, rules: Rules) -> Tensor:
    """y = x [rsqrt(mean(x^2) + eps)] w over the last dimension; arguments as in :func:`norm`."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    normaliser = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (wide * (normaliser.detach() if rules.norm else normaliser) * weight.detach().to(wide.dtype)).to(out_dtype)


def norm_of_sum_reference(
    x: Tensor, added: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype, rules: Rules
) -> tuple[Tensor, Tensor]:
    """h = x + added, and norm(h); arguments as in :func:`norm_of_sum`."""
    h = x + added
    return h, norm_reference(h, weight, eps, out_dtype, rules)
