"""Qwen3-Next and Qwen3.5, of vision checkpoints the text side: a delta net or gated attention, then MLP or experts."""

from typing import Any

from hf_mambalrp.families.base import Branch, Family, Head, branch, part_of
from hf_mambalrp.families.parts import Attention, DeltaNet, Experts, GatedMLP, RMSNorm, Tokens, WeightedMLP


def layer(b: Any, rotary: Any) -> tuple[Branch | None, ...]:
    """Both branches of a layer; beside experts is an MLP that every token goes through."""
    mixers, m = (part_of(b, "linear_attn", DeltaNet), part_of(b, "self_attn", Attention, rotary)), b.mlp
    routed = hasattr(m, "experts")
    forward = (Experts(m), WeightedMLP(m.shared_expert, m.shared_expert_gate)) if routed else (GatedMLP(m),)
    return branch(RMSNorm(b.input_layernorm), *mixers), branch(RMSNorm(b.post_attention_layernorm), *forward)


QWEN3_NEXT = Family(
    "qwen3_next",
    stem=lambda model: Tokens(model.model.embed_tokens),
    layers=lambda model: [layer(b, model.model.rotary_emb) for b in model.model.layers],
    head=lambda model, linear: Head(RMSNorm(model.model.norm), linear),
)
QWEN3_5, QWEN3_5_MOE = (QWEN3_NEXT._replace(model_type=f"{name}_text") for name in ("qwen3_5", "qwen3_5_moe"))
