"""Granite 4 (``GraniteMoeHybridForCausalLM``): Mamba-2 or attention, then an MLP beside experts, or alone."""

from typing import Any

from hf_mambalrp.families.base import Branch, Family, Head, branch, part_of
from hf_mambalrp.families.parts import SSD, Attention, Experts, GatedMLP, RMSNorm, Tokens


def layer(b: Any, rotary: Any) -> tuple[Branch | None, ...]:
    """Both branches of a layer."""
    mixers = part_of(b, "mamba", SSD), part_of(b, "self_attn", Attention, rotary)
    experts, mlp = part_of(b, "block_sparse_moe", Experts), GatedMLP(b.shared_mlp, ("input_linear",), "output_linear")
    return (
        branch(RMSNorm(b.input_layernorm), *mixers, scale=b.residual_multiplier),
        branch(RMSNorm(b.post_attention_layernorm), experts, mlp, scale=b.residual_multiplier),
    )


GRANITE = Family(
    "granitemoehybrid",
    stem=lambda model: Tokens(model.model.embed_tokens, model.model.embedding_multiplier, scales_given=True),
    layers=lambda model: [layer(b, model.model.rotary_emb) for b in model.model.layers],
    head=lambda model, linear: Head(
        RMSNorm(model.model.norm), linear, 1 / model.config.logits_scaling if hasattr(model, "lm_head") else 1.0
    ),
)
