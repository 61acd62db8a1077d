"""Linear maps under LRP-0: z_j = sum_i x_i w_ij + b_j, relevance in proportion to x_i w_ij.

As a modified gradient this is the plain gradient with the weights constant; the bias keeps its share, which the
ledger records. Weights are used in the dtype of the activations (float32 for a half-precision model), cast when used.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn
from torch.nn import functional as F

from hf_mambalrp.rules.biases import BiasLedger
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.quantised import bias_of, dequantised, is_quantised
from hf_mambalrp.rules.twin import in_evaluation

Weight = Callable[[torch.dtype], Tensor]
"""A constant weight (F_out, F_in) as a function of the dtype it is needed in."""


class NoGradient(Exception):  # noqa: N818 - becomes an error where the layer's name is known
    """A layer behind which relevance would be lost; who knows its name raises a ``DetachedLayerError``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class _LinearMap(torch.autograd.Function):
    """x W^T with constant W: keeps neither the input nor a loaded, cast or dequantised copy of the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Weight) -> Tensor:
        ctx.weight = weight
        return F.linear(x, weight(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.weight(grad.dtype), None


def linear(module: nn.Module, x: Tensor, ledger: BiasLedger) -> Tensor:
    """LRP-0 through a linear layer. Shape: (B, L, F_in) -> (B, L, F_out).

    A plain ``nn.Linear`` is applied by its weight, a quantised layer by the weight that it stands for. Anything else in
    its place (LoRA, a layer with hooks) is called as it is, in evaluation mode, so that the model's own forward is what
    is explained.

    Raises:
        NoGradient: a layer that is called, and whose output does not depend on its input through differentiable
            operations.
    """
    if is_plain(module):
        y: Tensor = _LinearMap.apply(x, _weight(module))
        bias = bias_of(module)
        if bias is None:
            return y
        with align_module_device(module):
            return y + ledger.enter(bias, x.dtype)
    return _called(module, x, ledger)


def _called(module: nn.Module, x: Tensor, ledger: BiasLedger) -> Tensor:
    """An affine layer of unknown parts, y = W x + c: of zeros it returns c, the biases of all its parts together."""
    own = getattr(module, "weight", None)
    dtype = own.dtype if isinstance(own, Tensor) and own.is_floating_point() else x.dtype
    layer = in_evaluation(module)
    if not (torch.is_grad_enabled() and x.requires_grad):
        plain: Tensor = layer(x.to(dtype)).to(x.dtype)
        return plain
    # A hook may treat positions differently, adapters do not.
    hooked = any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    with torch.no_grad():
        biases = layer(torch.zeros_like(x, dtype=dtype) if hooked else x.new_zeros(1, 1, x.shape[-1], dtype=dtype))
    y: Tensor = layer(x.to(dtype)).to(x.dtype)
    if not y.requires_grad:
        raise NoGradient(module)
    recorded = ledger.enter(biases.nan_to_num(0.0, 0.0, 0.0), x.dtype)
    return y + (recorded - recorded.detach())  # adds zero: the layer has added its biases already


def linear_parts(module: Any, x: Tensor, sizes: Sequence[int], ledger: BiasLedger) -> list[Tensor]:
    """A linear layer whose output is several signals side by side, (B, L, size) each.

    By rows of the weight, each signal is a tensor of its own: a slice of the whole output would be read with gaps, its
    gradient would have to be put together again, and a block twice as large as all others fragments the heap.
    """
    if not is_plain(module) or is_quantised(module):
        return list(linear(module, x, ledger).split(sizes, -1))
    ends = list(accumulate(sizes))
    rows = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    outputs = [_LinearMap.apply(x, _weight(module, part)) for part in rows]
    if module.bias is None:
        return outputs
    with align_module_device(module):
        biases = module.bias.split(sizes)
        return [y + ledger.enter(bias, x.dtype) for y, bias in zip(outputs, biases, strict=True)]


def _weight(module: Any, rows: slice = slice(None)) -> Weight:
    """Rows of the weight, read each time they are used: an offloaded one is on its device no longer than that."""

    def read(dtype: torch.dtype) -> Tensor:
        with align_module_device(module):
            return dequantised(module, dtype) if is_quantised(module) else module.weight.detach()[rows].to(dtype)

    return read


def is_plain(module: nn.Module) -> bool:
    """Whether its forward is the product with its weight, or accelerate's, which only moves weights."""
    replaced = "forward" in vars(module) and not hasattr(module, "_hf_hook")
    return (type(module) is nn.Linear or is_quantised(module)) and not (
        module._forward_hooks or module._forward_pre_hooks or replaced
    )


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


def causal_convolution(
    module: nn.Conv1d, x: Tensor, earlier: Tensor, ledger: BiasLedger, channels: slice = slice(None)
) -> tuple[Tensor, Tensor]:
    """LRP-0 through the depthwise causal convolution.

    Args:
        module: ``nn.Conv1d`` with one filter of width K for each channel.
        x: (B, L, E).
        earlier: (B, K - 1, E), the inputs before the first position; zeros at the start of a text.
        ledger: where the bias is recorded.
        channels: those of the module that ``x`` holds, E of them.

    Returns:
        The convolution (B, L, E) and the last K - 1 inputs (B, K - 1, E), which the next chunk starts from.
    """
    weight = constant(module.weight, x.dtype)[channels, 0]
    bias = x.new_zeros(()) if module.bias is None else ledger.enter(module.bias[channels], x.dtype)
    y: Tensor = _CausalConvolution.apply(x, earlier, weight, bias)
    kept = weight.shape[-1] - 1
    return y, torch.cat([earlier, x[:, -kept:]], 1)[:, -kept:] if kept else earlier
