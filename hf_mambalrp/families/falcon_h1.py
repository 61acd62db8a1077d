"""Falcon-H1 (``FalconH1ForCausalLM``): Mamba-2 beside attention, then a gated MLP; factors at every joint."""

from hf_mambalrp.families.base import Family, Head, Term, branch
from hf_mambalrp.families.parts import SSD, Attention, GatedMLP, RMSNorm, Tokens

FALCON_H1 = Family(
    "falcon_h1",
    stem=lambda model: Tokens(model.model.embed_tokens, model.model.embedding_multiplier),
    layers=lambda model: [
        (
            branch(
                RMSNorm(b.input_layernorm),
                Term(SSD(b.mamba), 1.0, b.ssm_out_multiplier),
                Term(Attention(b.self_attn, model.model.rotary_emb), b.attention_in_multiplier, b.attn_out_multiplier),
            ),
            branch(RMSNorm(b.pre_ff_layernorm), GatedMLP(b.feed_forward)),
        )
        for b in model.model.layers
    ],
    head=lambda model, linear: Head(
        RMSNorm(model.model.final_layernorm),
        linear,
        model.model.lm_head_multiplier if hasattr(model, "lm_head") else 1.0,
    ),
)
