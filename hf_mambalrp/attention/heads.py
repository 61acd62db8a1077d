"""A mixer whose channels select in heads, each by itself: their attention side by side."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_mambalrp.attention.mixing import CausalMixing, Gains, ScanMixing


@dataclass(frozen=True)
class HeadsMixing(CausalMixing):
    """Heads of equally many channels, one behind the other."""

    x: Tensor
    out: Callable[[Tensor], Tensor]
    heads: tuple[ScanMixing, ...]

    @property
    def matrices(self) -> int:
        """E: every channel has its own."""
        return sum(head.matrices for head in self.heads)

    def alpha(self, rows: range) -> Tensor:
        """Alpha for the queries in ``rows``. Shape: (B, E, R, keys up to the last query)."""
        return torch.cat([head.alpha(rows) for head in self.heads], 1)

    def mean(self, rows: range, gains: Gains | None) -> Tensor:
        """The mean over channels for the queries in ``rows``. Shape: (B, R, keys up to the last query)."""
        own = [None] * len(self.heads) if gains is None else self._split(gains)
        means = [head.mean(rows, part) for head, part in zip(self.heads, own, strict=True)]
        return torch.stack(means).mean(0)

    def mean_elements(self) -> int:
        """As much as a head."""
        return self.heads[0].mean_elements()

    def scanned(self, u: Tensor) -> Tensor:
        """Alpha u. Shape: (B, L, E) -> (B, L, E)."""
        parts = u.split([head.matrices for head in self.heads], -1)
        return torch.cat([head.scanned(part) for head, part in zip(self.heads, parts, strict=True)], -1)

    def gains(self, mask: Tensor | None) -> Gains:
        """Those of the heads."""
        queries, keys, taps = zip(*(head.gains(mask) for head in self.heads), strict=True)
        return Gains(torch.cat(queries, -1), torch.cat(keys, -1), torch.cat(taps))

    def _split(self, gains: Gains) -> list[Gains]:
        sizes = [head.matrices for head in self.heads]
        parts = gains.queries.split(sizes, -1), gains.keys.split(sizes, -1), gains.taps.split(sizes)
        return [Gains(*of_head) for of_head in zip(*parts, strict=True)]
