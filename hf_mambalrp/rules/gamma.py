"""LRP-gamma for inputs and outputs of both signs, through z = sum_i c_i + b with contributions c_i = x_i w_i.

Contributions of z's own sign count 1 + gamma times (Montavon et al. 2019, section 10.2.3; for both signs Andeol et al.
2021):

    R_i = (c_i + gamma [c_i z > 0] c_i) / (z + gamma s) R,    s = sum of the c_i of z's sign, with b where it has it.

The denominator has z's sign and is no smaller than z, so nothing has to be stabilised; gamma = 0 is LRP-0. With S =
sum_i |c_i| + |b| it is s = (z + sign(z) S) / 2 and [c_i z > 0] = (1 + sign(c_i) sign(z)) / 2, so both are maps of the
same kind as z, of absolute values. As a modified gradient, everything before dz constant,

    dx_i = ((1 + gamma / 2) w_i + gamma / 2 sign(x_i) |w_i| sign(z)) g,    g = |z| / (|z| + gamma / 2 (|z| + S)) dz.
"""

from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.rules.constant import Product, Weight


def damped(grad: Tensor, z: Tensor, S: Tensor, gamma: float) -> Tensor:
    """g of dz; 0 where z = 0, which has no relevance. ``S`` is overwritten."""
    size = z.abs()
    below = S.add_(size).mul_(gamma / 2).add_(size).clamp_(min=torch.finfo(z.dtype).tiny)
    return size.mul_(grad).div_(below)


def raised(plain: Tensor, absolute: Tensor, sign: Tensor, gamma: float) -> Tensor:
    """(1 + gamma / 2) plain + gamma / 2 sign absolute; what g, and g sign(z), were multiplied with w and |w| to."""
    return plain.mul_(1 + gamma / 2).add_(absolute.mul_(sign), alpha=gamma / 2)


class _GammaLinear(torch.autograd.Function):
    """Keeps x and z."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Weight, bias: Tensor | None, gamma: float, product: Product) -> Tensor:
        z = product.forward(x, weight(x.dtype))
        z = z if bias is None else z + bias
        ctx.weight, ctx.gamma, ctx.product = weight, gamma, product
        ctx.save_for_backward(x, z, bias)
        return z

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor | None, None, None]:
        x, z, bias = ctx.saved_tensors
        weight, gamma, product = ctx.weight(grad.dtype), ctx.gamma, ctx.product
        absolute = weight.abs()
        S = product.forward(x.abs(), absolute)
        g = damped(grad, z, S if bias is None else S + bias.abs(), gamma)
        signed = g * z.sign()
        g_x = raised(product.transposed(g, weight), product.transposed(signed, absolute), x.sign(), gamma)
        if bias is None:
            return g_x, None, None, None, None
        return g_x, None, raised(g.sum(1, keepdim=True), signed.sum(1, keepdim=True), bias.sign(), gamma), None, None


def gamma_linear(x: Tensor, weight: Weight, bias: Tensor | None, gamma: float, product: Product) -> Tensor:
    """x W^T + b under LRP-gamma. Shape: (B, L, F_in) -> (B, L, F_out); the bias has one copy a row, (B, 1, F_out)."""
    z: Tensor = _GammaLinear.apply(x, weight, bias, gamma, product)
    return z
