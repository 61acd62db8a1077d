"""Kimi-Linear (``KimiLinearForCausalLM``): Kimi Delta Attention or latent attention, then an MLP, or also experts."""

from typing import Any

from hf_mambalrp.families.base import Branch, Family, Head, branch
from hf_mambalrp.families.parts import DeltaNet, Experts, GatedMLP, LatentAttention, RMSNorm, Tokens


def layer(b: Any, rotary: Any = None) -> tuple[Branch | None, ...]:
    """Both branches of a layer."""
    mixer, mlp = b.self_attn, b.mlp
    forward = (Experts(mlp), GatedMLP(mlp.shared_experts)) if hasattr(mlp, "experts") else (GatedMLP(mlp),)
    delta = hasattr(mixer, "conv1d")
    return (
        branch(RMSNorm(b.input_layernorm), DeltaNet(mixer) if delta else LatentAttention(mixer, rotary)),
        branch(RMSNorm(b.post_attention_layernorm), *forward),
    )


KIMI_LINEAR = Family(
    "kimi_linear",
    stem=lambda model: Tokens(model.model.embed_tokens),
    layers=lambda model: [layer(b) for b in model.model.layers],
    head=lambda model, linear: Head(RMSNorm(model.model.norm), linear),
)
