"""RMSNorm in torch, keeping one number a token for its backward under the norm rule."""

import torch
from torch import Tensor

from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.norm import rms_norm


def norm_chunked(x: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype, rules: Rules) -> Tensor:
    """Same contract as :func:`norm_reference`."""
    return rms_norm(x, weight.to(x.dtype), eps, rules).to(out_dtype)
