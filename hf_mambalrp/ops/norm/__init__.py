"""RMSNorm with its weight, with alone and behind a sum, with a table of backends each."""

from hf_mambalrp.ops.norm.dispatch import norm, norm_of_sum

__all__ = ["norm", "norm_of_sum"]
