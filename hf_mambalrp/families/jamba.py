"""Jamba (``JambaForCausalLM``): Mamba-1 with norms on dt, B and C, or attention; then a gated MLP or experts."""

from typing import Any

from torch import Tensor

from hf_mambalrp.families.base import Family, Head, Part, branch, part_of
from hf_mambalrp.families.parts import Attention, Experts, GatedMLP, RMSNorm, Selective, Tokens, rms_normed
from hf_mambalrp.rules import Rules


def parameter_norms(mixer: Any, dt: Tensor, B: Tensor, C: Tensor, rules: Rules) -> tuple[Tensor, Tensor, Tensor]:
    """Norms with weights."""
    return (
        rms_normed(mixer.dt_layernorm, dt, rules),
        rms_normed(mixer.b_layernorm, B, rules),
        rms_normed(mixer.c_layernorm, C, rules),
    )


def feed_forward(module: Any) -> Part:
    """Experts or an MLP."""
    return Experts(module) if hasattr(module, "experts") else GatedMLP(module)


JAMBA = Family(
    "jamba",
    stem=lambda model: Tokens(model.model.embed_tokens),
    layers=lambda model: [
        (
            branch(
                RMSNorm(b.input_layernorm),
                part_of(b, "mamba", Selective, parameter_norms),
                part_of(b, "self_attn", Attention),
            ),
            branch(RMSNorm(b.pre_ff_layernorm), feed_forward(b.feed_forward)),
        )
        for b in model.model.layers
    ],
    head=lambda model, linear: Head(RMSNorm(model.model.final_layernorm), linear),
)
