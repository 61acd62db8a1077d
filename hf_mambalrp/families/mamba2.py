"""Mamba-2 (``Mamba2ForCausalLM``): the names of Mamba-1, and a mixer of its own."""

from hf_mambalrp.families.base import branch
from hf_mambalrp.families.mamba import MAMBA
from hf_mambalrp.families.parts import SSD, RMSNorm

MAMBA2 = MAMBA._replace(
    model_type="mamba2",
    layers=lambda model: [(branch(RMSNorm(b.norm), SSD(b.mixer)),) for b in model.backbone.layers],
)
