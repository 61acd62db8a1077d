"""Softmax attention as a map over positions: one matrix a head, rows of which sum to 1 (Vaswani et al. 2017)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_mambalrp.attention.mixing import CausalMixing, Gains
from hf_mambalrp.ops.attention import Scores, attention
from hf_mambalrp.ops.attention.reference import weights
from hf_mambalrp.rules import MAMBALRP, NO_RULES
from hf_mambalrp.rules.biases import BiasLedger


@dataclass(frozen=True)
class SoftmaxMixing(CausalMixing):
    """o = gate A v, A constant; the channels of a head share their A."""

    x: Tensor
    """(B, L, E) values, E = H P, those of a key repeated for every head that shares it."""
    q: Tensor
    """(B, L, H, P) queries as the scores read them."""
    k: Tensor
    """(B, L, K, P) keys."""
    scores: Scores
    gate: Tensor | None
    """(B, L, E), a factor of what is mixed; None where there is none."""
    out: Callable[[Tensor], Tensor]

    @property
    def matrices(self) -> int:
        """H."""
        return self.q.shape[2]

    def alpha(self, rows: range) -> Tensor:
        """A for the queries in ``rows``. Shape: (B, H, R, keys up to the last query)."""
        return weights(
            self.q[:, rows.start : rows.stop], self.k[:, : rows.stop], range(rows.stop), self.scores, NO_RULES
        )

    def mean(self, rows: range, gains: Gains | None) -> Tensor:
        """The mean over channels for the queries in ``rows``. Shape: (B, R, keys up to the last query)."""
        alpha = self.alpha(rows)
        if gains is None or self.gate is None:
            return alpha.mean(1)
        of_heads = gains.queries[:, rows.start : rows.stop].unflatten(-1, (self.matrices, -1)).mean(-1)
        return torch.einsum("bhij,bih->bij", alpha, of_heads) / self.matrices

    def mean_elements(self) -> int:
        """B L H: every head is held."""
        return self.q.numel() // self.q.shape[3]

    def scanned(self, u: Tensor) -> Tensor:
        """A u for one channel a head. Shape: (B, L, H) -> (B, L, H)."""
        heads = self.matrices
        q, k = self.q, self.k.repeat_interleave(heads // self.k.shape[2], 2)
        # As wide as keys are, as kernels want it: u in the first dimension.
        v = torch.cat([u[..., None], u.new_zeros(*u.shape, k.shape[3] - 1)], -1)
        o = attention(q, k, v, None, self.scores, rules=MAMBALRP, ledger=BiasLedger(len(u)))
        return o[..., 0]

    def gains(self, mask: Tensor | None) -> Gains:
        """The gate, and nothing at the keys."""
        ones = torch.ones_like(self.x)
        taps = ones.new_ones(ones.shape[2], 1)
        return Gains(ones if self.gate is None else self.gate, ones if mask is None else ones * mask, taps)
