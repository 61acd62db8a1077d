"""The selective scan of Mamba (Gu and Dao 2023, Algorithm 2), with one entry and one dispatch table."""

from hf_mambalrp.ops.selective_scan.dispatch import selective_scan

__all__ = ["selective_scan"]
