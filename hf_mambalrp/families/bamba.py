"""Bamba (``BambaForCausalLM``): Mamba-2 or attention, then a gated MLP."""

from hf_mambalrp.families.base import Family, Head, branch, part_of
from hf_mambalrp.families.parts import SSD, Attention, GatedMLP, RMSNorm, Tokens

BAMBA = Family(
    "bamba",
    stem=lambda model: Tokens(model.model.embed_tokens),
    layers=lambda model: [
        (
            branch(
                RMSNorm(b.input_layernorm),
                part_of(b, "mamba", SSD),
                part_of(b, "self_attn", Attention, model.model.rotary_emb),
            ),
            branch(RMSNorm(b.pre_ff_layernorm), GatedMLP(b.feed_forward)),
        )
        for b in model.model.layers
    ],
    head=lambda model, linear: Head(RMSNorm(model.model.final_layernorm), linear),
)
