"""The LRP rules, as modified gradients: every operation keeps its forward value, the backward sees the rule.

| rule set | norm | silu | ssm | gate | attention | source |
|---|---|---|---|---|---|---|
| MAMBALRP | yes | yes | yes | yes | cp | Rezaei Jafari et al. 2024, section 4 |
| LRP_LN | yes | no | no | no | gradient | the LN-rule baseline of the same paper |
| NO_RULES | no | no | no | no | gradient | gradient x input |

Linear layers, the depthwise convolution, residual sums and the D skip follow LRP-0, which as a modified gradient is
the plain gradient: they need no rule. Linear layers and the convolution may follow LRP-gamma instead
(:mod:`hf_mambalrp.rules.gamma`). What chooses experts is constant wherever what selects is (``ssm``). For attention see
:mod:`hf_mambalrp.rules.attention`.
"""

from dataclasses import dataclass

GAMMA_ON = ("conv1d", "linear")
"""What may follow LRP-gamma: the convolutions on the content path; the linear layers of the parts, not the head."""
ATTENTION_RULES = ("cp", "attnlrp")
"""Rules of softmax attention."""


@dataclass(frozen=True)
class Rules:
    """Which rules apply; an operation without its rule is differentiated as it is."""

    norm: bool
    """Normaliser constant: the denominator of RMSNorm is detached."""
    silu: bool
    """Identity: an activation f(x) = x * [f(x) / x] with the bracket detached, for SiLU the sigmoid."""
    ssm: bool
    """Constants: exp(dt A), dt B and C are detached, so the scan is linear in its input; so are experts' weights."""
    gate: bool
    """Half: of a product of two signals each gets half of the relevance."""
    attention: str = "gradient"
    """Of softmax attention: one of :data:`ATTENTION_RULES`, or "gradient" for none."""
    gamma: float = 0.0
    """Of LRP-gamma, on the operations named in ``gamma_on``; 0 is LRP-0."""
    gamma_on: frozenset[str] = frozenset()
    """Some of :data:`GAMMA_ON`."""

    @property
    def conserve(self) -> bool:
        """Whether only what the ledger records absorbs: additive biases, and under "attnlrp" the softmax."""
        return self.norm and self.silu and self.ssm and self.gate and self.attention in ATTENTION_RULES

    def gamma_of(self, operation: str) -> float:
        """Gamma of one of :data:`GAMMA_ON`; 0 where it follows LRP-0."""
        return self.gamma if operation in self.gamma_on else 0.0


MAMBALRP = Rules(norm=True, silu=True, ssm=True, gate=True, attention="cp")
LRP_LN = Rules(norm=True, silu=False, ssm=False, gate=False)
NO_RULES = Rules(norm=False, silu=False, ssm=False, gate=False)

__all__ = ["ATTENTION_RULES", "GAMMA_ON", "LRP_LN", "MAMBALRP", "NO_RULES", "Rules"]
