"""Falcon-Mamba (``FalconMambaForCausalLM``): Mamba-1 with norms without weights on dt, B and C."""

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from hf_mambalrp.families.mamba import MAMBA
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.fused import fused_selective_mixer
from hf_mambalrp.rules.mixer import selective_mixer, selective_signals
from hf_mambalrp.rules.norm import weightless_rms_norm


def parameter_norm(mixer: Any, parameter: Tensor, rules: Rules) -> Tensor:
    """Under the SSM rule inside what is constant."""
    return weightless_rms_norm(parameter, mixer.rms_eps, rules)


FALCON_MAMBA = replace(
    MAMBA,
    model_type="falcon_mamba",
    mixer=partial(selective_mixer, parameter_norm=parameter_norm),
    fused_mixer=partial(fused_selective_mixer, parameter_norm=parameter_norm),
    signals=partial(selective_signals, parameter_norm=parameter_norm),
)
