"""The gated norm in torch, by the rules' own functions."""

from torch import Tensor

from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.gate import gate
from hf_mambalrp.rules.norm import rms_norm


def gated_norm_chunked(y: Tensor, z: Tensor, weight: Tensor, eps: float, group_size: int, rules: Rules) -> Tensor:
    """Same contract as :func:`gated_norm_reference`."""
    groups = (-1, group_size)
    p = gate(y, z, rules).unflatten(-1, groups)
    return rms_norm(p, weight.unflatten(0, groups), eps, rules).flatten(-2)
