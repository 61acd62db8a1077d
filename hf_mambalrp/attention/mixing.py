"""A part as a linear map over positions: what hidden attention, rollout, Mamba-Attribution and LaTIM read."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Gains(NamedTuple):
    """What stands around alpha in unified attention; see :mod:`hf_mambalrp.attention.unified`."""

    queries: Tensor
    """(B, L, E) scale."""
    keys: Tensor
    """(B, L, E) sigmoid(c), zero on padding."""
    taps: Tensor
    """(E, K) of the convolution."""


class Way(NamedTuple):
    """One causal map of a part: its matrix counts ``share`` times, and reads the positions backwards if ``reverse``."""

    mixing: "CausalMixing"
    reverse: bool = False
    share: float = 1.0


class Mixing(ABC):
    """A part as a linear map over positions: the sum of its ways."""

    x: Tensor
    """(B, L, E) what it mixes."""
    out: Callable[[Tensor], Tensor]
    """The projection of what is mixed, without its bias. Shape: (..., E) -> (..., D)."""

    @property
    @abstractmethod
    def ways(self) -> tuple[Way, ...]:
        """What it is the sum of."""


@dataclass(frozen=True)
class BothWaysMixing(Mixing):
    """A mixer of two directions; ``against`` is of the positions in reverse order."""

    x: Tensor
    out: Callable[[Tensor], Tensor]
    along: "CausalMixing"
    against: "CausalMixing"
    share: float

    @property
    def ways(self) -> tuple[Way, ...]:
        """Both."""
        return Way(self.along, False, self.share), Way(self.against, True, self.share)


class CausalMixing(Mixing):
    """A part as one causal map: lower-triangular matrices alpha over positions, one a channel or a head of channels.

    They mix ``x``, or what becomes of it position by position; for softmax attention alpha is A.
    """

    @property
    def ways(self) -> tuple[Way, ...]:
        """Itself."""
        return (Way(self),)

    @abstractmethod
    def alpha(self, rows: range) -> Tensor:
        """Alpha for the queries in ``rows``. Shape: (B, E or H, R, keys up to the last query)."""

    @abstractmethod
    def mean(self, rows: range, gains: Gains | None) -> Tensor:
        """The mean over channels of alpha, with ``gains`` of unified attention. Shape: (B, R, keys up to the last)."""

    @abstractmethod
    def mean_elements(self) -> int:
        """How many numbers :meth:`mean` holds for a row; 0 where it bounds its memory itself."""

    @abstractmethod
    def scanned(self, u: Tensor) -> Tensor:
        """Alpha u for one channel of each matrix. Shape: (B, L, E or H) -> (B, L, E or H)."""

    @property
    @abstractmethod
    def matrices(self) -> int:
        """E, or H where the channels of a head share one."""

    @abstractmethod
    def gains(self, mask: Tensor | None) -> Gains:
        """What unified attention multiplies alpha with; ``mask`` (B, L, 1) is zero on padding, or None."""

    def every_channel(self, rows: range) -> Tensor:
        """Alpha of each of the E channels. Shape: (B, E, R, keys up to the last query)."""
        alpha, inner = self.alpha(rows), self.x.shape[2]
        return alpha if alpha.shape[1] == inner else alpha.repeat_interleave(inner // alpha.shape[1], 1)

    def weighted_rows(self, weights: Tensor) -> Tensor:
        """sum_i weights_i mean_d alpha_ij, for every j, in time and memory linear in the length. (B, L) -> (B, L).

        alpha_ij = dy_i / du_j, so it is the vector-Jacobian product of y = alpha u at the weights in every channel.
        """
        with torch.enable_grad():
            u = self.x.new_zeros(*self.x.shape[:2], self.matrices).requires_grad_()
            y = self.scanned(u)
            (rows,) = torch.autograd.grad(y, u, weights.to(y)[..., None].expand_as(y).contiguous())
        return rows.mean(-1)


@dataclass(frozen=True)
class ScanMixing(CausalMixing):
    """A scan as a linear map of the convolution's input x, everything that multiplies x constant.

    The input of ``out`` is scale * (alpha u + D u) with u = c sigmoid(c) on tokens, 0 on padding, and c = taps * x +
    bias, the convolution.
    """

    x: Tensor
    """(B, L, E) input of the convolution."""
    c: Tensor
    """(B, L, E) its output."""
    u: Tensor
    """(B, L, E) input of the scan."""
    D: Tensor
    """(E,) the skip."""
    taps: Tensor
    """(E, K) of the convolution, the last for the position itself."""
    bias: Tensor
    """(E,) of the convolution; zeros where it has none."""
    scale: Tensor
    """(B, L, E) gate, and for Mamba-2 normaliser and weight of its norm."""
    out: Callable[[Tensor], Tensor]
    """The projection of what is mixed, without its bias. Shape: (..., E) -> (..., D)."""

    def gains(self, mask: Tensor | None) -> Gains:
        """Gate, sigmoid of the convolution's output, its taps."""
        sigmoid = torch.sigmoid(self.c)
        return Gains(self.scale, sigmoid if mask is None else sigmoid * mask, self.taps)
