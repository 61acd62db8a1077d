"""Mamba-1 (``MambaForCausalLM``, ``MambaForSequenceClassification``)."""

from hf_mambalrp.families.base import Family
from hf_mambalrp.rules.fused import fused_selective_mixer
from hf_mambalrp.rules.mixer import initial_state, kept_per_position, selective_mixer, selective_signals
from hf_mambalrp.rules.norm import rms_norm

MAMBA = Family(
    model_type="mamba",
    backbone="backbone",
    embeddings="embeddings",
    layers="layers",
    final_norm="norm_f",
    block_norm="norm",
    block_mixer="mixer",
    norm=rms_norm,
    mixer=selective_mixer,
    fused_mixer=fused_selective_mixer,
    signals=selective_signals,
    initial_state=initial_state,
    kept_per_position=kept_per_position,
)
