"""The selective scan of Mamba-1 with its step sizes, skip and gate, fused: softplus, recurrence, D u, silu(z)."""

from hf_mambalrp.ops.gated_scan.dispatch import gated_scan

__all__ = ["gated_scan"]
