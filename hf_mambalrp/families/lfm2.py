"""LFM2 (``Lfm2ForCausalLM``, ``Lfm2MoeForCausalLM``): a short convolution or attention, then a gated MLP or experts."""

from typing import Any

import torch

from hf_mambalrp.families.base import Branch, Family, Head, branch, part_of
from hf_mambalrp.families.parts import Attention, Experts, GatedMLP, RMSNorm, ShortConv, Tokens
from hf_mambalrp.families.parts.reading import named


def layer(b: Any, rotary: Any) -> tuple[Branch | None, ...]:
    """Both branches of a layer."""
    mixers, m = (part_of(b, "conv", ShortConv), part_of(b, "self_attn", Attention, rotary)), b.feed_forward
    forward = Experts(m) if hasattr(m, "experts") else GatedMLP(m, ("w1", "w3"), "w2", factor=torch.sigmoid)
    return branch(RMSNorm(b.operator_norm), *mixers), branch(RMSNorm(b.ffn_norm), forward)


LFM2 = Family(
    "lfm2",
    stem=lambda model: Tokens(model.model.embed_tokens),
    layers=lambda model: [layer(b, named(model.model, "rotary_emb", "pos_emb")) for b in model.model.layers],
    head=lambda model, linear: Head(RMSNorm(model.model.embedding_norm), linear),
)
LFM2_MOE = LFM2._replace(model_type="lfm2_moe")
