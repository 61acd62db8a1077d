"""RMSNorm as a part of a network."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts.reading import reads, wide
from hf_mambalrp.ops.norm import norm, norm_of_sum
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.adapters import effective
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.norm import rms_norm
from hf_mambalrp.rules.offload import loaded


class RMSNorm:
    """x * [rsqrt(mean(x^2) + eps)] * w, the bracket constant under the norm rule.

    Where the module's weight is of a norm around 1, as Gemma's and Qwen's, who call eps ``eps``, w is 1 + weight. Norms
    of other kinds have an ``eps`` too, and a bias, if only None; they are not read.
    """

    def __init__(self, module: Any) -> None:
        own = effective(module)
        self.around_one = hasattr(own, "eps") and not hasattr(own, "bias") and not isinstance(own, nn.RMSNorm)
        self.eps = "eps" if self.around_one else "variance_epsilon"
        self.module = reads(module, "weight", self.eps)

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        """Return the normed stream in the dtype of signals. Shape: (..., D) -> (..., D)."""
        x = x.to(wide(x.dtype))
        return norm(x, *self._weight(x.dtype), step.dtype, rules=step.rules, backend=step.backend)

    def of_sum(self, h: Tensor, added: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """The stream h + added, in float32 at least, and it normed. Shape: (..., D), (..., D) -> (..., D), (..., D)."""
        return norm_of_sum(h, added, *self._weight(h.dtype), step.dtype, rules=step.rules, backend=step.backend)

    def _weight(self, dtype: torch.dtype) -> tuple[Tensor, float]:
        """w and eps."""
        with loaded(self.module):
            weight = constant(self.module.weight)
        return weight.to(dtype) + 1 if self.around_one else weight, getattr(self.module, self.eps)


def normed_by(*names: str) -> Callable[..., tuple[Tensor, ...]]:
    """dt, B and C each by the mixer's RMSNorm of one of these names, as :data:`ParameterNorms`."""

    def normed(mixer: Any, *parameters: Any) -> tuple[Tensor, ...]:
        *tensors, rules = parameters
        return tuple(_normed(getattr(mixer, name), x, rules) for name, x in zip(names, tensors, strict=True))

    return normed


def _normed(module: Any, x: Tensor, rules: Rules) -> Tensor:
    module = reads(module, "weight", "variance_epsilon")
    with loaded(module):
        weight = constant(module.weight, x.dtype)
    return rms_norm(x, weight, module.variance_epsilon, rules)
