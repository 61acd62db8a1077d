"""The transformer block that Zamba's layers share: it reads the embeddings too (Glorioso et al. 2024, section 2)."""

from typing import Any

import torch
from torch import Tensor, nn

from hf_mambalrp.attention import SoftmaxMixing
from hf_mambalrp.families.base import Step, tapped
from hf_mambalrp.families.parts.attention import Attention, Past
from hf_mambalrp.families.parts.mlp import GatedMLP
from hf_mambalrp.families.parts.norm import RMSNorm
from hf_mambalrp.ops.attention.dispatch import BACKENDS
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.linear import linear


class SharedBlock:
    """``linear``(mlp(norm(attention(norm([h, e]))))), h the stream and e the embeddings.

    Args:
        module: the block, with ``input_layernorm`` and ``pre_ff_layernorm``.
        attention: its attention.
        mlp: its MLP.
        out: the linear layer behind it, a layer's own.
    """

    kind, mixes = "shared block", "attention"
    backends = tuple(BACKENDS)
    causal = appends = recordable = True

    def __init__(self, module: Any, attention: Attention, mlp: GatedMLP, out: nn.Module) -> None:
        self.module, self.attention, self.mlp, self.out = module, attention, mlp, out
        self.norms = RMSNorm(module.input_layernorm), RMSNorm(module.pre_ff_layernorm)
        self.state = attention.state

    def kept(self, rules: Rules) -> int:
        """What attention and MLP keep."""
        return self.attention.kept(rules) + self.mlp.kept(rules)

    def __call__(self, x: Tensor, state: Past, step: Step) -> tuple[Tensor, Past]:
        """(B, L, D) -> (B, L, D)."""
        mixed, state = self.attention(self._beside(x, step), state, step)
        mixed = tapped(step, self.mixes, mixed, output=True)  # here, and not behind the MLP, it is what is mixed
        y, _ = self.mlp(self.norms[1](mixed, step), (), step)
        return linear(self.out, y, step.ledger, step.rules.gamma_of("linear")), state

    def mixing(self, x: Tensor, step: Step) -> SoftmaxMixing:
        """Its attention's."""
        return self.attention.mixing(self._beside(x, step), step)

    def _beside(self, x: Tensor, step: Step) -> Tensor:
        assert step.embeddings is not None
        return self.norms[0](torch.cat([x, step.embeddings.to(x)], -1), step)
