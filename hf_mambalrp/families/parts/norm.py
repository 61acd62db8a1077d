"""RMSNorm as a part of a network."""

from collections.abc import Callable
from typing import Any

from accelerate.utils import align_module_device
from torch import Tensor

from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts.reading import reads, wide
from hf_mambalrp.ops.norm import norm
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.norm import rms_norm


class RMSNorm:
    """x * [rsqrt(mean(x^2) + eps)] * w, the bracket constant under the norm rule."""

    def __init__(self, module: Any) -> None:
        self.module = reads(module, "weight", "variance_epsilon")

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        """Return the normed stream in the dtype of signals. Shape: (..., D) -> (..., D)."""
        with align_module_device(self.module):
            weight = constant(self.module.weight, wide(x.dtype))
        x, eps = x.to(weight.dtype), self.module.variance_epsilon
        return norm(x, weight, eps, step.dtype, rules=step.rules, backend=step.backend)


def normed_by(*names: str) -> Callable[..., tuple[Tensor, ...]]:
    """dt, B and C each by the mixer's RMSNorm of one of these names, as :data:`ParameterNorms`."""

    def normed(mixer: Any, *parameters: Any) -> tuple[Tensor, ...]:
        *tensors, rules = parameters
        return tuple(_normed(getattr(mixer, name), x, rules) for name, x in zip(names, tensors, strict=True))

    return normed


def _normed(module: Any, x: Tensor, rules: Rules) -> Tensor:
    module = reads(module, "weight", "variance_epsilon")
    with align_module_device(module):
        weight = constant(module.weight, x.dtype)
    return rms_norm(x, weight, module.variance_epsilon, rules)
