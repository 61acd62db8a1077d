"""The gate of Mamba-2's mixer and its norm: behind it, before it, or none."""

from typing import Any

from torch import Tensor, nn

from hf_mambalrp.families.parts.reading import wide
from hf_mambalrp.ops.gated_norm import gated_norm
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.adapters import effective
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.gate import gate
from hf_mambalrp.rules.norm import rms_norm
from hf_mambalrp.rules.offload import loaded


def gated(mixer: Any, y: Tensor, z: Tensor, rules: Rules, backend: str) -> Tensor:
    """norm(y silu(z)) by the mixer's ``norm``, as in :func:`hf_mambalrp.ops.gated_norm.gated_norm`.

    Without a norm, or with one that has ``norm_before_gate``, it is norm(y) silu(z).
    """
    norm: Any = effective(getattr(mixer, "norm", None) or nn.Identity())
    if not isinstance(norm, nn.Identity):
        with loaded(norm):
            weight = constant(norm.weight, wide(y.dtype))
        # Some say how many groups they have, some how large these are; those of releases without groups norm all.
        size = int(getattr(norm, "group_size", len(weight) // int(getattr(norm, "n_groups", 1))))
        if not getattr(norm, "norm_before_gate", False):
            return gated_norm(y, z, weight, norm.variance_epsilon, size, rules=rules, backend=backend)
        groups = (-1, size)
        y = rms_norm(y.unflatten(-1, groups), weight.unflatten(0, groups), norm.variance_epsilon, rules).flatten(-2)
    return gate(y, z, rules)
