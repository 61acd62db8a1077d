"""OLMo-Hybrid (``OlmoHybridForCausalLM``): a gated delta net behind its norm or attention before it; then an MLP."""

from typing import Any

from hf_mambalrp.families.base import Branch, Family, Head, branch
from hf_mambalrp.families.parts import Attention, DeltaNet, GatedMLP, RMSNorm, Tokens


def layer(b: Any, rotary: Any) -> tuple[Branch | None, ...]:
    """Both branches of a layer; those of an attention layer have their norms behind them."""
    mlp = GatedMLP(b.mlp)
    if hasattr(b, "linear_attn"):
        delta = branch(RMSNorm(b.input_layernorm), DeltaNet(b.linear_attn))
        return delta, branch(RMSNorm(b.post_attention_layernorm), mlp)
    attention = branch(RMSNorm(b.post_attention_layernorm), Attention(b.self_attn, rotary), post=True)
    return attention, branch(RMSNorm(b.post_feedforward_layernorm), mlp, post=True)


OLMO_HYBRID = Family(
    "olmo_hybrid",
    stem=lambda model: Tokens(model.model.embed_tokens),
    layers=lambda model: [layer(b, model.model.rotary_emb) for b in model.model.layers],
    head=lambda model, linear: Head(RMSNorm(model.model.norm), linear),
)
