"""What the projections of a delta net make of the stream, in the three ways that models have them.

Glossary: B batch, L length, H heads of values, P their width, G heads of queries and keys, N their width.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts.reading import in_turn
from hf_mambalrp.rules.linear import linear, linear_parts


class Signals(NamedTuple):
    """What the projections make of the normed stream."""

    qk: Tensor
    """(B, L, 2 G N), before the convolution."""
    v: Tensor
    """(B, L, H P), likewise."""
    z: Tensor
    """(B, L, H P), the gate."""
    beta: Tensor
    """(B, L, H), before the sigmoid."""
    decay: Tensor
    """(B, L, H), or (B, L, H N), before softplus and bias."""


def projected(m: Any, decays_of: Any, sizes: tuple[int, int, int], x: Tensor, step: Step) -> Signals:
    """Qwen3-Next's two projections, Qwen3.5's four, or one for each signal.

    Args:
        m: the mixer.
        decays_of: what holds the projection of the decay, where it is not in one with another.
        sizes: H P, G and N.
        x: the normed stream, zero on padding.
        step: the step.
    """
    inner, groups, N = sizes
    ledger, gamma = step.ledger, step.rules.gamma_of("linear")
    if hasattr(m, "in_proj_qkvz"):
        by_group = linear(m.in_proj_qkvz, x, ledger, gamma).unflatten(-1, (groups, -1))
        q, k, v, z = (part.flatten(2) for part in by_group.split([N, N, inner // groups, inner // groups], -1))
        beta, decay = linear(m.in_proj_ba, x, ledger).unflatten(-1, (groups, -1)).chunk(2, -1)
        qk = torch.cat([q.detach(), k.detach()] if step.rules.ssm else [q, k], -1)
        return Signals(qk, v, z, beta.flatten(2), decay.flatten(2))
    if hasattr(m, "in_proj_qkv"):
        qk, v = linear_parts(m.in_proj_qkv, x, [2 * groups * N, inner], ledger, gamma)
        z, beta, decay = (linear(layer, x, ledger, gamma) for layer in (m.in_proj_z, m.in_proj_b, m.in_proj_a))
        return Signals(qk, v, z, beta, decay)
    q, k, v, beta = (linear(layer, x, ledger, gamma) for layer in (m.q_proj, m.k_proj, m.v_proj, m.b_proj))
    gates = (m.g_proj,) if hasattr(m, "g_proj") else (m.g_a_proj, m.g_b_proj)
    decays: tuple[Any, ...]
    if hasattr(m, "a_proj"):
        decays = (m.a_proj,)
    elif hasattr(decays_of, "f_proj"):
        decays = (decays_of.f_proj,)
    else:
        decays = (decays_of.f_a_proj, decays_of.f_b_proj)
    return Signals(torch.cat([q, k], -1), v, in_turn(gates, x, step), beta, in_turn(decays, x, step))
