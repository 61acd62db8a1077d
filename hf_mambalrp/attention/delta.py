"""Hidden attention of a gated delta net, whose transitions are products of Householder-like factors.

For every head, with D_m the decays and k_m, beta_m and q_i constant,

    alpha_ij = beta_j k_j^T [ prod over m = j + 1 .. i of D_m (I - beta_m k_m k_m^T) ] q_i,

signed; the channels of a head share it. A row is what the transposed scan makes of a 1 at position i, so that rows come
without any other, in time linear in the length, and no product of factors is formed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_mambalrp.attention.mixing import Gains, ScanMixing
from hf_mambalrp.attention.ssd import mean_of_heads
from hf_mambalrp.ops.delta_scan import delta_scan


@dataclass(frozen=True)
class DeltaMixing(ScanMixing):
    """A gated delta net: E = H P channels in heads that share alpha, groups G of heads that share q and k."""

    q: Tensor
    """(B, L, G, N)."""
    k: Tensor
    """(B, L, G, N)."""
    log_decay: Tensor
    """(B, L, H), or (B, L, H, N)."""
    beta: Tensor
    """(B, L, H)."""

    @property
    def matrices(self) -> int:
        """H."""
        return self.beta.shape[2]

    def alpha(self, rows: range) -> Tensor:
        """Alpha for the queries in ``rows``. Shape: (B, H, R, keys up to the last query)."""
        at = torch.arange(rows.stop, device=self.q.device)[:, None] == torch.tensor(rows, device=self.q.device)
        one = at.to(self.beta)[None, :, None].expand(len(self.q), -1, self.matrices, -1)  # a channel of v for each row
        with torch.enable_grad():
            v = torch.zeros_like(one).requires_grad_()
            (found,) = torch.autograd.grad(self._scanned(v), v, one)
        return found.permute(0, 2, 3, 1)

    def mean(self, rows: range, gains: Gains | None) -> Tensor:
        """The mean over channels for the queries in ``rows``. Shape: (B, R, keys up to the last query)."""
        return mean_of_heads(self.alpha(rows), rows, gains)

    def mean_elements(self) -> int:
        """B L H: every head is held."""
        return self.beta.numel()

    def scanned(self, u: Tensor) -> Tensor:
        """Alpha u for one channel a head. Shape: (B, L, H) -> (B, L, H)."""
        return self._scanned(u[..., None])[..., 0]

    def _scanned(self, v: Tensor) -> Tensor:
        parameters = (x[:, : v.shape[1]] for x in (self.q, self.k, self.log_decay, self.beta))
        return delta_scan(v, *parameters)[0]
