"""RMSNorm in torch, keeping one number a token for its backward under the norm rule."""

import torch
from torch import Tensor

from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.norm import rms_norm


def norm_chunked(x: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype, rules: Rules) -> Tensor:
    """Same contract as :func:`norm_reference`."""
    return rms_norm(x, weight.to(x.dtype), eps, rules).to(out_dtype)


def norm_of_sum_chunked(
    x: Tensor, added: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype, rules: Rules
) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`norm_of_sum_reference`."""
    h = x + added
    return h, norm_chunked(h, weight, eps, out_dtype, rules)
