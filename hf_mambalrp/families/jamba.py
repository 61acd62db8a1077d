"""Jamba (``JambaForCausalLM``): Mamba-1 with norms on dt, B and C, or attention; then a gated MLP or experts."""

from hf_mambalrp.families.base import Family, Head, branch, part_of
from hf_mambalrp.families.parts import Attention, Experts, GatedMLP, RMSNorm, Selective, Tokens, normed_by

PARAMETER_NORMS = normed_by("dt_layernorm", "b_layernorm", "c_layernorm")

JAMBA = Family(
    "jamba",
    stem=lambda model: Tokens(model.model.embed_tokens),
    layers=lambda model: [
        (
            branch(
                RMSNorm(b.input_layernorm),
                part_of(b, "mamba", Selective, PARAMETER_NORMS),
                part_of(b, "self_attn", Attention),
            ),
            branch(
                RMSNorm(b.pre_ff_layernorm),
                Experts(b.feed_forward) if hasattr(b.feed_forward, "experts") else GatedMLP(b.feed_forward),
            ),
        )
        for b in model.model.layers
    ],
    head=lambda model, linear: Head(RMSNorm(model.model.final_layernorm), linear),
)
