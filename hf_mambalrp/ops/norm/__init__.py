"""RMSNorm with its weight, with one entry and one table of backends."""

from hf_mambalrp.ops.norm.dispatch import norm

__all__ = ["norm"]
