"""The gated norm as it is defined, differentiated by autograd: for reading and tests."""

import torch
from torch import Tensor

from hf_mambalrp.rules import Rules


def gated_norm_reference(
    y: Tensor, z: Tensor, weight: Tensor, eps: float, group_size: int, skip: tuple[Tensor, Tensor] | None, rules: Rules
) -> Tensor:
    """o = p [rsqrt(mean(p^2) + eps)] w per group, p = (y + D x) z [sigmoid(z)]; arguments as in :func:`gated_norm`."""
    wide = torch.promote_types(y.dtype, torch.float32)
    total, gate = y.to(wide), z.to(wide)
    if skip is not None:
        x, D = skip
        total = total + x * D.detach().to(wide).repeat_interleave(y.shape[-1] // len(D))
    sigmoid = torch.sigmoid(gate)
    p = total * gate * (sigmoid.detach() if rules.silu else sigmoid)
    p = (p / 2 + (p / 2).detach() if rules.gate else p).unflatten(-1, (-1, group_size))
    normaliser = torch.rsqrt(p.pow(2).mean(-1, keepdim=True) + eps)
    o = p * (normaliser.detach() if rules.norm else normaliser)
    normed: Tensor = o.flatten(-2) * weight.detach().to(wide)
    return normed.to(y.dtype)
