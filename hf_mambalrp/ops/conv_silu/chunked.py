"""The causal convolution in torch, a multiply-add a tap, and SiLU behind it."""

from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.activation import activation
from hf_mambalrp.rules.gamma import damped, raised


def _forward(x: Tensor, earlier: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    """y_t = sum_k w_k x_{t-K+1+k} + b per channel, over x preceded by its K - 1 earlier inputs; taps (K, E)."""
    whole, length = torch.cat([earlier, x], 1), x.shape[1]
    y = torch.addcmul(bias, whole[:, :length], taps[0])
    for k in range(1, len(taps)):
        y.addcmul_(whole[:, k : k + length], taps[k])
    return y


def _transposed(grad: Tensor, taps: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the earlier inputs."""
    (rows, length, channels), kept = grad.shape, len(taps) - 1
    whole = grad.new_zeros(rows, kept + length, channels)
    for k in range(kept + 1):
        whole[:, k : k + length].addcmul_(grad, taps[k])
    return whole[:, kept:], whole[:, :kept]


class _CausalConvolution(torch.autograd.Function):
    """LRP-0: keeps the taps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, earlier: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(taps)
        return _forward(x, earlier, taps, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, Tensor]:
        (taps,) = ctx.saved_tensors
        return *_transposed(grad, taps), None, grad.sum(1, keepdim=True)


class _GammaConvolution(torch.autograd.Function):
    """LRP-gamma (:mod:`hf_mambalrp.rules.gamma`): keeps its inputs and its output too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, earlier: Tensor, taps: Tensor, bias: Tensor, gamma: float) -> Tensor:
        z = _forward(x, earlier, taps, bias)
        ctx.save_for_backward(x, earlier, taps, bias, z)
        ctx.gamma = gamma
        return z

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, Tensor, None]:
        x, earlier, taps, bias, z = ctx.saved_tensors
        gamma, absolute = ctx.gamma, taps.abs()
        g = damped(grad, z, _forward(x.abs(), earlier.abs(), absolute, bias.abs()), gamma)
        signed = g * z.sign()
        plain, extra = _transposed(g, taps), _transposed(signed, absolute)
        g_x, g_earlier = (raised(*both, gamma) for both in zip(plain, extra, (x.sign(), earlier.sign()), strict=True))
        g_bias = raised(g.sum(1, keepdim=True), signed.sum(1, keepdim=True), bias.sign(), gamma)
        return g_x, g_earlier, None, g_bias, None


def causal_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, earlier: Tensor, gamma: float = 0.0) -> Tensor:
    """c_t = sum_k w_k x_{t-K+1+k} + b per channel, which is LRP-0 as it is; arguments as in :func:`conv_silu`."""
    taps = weight.to(x.dtype).t().contiguous()  # of a tap's numbers side by side, which vector instructions read
    given = x, earlier, taps, x.new_zeros(()) if bias is None else bias
    c: Tensor = _GammaConvolution.apply(*given, gamma) if gamma else _CausalConvolution.apply(*given)
    return c


def conv_silu_chunked(
    x: Tensor, weight: Tensor, bias: Tensor | None, earlier: Tensor, mask: Tensor | None, rules: Rules
) -> Tensor:
    """Same contract as :func:`conv_silu_reference`."""
    u = activation(causal_convolution(x, weight, bias, earlier, rules.gamma_of("conv1d")), rules)
    return u if mask is None else u * mask.reshape(*x.shape[:2], 1)
