"""SiLU with the identity rule."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp.rules import Rules


class _IdentitySiLU(torch.autograd.Function):
    """x * [sigmoid(x)], the bracket constant: the sigmoid is exact, no ratio silu(x) / x needs a stabiliser."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        sigmoid = torch.sigmoid(x)
        ctx.save_for_backward(sigmoid)
        return x * sigmoid

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        sigmoid: Tensor = ctx.saved_tensors[0]
        return grad * sigmoid


def silu(x: Tensor, rules: Rules) -> Tensor:
    """silu(x) = x * [sigmoid(x)], the bracket constant under the identity rule."""
    if rules.silu:
        y: Tensor = _IdentitySiLU.apply(x)
        return y
    return F.silu(x)
