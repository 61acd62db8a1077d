"""The causal depthwise convolution with SiLU that every mixer begins with: under the rules, and as it is shown.

Glossary: B batch, L length, E channels, K width of a filter.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts.reading import masked, wide
from hf_mambalrp.ops.conv_silu import conv_silu
from hf_mambalrp.ops.conv_silu.chunked import causal_convolution
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.offload import loaded


def convolved(
    module: nn.Conv1d, x: Tensor, earlier: Tensor, step: Step, channels: slice = slice(None)
) -> tuple[Tensor, Tensor]:
    """silu of the causal depthwise convolution, zero on padding: LRP-0, then the identity rule.

    Args:
        module: ``nn.Conv1d`` with one filter of width K for each channel.
        x: (B, L, E).
        earlier: (B, K - 1, E), the inputs before the first position; zeros at the start of a text.
        step: the step.
        channels: those of the module that ``x`` holds, E of them.

    Returns:
        u (B, L, E), and the last K - 1 inputs (B, K - 1, E), which the next chunk starts from.
    """
    dtype = wide(x.dtype)
    with loaded(module):
        weight = constant(module.weight)[channels, 0]
        bias = None if module.bias is None else step.ledger.enter(module.bias[channels], dtype)
    u = conv_silu(x, weight, bias, earlier, step.mask, rules=step.rules, backend=step.backend)
    return u, carried(earlier, x)


def carried(earlier: Tensor, x: Tensor) -> Tensor:
    """The last K - 1 inputs, which the next chunk starts from: of ``earlier`` (B, K - 1, E) and then x (B, L, E)."""
    kept, length = earlier.shape[1], x.shape[1]
    if length >= kept:
        return x[:, length - kept :].to(earlier.dtype, copy=True)  # a view would keep all of x
    return torch.cat([earlier[:, length - kept :], x], 1)


class Convolution(NamedTuple):
    """What hidden attention reads of it, from the first position on."""

    x: Tensor
    """(B, L, E) input."""
    c: Tensor
    """(B, L, E) before SiLU."""
    u: Tensor
    """(B, L, E) behind SiLU, 0 on padding."""
    taps: Tensor
    """(E, K)."""
    bias: Tensor
    """(E,); zeros where it has none."""


def convolution(module: nn.Conv1d, x: Tensor, step: Step, channels: slice = slice(None)) -> Convolution:
    """All of the convolution of x; arguments as of :func:`convolved`."""
    taps, bias = taps_of(module, channels, x.dtype)
    c = causal_convolution(x, taps, bias, x.new_zeros(len(x), taps.shape[-1] - 1, x.shape[-1]))
    return Convolution(x, c, masked(F.silu(c), step.mask), taps, bias)


def taps_of(module: nn.Conv1d, channels: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Taps (E, K) and bias (E,) of the convolution's channels; zeros where it has none."""
    with loaded(module):
        taps = constant(module.weight, dtype)[channels, 0]
        return taps, taps.new_zeros(len(taps)) if module.bias is None else constant(module.bias, dtype)[channels]
