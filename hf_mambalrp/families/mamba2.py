"""Mamba-2 (``Mamba2ForCausalLM``): the names of Mamba-1, and a mixer of its own."""

from dataclasses import replace

from hf_mambalrp.families.mamba import MAMBA
from hf_mambalrp.rules.fused import fused_ssd_mixer
from hf_mambalrp.rules.ssd_mixer import initial_state, kept_per_position, ssd_mixer, ssd_signals

MAMBA2 = replace(
    MAMBA,
    model_type="mamba2",
    mixer=ssd_mixer,
    fused_mixer=fused_ssd_mixer,
    signals=ssd_signals,
    initial_state=initial_state,
    kept_per_position=kept_per_position,
)
