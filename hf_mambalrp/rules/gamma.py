"""LRP-gamma for inputs and outputs of both signs, through z = sum_i c_i + b with contributions c_i = x_i w_i.

Contributions of z's own sign count 1 + gamma times (Montavon et al. 2019, section 10.2.3; for both signs Andeol et al.
2021):

    R_i = (c_i + gamma [c_i z > 0] c_i) / (z + gamma s) R,    s = sum of the c_i of z's sign, with b where it has it.

The denominator has z's sign and is no smaller than z, so nothing has to be stabilised; gamma = 0 is LRP-0. As a
modified gradient, dx_i = z / (z + gamma s) (1 + gamma [c_i z > 0]) w_i dz with everything before dz constant.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp.rules.constant import Weight


def damping(z: Tensor, same: Tensor, gamma: float) -> Tensor:
    """z / (z + gamma s), from 1 / (1 + gamma) to 1 where s is all there is; 1 at z = 0, which has no relevance."""
    return torch.where(z == 0, 1.0, z / (z + gamma * same))


class _GammaLinear(torch.autograd.Function):
    """Keeps x and z."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Weight, bias: Tensor | None, gamma: float) -> Tensor:
        z = F.linear(x, weight(x.dtype))
        z = z if bias is None else z + bias
        ctx.weight, ctx.gamma = weight, gamma
        ctx.save_for_backward(x, z, bias)
        return z

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor | None, None]:
        x, z, bias = ctx.saved_tensors
        weight, gamma = ctx.weight(grad.dtype), ctx.gamma
        above, below = weight.clamp(min=0), weight.clamp(max=0)
        positive = F.linear(x.clamp(min=0), above) + F.linear(x.clamp(max=0), below)
        positive = positive if bias is None else positive + bias.clamp(min=0)
        g = grad * damping(z, torch.where(z > 0, positive, z - positive), gamma)
        g_above, g_below = g * (z > 0), g * (z < 0)
        same = torch.where(x > 0, g_above @ above + g_below @ below, g_above @ below + g_below @ above)
        g_bias = None if bias is None else (g + gamma * g * (bias * z > 0)).sum(1, keepdim=True)
        return g @ weight + gamma * same, None, g_bias, None


def gamma_linear(x: Tensor, weight: Weight, bias: Tensor | None, gamma: float) -> Tensor:
    """x W^T + b under LRP-gamma. Shape: (B, L, F_in) -> (B, L, F_out); the bias has one copy a row, (B, 1, F_out)."""
    z: Tensor = _GammaLinear.apply(x, weight, bias, gamma)
    return z
