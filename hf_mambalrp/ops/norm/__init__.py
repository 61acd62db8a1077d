"""RMSNorm with its weight, alone and behind a sum: an entry and a table of backends each."""

from hf_mambalrp.ops.norm.dispatch import norm, norm_of_sum

__all__ = ["norm", "norm_of_sum"]
