"""Hidden attention of Mamba-2, whose decay is one number a head (Dao and Gu 2024, section 5).

alpha_ij = (C_i . B_j) exp(A (S_i - S_j)) dt_j for every head, with S the sum of dt up to a position; the channels of a
head share it.
"""

import torch
from torch import Tensor

from hf_mambalrp.attention.unified import Gains
from hf_mambalrp.rules.mixer import Signals


def every_head(s: Signals, rows: range) -> Tensor:
    """alpha for the queries in ``rows``. Shape: (B, H, R, keys up to the last query)."""
    at, keys = slice(rows.start, rows.stop), slice(rows.stop)
    sums = (s.dt.double() * s.A.double()).cumsum(1).transpose(1, 2)  # (B, H, L)
    decay = (sums[..., at, None] - sums[..., None, keys]).to(s.dt.dtype)
    steps = torch.arange(rows.stop, device=s.dt.device)
    decay = decay.masked_fill_(steps[at, None] < steps, -torch.inf).exp_()
    scores = torch.einsum("bign,bjgn->bgij", s.C[:, at], s.B[:, keys])
    alpha: Tensor = (decay.unflatten(1, (scores.shape[1], -1)) * scores[:, :, None]).flatten(1, 2)  # (G, H / G) heads
    return alpha.mul_(s.dt[:, keys].transpose(1, 2)[:, :, None])


def mean_of_heads(s: Signals, rows: range, gains: Gains | None) -> Tensor:
    """The mean over channels for the queries in ``rows``. Shape: (B, R, keys up to the last query)."""
    alpha = every_head(s, rows)
    if gains is None:
        return alpha.mean(1)
    heads = (alpha.shape[1], -1)
    queries = gains.queries[:, rows.start : rows.stop].unflatten(-1, heads)
    keys, taps = gains.keys[:, : rows.stop].unflatten(-1, heads), gains.taps.unflatten(0, heads)
    mean = torch.zeros_like(alpha[:, 0])
    for k in range(taps.shape[-1]):
        back = taps.shape[-1] - 1 - k  # tap k reads `back` positions earlier
        gain = torch.einsum("bihp,bjhp->bhij", queries * taps[..., k], keys)
        mean[..., : max(0, rows.stop - back)] += (alpha * gain).sum(1)[..., back:]
    return mean / gains.queries.shape[-1]
