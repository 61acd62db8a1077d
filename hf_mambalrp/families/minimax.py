"""MiniMax (``MiniMaxForCausalLM``): lightning or softmax attention, then experts; the stream is what each reads."""

from typing import Any

from hf_mambalrp.families.base import Branch, Family, Head, branch
from hf_mambalrp.families.parts import Attention, Experts, Lightning, RMSNorm, Tokens
from hf_mambalrp.families.parts.reading import named


def layer(b: Any, rotary: Any, window: int | None) -> tuple[Branch | None, ...]:
    """Both branches of a layer: alpha norm(h) + beta part(norm(h))."""
    m = b.self_attn
    mixer = Lightning(m) if hasattr(m, "qkv_proj") else Attention(m, rotary, window=window)
    experts, factors = Experts(named(b, "mlp", "block_sparse_moe")), (b.attn_alpha_factor, b.mlp_alpha_factor)
    return (
        branch(RMSNorm(b.input_layernorm), mixer, past=factors[0], scale=b.attn_beta_factor),
        branch(RMSNorm(b.post_attention_layernorm), experts, past=factors[1], scale=b.mlp_beta_factor),
    )


MINIMAX = Family(
    "minimax",
    stem=lambda model: Tokens(model.model.embed_tokens),
    layers=lambda model: [layer(b, model.model.rotary_emb, model.config.sliding_window) for b in model.model.layers],
    head=lambda model, linear: Head(RMSNorm(model.model.norm), linear),
)
