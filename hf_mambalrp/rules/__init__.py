"""The LRP rules, as modified gradients: every operation keeps its forward value, the backward sees the rule.

| rule set | norm | silu | ssm | gate | source |
|---|---|---|---|---|---|
| MAMBALRP | yes | yes | yes | yes | Rezaei Jafari et al. 2024, section 4 |
| LRP_LN | yes | no | no | no | the LN-rule baseline of the same paper |
| NO_RULES | no | no | no | no | gradient x input |

Linear layers, the depthwise convolution, residual sums and the D skip follow LRP-0, which as a modified gradient is
the plain gradient: they need no rule.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """Which rules apply; an operation without its rule is differentiated as it is."""

    norm: bool
    """Normaliser constant: the denominator of RMSNorm is detached."""
    silu: bool
    """Identity: silu(x) = x * sigmoid(x) with the sigmoid detached."""
    ssm: bool
    """Constants: exp(dt A), dt B and C are detached, so the scan is linear in its input."""
    gate: bool
    """Half: of a product of two signals each gets half of the relevance."""

    @property
    def conserve(self) -> bool:
        """Whether every rewritten operation is homogeneous of degree 1, so that only additive biases absorb."""
        return self.norm and self.silu and self.ssm and self.gate


MAMBALRP = Rules(norm=True, silu=True, ssm=True, gate=True)
LRP_LN = Rules(norm=True, silu=False, ssm=False, gate=False)
NO_RULES = Rules(norm=False, silu=False, ssm=False, gate=False)

__all__ = ["LRP_LN", "MAMBALRP", "NO_RULES", "Rules"]
