"""Activations with the identity rule: each is x * factor(x), the factor exact, so that no ratio f(x) / x is taken.

| f | factor(x) |
|---|---|
| SiLU | sigmoid(x) |
| GELU | Phi(x), the standard normal distribution; or its approximation by tanh |
| ReLU | 1 where x > 0, else 0 |
| ReLU^2 | relu(x) |
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hf_mambalrp.rules import Rules

Factor = Callable[[Tensor], Tensor]
"""factor(x) of an activation x * factor(x), in memory of its own."""


def _normal(x: Tensor) -> Tensor:
    return torch.erf(x / math.sqrt(2)).add(1).mul(0.5)


def _normal_by_tanh(x: Tensor) -> Tensor:
    return torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3))).add(1).mul(0.5)


def _step(x: Tensor) -> Tensor:
    return (x > 0).to(x.dtype)


FACTORS: dict[str, Factor] = {
    "SiLU": torch.sigmoid,
    "silu": torch.sigmoid,
    "SiLUActivation": torch.sigmoid,
    "GELU": _normal,
    "GELUActivation": _normal,
    "GELUTanh": _normal_by_tanh,
    "PytorchGELUTanh": _normal_by_tanh,
    "NewGELUActivation": _normal_by_tanh,
    "ReLU": _step,
    "ReLUSquaredActivation": torch.relu,
}
"""By the name of the class, of torch or of transformers, or of the function."""


def factor_of(activation: nn.Module | Factor) -> Factor | None:
    """The factor of an activation, a module or a function; None where no rule is known."""
    name: str = getattr(activation, "__name__", type(activation).__name__)
    if name == "GELU" and getattr(activation, "approximate", "none") == "tanh":
        name = "GELUTanh"
    return FACTORS.get(name)


def activation(x: Tensor, rules: Rules, factor: Factor = torch.sigmoid) -> Tensor:
    """x * [factor(x)], the bracket constant under the identity rule; SiLU unless another factor is given."""
    return x * factor(x.detach() if rules.silu else x)


def softcap(x: Tensor, cap: float, rules: Rules) -> Tensor:
    """c tanh(x / c), c the cap; under the identity rule x * [tanh(x / c) / (x / c)], which is x * [1] at 0."""

    def factor(x: Tensor) -> Tensor:
        return torch.where(x == 0, 1.0, torch.tanh(x / cap) / (x / cap))

    return activation(x, rules, factor) if rules.silu else cap * torch.tanh(x / cap)
