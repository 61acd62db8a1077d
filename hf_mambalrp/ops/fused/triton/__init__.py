"""The fused ops as Triton kernels: one launch forward, one backward, arithmetic in float32, every input read once.

Gradients exist for what the rules leave: signals and the convolution's bias. Inputs may be views whose last dimension
is contiguous. float64 inputs are computed in float32: they belong to ``reference``.
"""

from hf_mambalrp.ops.fused.triton.conv_silu import conv_silu_triton
from hf_mambalrp.ops.fused.triton.gated_norm import gated_norm_triton
from hf_mambalrp.ops.fused.triton.norm import norm_triton

__all__ = ["conv_silu_triton", "gated_norm_triton", "norm_triton"]
