"""The gated delta rule (Yang et al. 2025; per channel Kimi Team 2025), with one entry and one table of backends."""

from hf_mambalrp.ops.delta_scan.dispatch import delta_scan

__all__ = ["delta_scan"]
