"""Experts whose weights are stacked."""

from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn

from hf_mambalrp.families.base import Step
from hf_mambalrp.rules.activation import Factor, activation
from hf_mambalrp.rules.constant import Weight, constant
from hf_mambalrp.rules.gate import gate
from hf_mambalrp.rules.linear import linear_map


class Stacked:
    """Experts whose weights are two tensors (experts, F_out, F_in): gate and up side by side, or up alone, and down."""

    def __init__(self, up: Any, up_name: str, down: Any, down_name: str, factor: Factor) -> None:
        self.up, self.down, self.factor = (up, up_name), (down, down_name), factor
        self.width: int = getattr(down, down_name).shape[2]
        self.gated = getattr(up, up_name).shape[1] == 2 * self.width

    def __call__(self, number: int, x: Tensor, step: Step) -> Tensor:
        """(T, D) -> (T, D)."""
        gamma = step.rules.gamma_of("linear")
        z = linear_map(x, _weight(*self.up, number), gamma=gamma)
        if self.gated:
            z, y = z.chunk(2, -1)
            p = gate(y, z, step.rules, self.factor)
        else:
            p = activation(z, step.rules, self.factor)
        return linear_map(p, _weight(*self.down, number), gamma=gamma)


def _weight(module: nn.Module, name: str, number: int) -> Weight:
    """One expert's weight, read each time it is used."""

    def read(dtype: torch.dtype) -> Tensor:
        with align_module_device(module):
            return constant(getattr(module, name)[number], dtype)

    return read
