"""A short convolution between two gates as a map over positions: alpha_ij is the tap that reads i - j back."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_mambalrp.attention.mixing import CausalMixing, Gains
from hf_mambalrp.ops.conv_silu.chunked import causal_convolution


@dataclass(frozen=True)
class ConvMixing(CausalMixing):
    """The input of ``out`` is C (alpha (B x)) beside the convolution's bias; every channel has its taps."""

    x: Tensor
    """(B, L, E) content."""
    out: Callable[[Tensor], Tensor]
    taps: Tensor
    """(E, K) of the convolution, the last for the position itself."""
    before: Tensor
    """(B, L, E) B, the gate before it; zero on padding."""
    behind: Tensor
    """(B, L, E) C, the gate behind it."""

    @property
    def matrices(self) -> int:
        """E."""
        return self.x.shape[2]

    def alpha(self, rows: range) -> Tensor:
        """Alpha for the queries in ``rows``. Shape: (B, E, R, keys up to the last query)."""
        return self._band(self.taps, rows).expand(len(self.x), -1, -1, -1)

    def mean(self, rows: range, gains: Gains | None) -> Tensor:
        """The mean over channels for the queries in ``rows``. Shape: (B, R, keys up to the last query)."""
        if gains is None:
            return self._band(self.taps.mean(0, keepdim=True), rows)[0].expand(len(self.x), -1, -1)
        mean = self.x.new_zeros(len(self.x), len(rows), rows.stop)
        for back in range(min(self.taps.shape[1], rows.stop)):
            first = max(rows.start, back)
            queries, keys = gains.queries[:, first : rows.stop], gains.keys[:, first - back : rows.stop - back]
            found = torch.einsum("bre,bre,e->br", queries, keys, self.taps[:, -1 - back]) / self.matrices
            mean[:, first - rows.start :].diagonal(first - back, 1, 2).copy_(found)
        return mean

    def mean_elements(self) -> int:
        """B L."""
        return self.x.shape[0] * self.x.shape[1]

    def scanned(self, u: Tensor) -> Tensor:
        """Alpha u. Shape: (B, L, E) -> (B, L, E)."""
        earlier = u.new_zeros(len(u), self.taps.shape[1] - 1, self.matrices)
        return causal_convolution(u, self.taps, None, earlier)

    def gains(self, mask: Tensor | None) -> Gains:
        """Both gates."""
        ones = self.taps.new_ones(self.matrices, 1)
        return Gains(self.behind, self.before if mask is None else self.before * mask, ones)

    def _band(self, taps: Tensor, rows: range) -> Tensor:
        """(1, channels, R, keys): taps on the diagonals."""
        band = taps.new_zeros(1, len(taps), len(rows), rows.stop)
        for back in range(min(taps.shape[1], rows.stop)):
            first = max(rows.start, back)
            diagonal = band[:, :, first - rows.start :].diagonal(first - back, 2, 3)
            diagonal.copy_(taps[None, :, -1 - back, None].expand_as(diagonal))
        return band
