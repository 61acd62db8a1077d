"""The gated RMSNorm of Mamba-2, with one entry and one table of backends."""

from hf_mambalrp.ops.gated_norm.dispatch import gated_norm

__all__ = ["gated_norm"]
