"""Hidden attention of the real-gated linear recurrent unit (De et al. 2024).

For channel d, query i and key j <= i, with a the decays, m = sqrt(1 - a^2), 1 at the first position, and i the gate,

    alpha_ij = (product over k = j + 1 .. i of a_k) m_j i_j,

which is that of the selective scan with one state, dt = -log a, A = -1 and B = C = 1, but for the factor m_j i_j in the
place of dt_j.
"""

from dataclasses import dataclass

from torch import Tensor

from hf_mambalrp.attention.mixing import Gains
from hf_mambalrp.attention.selective import SelectiveMixing


@dataclass(frozen=True)
class RGLRUMixing(SelectiveMixing):
    """Griffin's recurrent block: every channel has its alpha; its convolution has no activation."""

    weight: Tensor
    """(B, L, E) m i."""

    @property
    def written(self) -> Tensor:
        """m i."""
        return self.weight

    def scanned(self, u: Tensor) -> Tensor:
        """Alpha u. Shape: (B, L, E) -> (B, L, E)."""
        return super().scanned(self.weight / self.dt * u)

    def gains(self, mask: Tensor | None) -> Gains:
        """The gate, nothing at the keys, the convolution's taps."""
        keys = self.weight.new_ones(self.weight.shape)
        return Gains(self.scale, keys if mask is None else keys * mask, self.taps)
