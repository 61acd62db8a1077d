"""Nemotron-H (``NemotronHForCausalLM``): a layer is Mamba-2, attention, an MLP, or experts beside one."""

from typing import Any

from hf_mambalrp.families.base import Family, Head, Part, branch
from hf_mambalrp.families.parts import MLP, SSD, Attention, Experts, RMSNorm, Tokens


def parts(mixer: Any) -> tuple[Part, ...]:
    """What the mixer is, by what it has."""
    if hasattr(mixer, "experts"):
        return Experts(mixer), MLP(mixer.shared_experts)
    return (SSD(mixer) if hasattr(mixer, "A_log") else Attention(mixer) if hasattr(mixer, "q_proj") else MLP(mixer),)


NEMOTRON_H = Family(
    "nemotron_h",
    stem=lambda model: Tokens(model.model.embeddings),
    layers=lambda model: [(branch(RMSNorm(b.norm), *parts(b.mixer)),) for b in model.model.layers],
    head=lambda model, linear: Head(RMSNorm(model.model.norm_f), linear),
)
