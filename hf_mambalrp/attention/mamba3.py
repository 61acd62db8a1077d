"""Hidden attention of Mamba-3 (Lahoti et al. 2026), whose scan is put together by what each position writes.

For every head, with w_j = l_j dt_j + (1 - l_{j+1}) dt_{j+1} and s the sum of A dt up to a position,

    alpha_ij = (q_i . k_j) exp(s_i - s_j) w_j for j < i,   alpha_ii = (q_i . k_i) l_i dt_i.

That is alpha of Mamba-2 for keys w k, but for its diagonal.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_mambalrp.attention.mixing import Gains
from hf_mambalrp.attention.ssd import SSDMixing


@dataclass(frozen=True)
class Mamba3Mixing(SSDMixing):
    """Mamba-3's mixer, which has no convolution."""

    later: Tensor
    """(B, L, H): what Mamba-2's diagonal has too much, (q_i . k_i) (1 - l_{i+1}) dt_{i+1}."""

    def alpha(self, rows: range) -> Tensor:
        """Alpha for the queries in ``rows``. Shape: (B, H, R, keys up to the last query)."""
        alpha = super().alpha(rows)
        alpha.diagonal(rows.start, 2, 3).sub_(self.later[:, rows.start : rows.stop].transpose(1, 2))
        return alpha

    def scanned(self, u: Tensor) -> Tensor:
        """Alpha u for one channel a head. Shape: (B, L, H) -> (B, L, H)."""
        return super().scanned(u) - self.later * u

    def gains(self, mask: Tensor | None) -> Gains:
        """The gate, and nothing at the keys."""
        keys = torch.ones_like(self.x)
        return Gains(self.scale, keys if mask is None else keys * mask, self.taps)
