"""One entry for RMSNorm, and one for that of a sum."""

import torch
from torch import Tensor

from hf_mambalrp.ops.backend import chosen, elementwise
from hf_mambalrp.rules import Rules

BACKENDS = elementwise("norm")
OF_SUMS = elementwise("norm", "norm_of_sum")


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


def norm_of_sum(
    x: Tensor,
    added: Tensor,
    weight: Tensor,
    eps: float,
    out_dtype: torch.dtype,
    *,
    rules: Rules,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """h = x + added, and norm(h): what ends one branch of a residual stream and begins the next, in one pass.

    Args:
        x: (..., D), float32 or float64.
        added: (..., D), of a dtype that is no wider.
        weight: (D,), constant, of any dtype.
        eps: added to the mean square.
        out_dtype: dtype of the normed sum.
        rules: the rules that apply.
        backend: as of :func:`norm`.

    Returns:
        h (..., D) in the dtype of ``x``, and (..., D) in ``out_dtype``.

    Raises:
        BackendError: an unknown backend, or one that cannot run on these arguments.
    """
    arguments = (x, added, weight, eps, out_dtype, rules)
    found: tuple[Tensor, Tensor] = chosen(OF_SUMS, backend, arguments)(*arguments)
    return found
