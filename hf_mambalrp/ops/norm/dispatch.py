"""One entry for RMSNorm."""

import torch
from torch import Tensor

from hf_mambalrp.ops.backend import chosen, elementwise
from hf_mambalrp.rules import Rules

BACKENDS = elementwise("norm")


def norm(
    x: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype, *, rules: Rules, backend: str = "auto"
) -> Tensor:
    """y = x [rsqrt(mean(x^2) + eps)] w over the last dimension, the bracket constant under the norm rule.

    Args:
        x: (..., D), float32 or float64.
        weight: (D,), constant, of any dtype.
        eps: added to the mean square.
        out_dtype: dtype of the result, that of the matrix product behind it.
        rules: the rules that apply.
        backend: "reference", "chunked" (torch), "triton" (a GPU, under MambaLRP's rules or without a graph), "auto".

    Raises:
        BackendError: an unknown backend, or one that cannot run on these arguments.
    """
    arguments = (x, weight, eps, out_dtype, rules)
    y: Tensor = chosen(BACKENDS, backend, arguments)(*arguments)
    return y
