"""Experts whose weights are stacked: one at a time, or their tokens sorted by expert all at once."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_mambalrp.families.base import Step
from hf_mambalrp.rules.activation import Factor, activation
from hf_mambalrp.rules.constant import WHOLE, Product, Weight, constant, is_coded
from hf_mambalrp.rules.gate import gate
from hf_mambalrp.rules.linear import linear_map
from hf_mambalrp.rules.offload import loaded

ALIGNED = 8
"""torch's grouped product reads rows of a multiple of 16 bytes, which is so many numbers in bfloat16."""


class Stacked:
    """Experts whose weights are two tensors (experts, F_out, F_in): gate and up side by side, or up alone, and down."""

    def __init__(self, up: Any, up_name: str, down: Any, down_name: str, factor: Factor) -> None:
        self.up, self.down, self.factor = (up, up_name), (down, down_name), factor
        self.width: int = getattr(down, down_name).shape[2]
        self.gated = getattr(up, up_name).shape[1] == 2 * self.width

    @property
    def grouped(self) -> bool:
        """Whether torch can multiply the tokens of all experts in one product, whose size it reads on the GPU."""
        weights = [getattr(module, name) for module, name in (self.up, self.down)]
        return hasattr(F, "grouped_mm") and all(
            weight.is_cuda
            and weight.dtype == torch.bfloat16
            and not is_coded(weight)
            and not any(size % ALIGNED for size in weight.shape[1:])
            and torch.cuda.get_device_capability(weight.device) >= (8, 0)
            for weight in weights
        )

    def whole(self, dtype: torch.dtype) -> bool:
        """Whether signals of this dtype can be multiplied with the stacks as they are."""
        weights = [getattr(module, name) for module, name in (self.up, self.down)]
        return all(weight.dtype == dtype and not is_coded(weight) for weight in weights)

    def all(self, x: Tensor, numbers: Tensor, step: Step) -> Tensor:
        """Of tokens (T, D) that are sorted by their expert's number (T,). Shape: (T, D)."""
        count = getattr(*self.up).shape[0]
        ends = torch.searchsorted(numbers, torch.arange(count, device=x.device), right=True).int()
        product = _grouped(ends) if x.dtype == torch.bfloat16 and self.grouped else _in_turn(ends.tolist())
        return self(slice(None), x, step, product)

    def __call__(self, number: int | slice, x: Tensor, step: Step, product: Product = WHOLE) -> Tensor:
        """(T, D) -> (T, D)."""
        gamma = step.rules.gamma_of("linear")
        z = linear_map(x, _weight(*self.up, number), gamma=gamma, product=product)
        if self.gated:
            z, y = z.chunk(2, -1)
            p = gate(y, z, step.rules, self.factor)
        else:
            p = activation(z, step.rules, self.factor)
        return linear_map(p, _weight(*self.down, number), gamma=gamma, product=product)


def _grouped(ends: Tensor) -> Product:
    """With an expert's own weight for each group of tokens, by where the groups end."""
    return Product(
        lambda x, weight: F.grouped_mm(x, weight.mT, offs=ends), lambda g, weight: F.grouped_mm(g, weight, offs=ends)
    )


def _in_turn(ends: list[int]) -> Product:
    """The same by a product for each group that has tokens."""
    starts = [0, *ends[:-1]]
    groups = [(number, slice(*both)) for number, both in enumerate(zip(starts, ends, strict=True)) if both[0] < both[1]]

    def products(x: Tensor, weights: Tensor) -> Tensor:
        found = x.new_empty(len(x), weights.shape[2])
        for number, at in groups:
            torch.mm(x[at], weights[number], out=found[at])
        return found

    return Product(lambda x, weights: products(x, weights.mT), products)


def _weight(module: nn.Module, name: str, number: int | slice) -> Weight:
    """One expert's weight, or all, read each time it is used."""

    def read(dtype: torch.dtype) -> Tensor:
        with loaded(module):
            return constant(getattr(module, name)[number], dtype)

    return read
