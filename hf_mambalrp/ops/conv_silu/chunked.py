"""The causal convolution in torch, a multiply-add a tap, and SiLU behind it."""

from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.activation import silu
from hf_mambalrp.rules.gamma import damping


class _CausalConvolution(torch.autograd.Function):
    """y_t = sum_k w_k x_{t-K+1+k} + b per channel, over x preceded by its K - 1 earlier inputs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, earlier: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        length, kept = x.shape[1], weight.shape[-1] - 1
        y = torch.addcmul(bias, x, weight[:, kept])
        for k in range(kept):
            back = kept - k  # tap k reads `back` positions earlier: from x, and for the first ones from before x
            y[:, back:].addcmul_(x[:, : max(0, length - back)], weight[:, k])
            y[:, :back].addcmul_(earlier[:, k : k + length], weight[:, k])
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, Tensor]:
        (weight,) = ctx.saved_tensors
        length, kept = grad.shape[1], weight.shape[-1] - 1
        grad_x, grad_earlier = grad * weight[:, kept], grad.new_zeros(grad.shape[0], kept, grad.shape[2])
        for k in range(kept):
            back = kept - k
            grad_x[:, : max(0, length - back)].addcmul_(grad[:, back:], weight[:, k])
            grad_earlier[:, k : k + length].addcmul_(grad[:, :back], weight[:, k])
        return grad_x, grad_earlier, None, grad.sum(1, keepdim=True)


class _GammaConvolution(torch.autograd.Function):
    """The same value under LRP-gamma; keeps its inputs and its output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, earlier: Tensor, weight: Tensor, bias: Tensor, gamma: float) -> Tensor:
        z: Tensor = _CausalConvolution.forward(ctx, x, earlier, weight, bias)
        ctx.save_for_backward(x, earlier, weight, bias, z)
        ctx.gamma = gamma
        return z

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, Tensor, None]:
        x, earlier, weight, bias, z = ctx.saved_tensors
        whole, (length, width) = torch.cat([earlier, x], 1), (x.shape[1], weight.shape[-1])
        taps = [(slice(k, k + length), weight[:, k]) for k in range(width)]  # where a tap reads, and what it weighs

        def of_the_same_sign(part: Tensor) -> Tensor:
            return part.mul(z.sign()).clamp_(min=0).mul_(z.sign())

        same = of_the_same_sign(bias)
        for at, w in taps:
            same += of_the_same_sign(whole[:, at] * w)
        g, found = grad * damping(z, same, ctx.gamma), torch.zeros_like(whole)
        raised = ctx.gamma * g
        for at, w in taps:
            found[:, at] += w * (g + raised * (whole[:, at] * w * z > 0))
        g_bias = (g + raised * (bias * z > 0)).sum(1, keepdim=True)
        return found[:, width - 1 :], found[:, : width - 1], None, g_bias, None


def causal_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, earlier: Tensor, gamma: float = 0.0) -> Tensor:
    """c_t = sum_k w_k x_{t-K+1+k} + b per channel, which is LRP-0 as it is; arguments as in :func:`conv_silu`."""
    given = x, earlier, weight, x.new_zeros(()) if bias is None else bias
    c: Tensor = _GammaConvolution.apply(*given, gamma) if gamma else _CausalConvolution.apply(*given)
    return c


def conv_silu_chunked(
    x: Tensor, weight: Tensor, bias: Tensor | None, earlier: Tensor, mask: Tensor | None, rules: Rules
) -> Tensor:
    """Same contract as :func:`conv_silu_reference`."""
    u = silu(causal_convolution(x, weight, bias, earlier, rules.gamma_of("conv1d")), rules)
    return u if mask is None else u * mask.reshape(*x.shape[:2], 1)
