"""RecurrentGemma (``RecurrentGemmaForCausalLM``): a recurrent block or local attention, then an MLP; capped logits."""

from typing import Any

import torch

from hf_mambalrp.families.base import Branch, Family, Head, branch
from hf_mambalrp.families.parts import RGLRU, Attention, GatedMLP, RMSNorm, Tokens


def layer(b: Any) -> tuple[Branch | None, ...]:
    """Both branches of a layer."""
    m = b.temporal_block
    mixer = RGLRU(m) if hasattr(m, "rg_lru") else Attention(m, m.rotary_emb)
    return branch(RMSNorm(b.temporal_pre_norm), mixer), branch(RMSNorm(b.channel_pre_norm), GatedMLP(b.mlp_block))


def scale(width: int) -> float:
    """Of embeddings: the root of their width, as bfloat16 has it."""
    return float(torch.tensor(width**0.5, dtype=torch.bfloat16))


RECURRENT_GEMMA = Family(
    "recurrent_gemma",
    stem=lambda model: Tokens(model.model.embed_tokens, scale(model.config.hidden_size), scales_given=True),
    layers=lambda model: [layer(b) for b in model.model.layers],
    head=lambda model, linear: Head(
        RMSNorm(model.model.final_norm), linear, cap=model.config.logits_soft_cap if hasattr(model, "lm_head") else None
    ),
)
