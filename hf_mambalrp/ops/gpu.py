"""Where the Triton kernels can run."""

import os
from functools import cache
from importlib.util import find_spec

import torch


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def triton_declines(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernels cannot run on tensors of this device and dtype, and what to do; None where they can."""
    if not _has_triton():
        return "triton is not installed: pip install 'hf_mambalrp[cuda]'"
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"its kernels need a CUDA GPU and the model is on {device}: move it there, or use backend='auto'"
    if dtype == torch.float64:
        return "its kernels compute in float32 and this model is float64: use backend='chunked'"
    return None
