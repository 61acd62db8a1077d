"""Falcon-Mamba (``FalconMambaForCausalLM``): Mamba-1 with norms without weights on dt, B and C."""

from typing import Any

from torch import Tensor

from hf_mambalrp.families.base import branch
from hf_mambalrp.families.mamba import MAMBA
from hf_mambalrp.families.parts import RMSNorm, Selective
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.norm import weightless_rms_norm


def parameter_norms(mixer: Any, dt: Tensor, B: Tensor, C: Tensor, rules: Rules) -> tuple[Tensor, ...]:
    """Under the SSM rule inside what is constant."""
    return tuple(weightless_rms_norm(parameter, mixer.rms_eps, rules) for parameter in (dt, B, C))


FALCON_MAMBA = MAMBA._replace(
    model_type="falcon_mamba",
    layers=lambda model: [
        (branch(RMSNorm(b.norm), Selective(b.mixer, parameter_norms)),) for b in model.backbone.layers
    ],
)
