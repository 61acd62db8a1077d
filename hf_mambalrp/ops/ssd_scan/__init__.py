"""The scan of Mamba-2 in state-space duality form (Dao and Gu 2024), with one entry and one dispatch table."""

from hf_mambalrp.ops.ssd_scan.dispatch import ssd_scan

__all__ = ["ssd_scan"]
