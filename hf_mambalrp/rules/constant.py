"""Weights as the rules see them."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Weight = Callable[[torch.dtype], Tensor]
"""A constant weight (F_out, F_in) as a function of the dtype it is needed in."""


class Product(NamedTuple):
    """How a signal is multiplied with a weight W."""

    forward: Callable[[Tensor, Tensor], Tensor]
    """x, W -> x W^T."""
    transposed: Callable[[Tensor, Tensor], Tensor]
    """g, W -> g W."""


WHOLE = Product(F.linear, torch.matmul)
"""One W for all."""


def constant(weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The weight in ``dtype``, or its own, apart from any graph; usable also when it was made in inference mode.

    A weight that stores codes is the numbers that it stands for.
    """
    weight = weight.detach()
    weight = weight.dequantize() if is_coded(weight) else weight
    weight = weight if dtype is None else weight.to(dtype)
    return weight.clone() if weight.is_inference() else weight


def is_coded(weight: Tensor) -> bool:
    """Whether it stores codes: a quantised tensor of torch, or of a class that can dequantise, as torchao's."""
    return weight.is_quantized or type(weight).dequantize is not Tensor.dequantize
