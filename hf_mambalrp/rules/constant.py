"""Weights as the rules see them."""

import torch
from torch import Tensor


def constant(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in ``dtype``, apart from any graph; usable also when it was made in inference mode."""
    weight = weight.detach().to(dtype)
    return weight.clone() if weight.is_inference() else weight
