"""Unified implicit attention (Zimerman, Ali and Wolf 2025): gate, scan, SiLU and convolution as one matrix a channel.

    H = diag(scale) alpha diag(sigmoid(c)) M_conv,   out_proj's input = H x + scale (alpha (sigmoid(c) bias) + D u)

with x and c the input and output of the convolution, bias its bias, and u = silu(c). The skip D is not in H: it reads
the position itself, and is a term of its own beside the convolution's bias.
"""

import torch
from torch import Tensor

from hf_mambalrp.attention.mixing import Gains


def unified_channels(alpha: Tensor, gains: Gains, rows: range) -> Tensor:
    """H from alpha, both (B, E, R, keys up to the last query)."""
    weights = gains.queries[:, rows.start : rows.stop].transpose(1, 2)[..., None]
    outputs = alpha * weights * gains.keys[:, : rows.stop].transpose(1, 2)[:, :, None]
    return before_convolution(outputs, gains.taps)


def before_convolution(outputs: Tensor, taps: Tensor) -> Tensor:
    """From outputs to inputs of the convolution, the last axis: M_conv from the right. Shape: (B, E, R, keys)."""
    inputs, keys = torch.zeros_like(outputs), outputs.shape[-1]
    for k in range(taps.shape[1]):
        back = taps.shape[1] - 1 - k  # tap k reads `back` positions earlier
        inputs[..., : max(0, keys - back)].addcmul_(outputs[..., back:], taps[:, k, None, None])
    return inputs
