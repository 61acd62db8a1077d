"""The gated norm as it is defined, differentiated by autograd: for reading and tests."""

import torch
from torch import Tensor

from hf_mambalrp.rules import Rules


def gated_norm_reference(y: Tensor, z: Tensor, weight: Tensor, eps: float, group_size: int, rules: Rules) -> Tensor:
    """o = p [rsqrt(mean(p^2) + eps)] w per group, p = y z [sigmoid(z)]; arguments as in :func:`gated_norm`."""
    wide = torch.promote_types(y.dtype, torch.float32)
    gate = z.to(wide)
    sigmoid = torch.sigmoid(gate)
    p = y.to(wide) * gate * (sigmoid.detach() if rules.silu else sigmoid)
    p = (p / 2 + (p / 2).detach() if rules.gate else p).unflatten(-1, (-1, group_size))
    normaliser = torch.rsqrt(p.pow(2).mean(-1, keepdim=True) + eps)
    o = p * (normaliser.detach() if rules.norm else normaliser)
    normed: Tensor = o.flatten(-2) * weight.detach().to(wide)
    return normed.to(y.dtype)
