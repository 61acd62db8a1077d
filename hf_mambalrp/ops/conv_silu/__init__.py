"""The causal depthwise convolution with SiLU behind it, with one entry and one table of backends."""

from hf_mambalrp.ops.conv_silu.dispatch import conv_silu

__all__ = ["conv_silu"]
