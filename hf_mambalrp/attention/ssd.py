"""Hidden attention of Mamba-2, whose decay is one number a head (Dao and Gu 2024, section 5).

alpha_ij = (C_i . B_j) exp(A (S_i - S_j)) dt_j for every head, with S the sum of dt up to a position; the channels of a
head share it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_mambalrp.attention.mixing import Gains, ScanMixing
from hf_mambalrp.ops.ssd_scan import ssd_scan


@dataclass(frozen=True)
class SSDMixing(ScanMixing):
    """Mamba-2's mixer: E = H P channels in heads that share alpha, groups G of heads that share B and C."""

    dt: Tensor
    """(B, L, H)."""
    A: Tensor
    """(H,) negative."""
    B: Tensor
    """(B, L, G, N)."""
    C: Tensor
    """(B, L, G, N)."""

    @property
    def matrices(self) -> int:
        """H."""
        return len(self.A)

    def alpha(self, rows: range) -> Tensor:
        """Alpha for the queries in ``rows``. Shape: (B, H, R, keys up to the last query)."""
        return _every_head(self, rows)

    def mean(self, rows: range, gains: Gains | None) -> Tensor:
        """The mean over channels for the queries in ``rows``. Shape: (B, R, keys up to the last query)."""
        return mean_of_heads(self.alpha(rows), rows, gains)

    def mean_elements(self) -> int:
        """B L H: every head is held."""
        return self.dt.numel()

    def scanned(self, u: Tensor) -> Tensor:
        """Alpha u for one channel a head. Shape: (B, L, H) -> (B, L, H)."""
        return ssd_scan(u[..., None], self.dt, self.A, self.B, self.C)[0][..., 0]


def _every_head(s: SSDMixing, rows: range) -> Tensor:
    """alpha for the queries in ``rows``. Shape: (B, H, R, keys up to the last query)."""
    at, keys = slice(rows.start, rows.stop), slice(rows.stop)
    sums = (s.dt.double() * s.A.double()).cumsum(1).transpose(1, 2)  # (B, H, L)
    decay = (sums[..., at, None] - sums[..., None, keys]).to(s.dt.dtype)
    steps = torch.arange(rows.stop, device=s.dt.device)
    decay = decay.masked_fill_(steps[at, None] < steps, -torch.inf).exp_()
    scores = torch.einsum("bign,bjgn->bgij", s.C[:, at], s.B[:, keys])
    alpha: Tensor = (decay.unflatten(1, (scores.shape[1], -1)) * scores[:, :, None]).flatten(1, 2)  # (G, H / G) heads
    return alpha.mul_(s.dt[:, keys].transpose(1, 2)[:, :, None])


def mean_of_heads(alpha: Tensor, rows: range, gains: Gains | None) -> Tensor:
    """The mean over channels, from alpha of every head. Shape: (B, H, R, keys) -> (B, R, keys)."""
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
