"""The double-gated short convolution of LFM2 (Liquid AI 2025): what mixes positions is the convolution alone."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hf_mambalrp.attention import ConvMixing
from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts.convolution import carried, taps_of
from hf_mambalrp.families.parts.mlp import Positionwise
from hf_mambalrp.families.parts.reading import masked, reads, wide
from hf_mambalrp.ops.conv_silu.chunked import causal_convolution
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.gate import product
from hf_mambalrp.rules.linear import linear, linear_parts, linear_without_bias


class ConvState(NamedTuple):
    """What the part hands from one chunk of positions to the next."""

    conv: Tensor
    """(B, K - 1, D) inputs of the convolution before the chunk."""


class ShortConv:
    """``out_proj``(C * conv(B * x)), [B, C, x] = ``in_proj`` h: half rule for both products, LRP-0 for ``conv``.

    No activation stands in it, so that it is homogeneous of degree 1 in each of B, C and x, and with halves relevance
    is conserved: with p = B x and y = C c, R(C) = R(c) = R(y) / 2, R(p) = R(c) but for the bias of the convolution,
    R(B) = R(x) = R(p) / 2. The half rule is MambaLRP's; its use here is this project's own.
    """

    kind = mixes = "conv"
    backends = Positionwise.backends
    causal, appends, recordable = True, False, True

    def __init__(self, module: Any) -> None:
        self.module = reads(module, "in_proj", "conv", "out_proj")
        self.width = int(self.module.conv.weight.shape[0])

    def state(self, batch: int, like: Tensor) -> ConvState:
        """Zeros."""
        return ConvState(like.new_zeros(batch, self.module.conv.weight.shape[-1] - 1, self.width))

    def kept(self, rules: Rules) -> int:
        """Both factors of both products; without the rules more."""
        return (4 if rules.gate else 6) * self.width

    def __call__(self, x: Tensor, state: ConvState, step: Step) -> tuple[Tensor, ConvState]:
        """Mix the normed stream over positions; what the convolution reads of padding is masked."""
        m, ledger, rules = self.module, step.ledger, step.rules
        B, C, content = linear_parts(m.in_proj, x, [self.width] * 3, ledger, rules.gamma_of("linear"))
        p = masked(product(content, B, rules), step.mask)
        taps, added = taps_of(m.conv, slice(None), wide(p.dtype))
        bias = None if m.conv.bias is None else ledger.enter(added, wide(p.dtype))
        c = causal_convolution(p.to(taps.dtype), taps, bias, state.conv.to(taps.dtype), rules.gamma_of("conv1d"))
        y = product(c.to(C.dtype), C, rules)
        return linear(m.out_proj, y, ledger, rules.gamma_of("linear")), ConvState(carried(state.conv, p))

    def mixing(self, x: Tensor, step: Step) -> ConvMixing:
        """The convolution as a linear map of x, everything that multiplies it constant."""
        with torch.no_grad():
            B, C, content = linear_parts(self.module.in_proj, x, [self.width] * 3, step.ledger)
            taps, _ = taps_of(self.module.conv, slice(None), content.dtype)
        return ConvMixing(content, linear_without_bias(self.module.out_proj), taps, masked(B, step.mask), C)
