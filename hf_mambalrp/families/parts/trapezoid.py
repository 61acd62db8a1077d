"""What Mamba-3 selects with: decays and weights of the trapezoid, keys and queries turned as by RoPE.

Glossary as in :mod:`hf_mambalrp.families.parts.mamba3`.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp.families.parts.reading import SLOWEST, wide
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.norm import rms_norm
from hf_mambalrp.rules.offload import loaded


class Selected(NamedTuple):
    """What the projections other than x and z make of a chunk."""

    q: Tensor
    """(B, L, H, N), turned."""
    k: Tensor
    """(B, L, H, N), turned."""
    log_decay: Tensor
    """-A dt, (B, L, H)."""
    weight: Tensor
    """w, (B, L, H); at the last position without what the next chunk adds."""
    later: Tensor
    """(1 - l_{t+1}) dt_{t+1} (q_t . k_t), (B, L, H): what w adds to a position's reading of itself too much."""
    before: Tensor
    """(1 - l) dt of the first position, (B, H)."""
    angle: Tensor
    """(B, H, R) at the last position."""


class Trapezoid:
    """From the projections B, C, dt, A, l and angles to what multiplies x."""

    def __init__(self, module: Any, heads: int, states: int, groups: int) -> None:
        self.module, self.heads, self.states, self.groups = module, heads, states, groups

    def __call__(self, projected: list[Tensor], angle: Tensor, rules: Rules) -> Selected:
        """Of a chunk; ``angle`` (B, H, R) is the sum of the angles before it."""
        B, C, dt, A, trap, angles = (one.to(wide(one.dtype)) for one in projected)
        dt = F.softplus(dt + self.parameter("dt_bias", dt.dtype))
        log_decay = (F.softplus(A).clamp_min(self.module.A_floor) * dt).clamp_min(SLOWEST)
        k, q = (self._of_heads(one, name, rules) for one, name in ((B, "B"), (C, "C")))
        later = dt * torch.sigmoid(-trap)  # 1 - l
        shifted = F.pad(later[:, 1:], (0, 0, 0, 1))
        steps = (math.pi * torch.tanh(angles)[:, :, None] * dt[..., None]).double().cumsum(1)
        turns = (angle[:, None].double() + steps).remainder(2 * math.pi).to(dt.dtype)
        weight = dt * torch.sigmoid(trap) + shifted
        k_turned, q_turned = _turned(k, turns), _turned(q, turns)
        return Selected(q_turned, k_turned, log_decay, weight, shifted * (q * k).sum(-1), later[:, 0], turns[:, -1])

    def _of_heads(self, x: Tensor, name: str, rules: Rules) -> Tensor:
        """norm(x) + bias of every head. Shape: (B, L, G N) -> (B, L, H, N)."""
        norm = getattr(self.module, f"{name}_norm")
        with loaded(norm):
            weight = constant(norm.weight, x.dtype)
        normed = rms_norm(x.unflatten(-1, (self.groups, -1)), weight, norm.eps, rules)
        return normed.repeat_interleave(self.heads // self.groups, 2) + self.parameter(f"{name}_bias", x.dtype)[:, 0]

    def parameter(self, name: str, dtype: torch.dtype) -> Tensor:
        """One of the module's own."""
        with loaded(self.module):
            return constant(getattr(self.module, name), dtype)


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    """The first R pairs of neighbours of x (B, L, H, N), turned by angles (B, L, H, R)."""
    pairs, rest = x.split([2 * angles.shape[-1], x.shape[-1] - 2 * angles.shape[-1]], -1)
    a, b = pairs.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2), rest], -1)
