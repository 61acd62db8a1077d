"""One entry for the convolution with SiLU."""

import torch
from torch import Tensor

from hf_mambalrp.ops.backend import Arguments, Backend, chosen, elementwise, numba_declines
from hf_mambalrp.rules import Rules

WORTH_COMPILING = 2**16
"""Numbers of an input from which "auto" takes the compiled one: loading compiled code has a cost of its own."""


def _compiled_declines(arguments: Arguments) -> str | None:
    x, *_, rules = arguments
    if torch.is_grad_enabled() and not rules.silu:
        return "it has the identity rule, as method='mambalrp' does; other methods need 'chunked'"
    return numba_declines(x)


BACKENDS = {
    **elementwise("conv_silu"),
    "compiled": Backend("hf_mambalrp.ops.conv_silu.compiled", "conv_silu_compiled", _compiled_declines),
}


def conv_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    earlier: Tensor,
    mask: Tensor | None = None,
    *,
    rules: Rules,
    backend: str = "auto",
) -> Tensor:
    """u_t = m_t c_t [sigmoid(c_t)],  c_t = sum_k w_k x_{t-K+1+k} + b per channel, the bracket constant.

    The bracket is constant under the identity rule only. c_t follows LRP-0, or LRP-gamma where the rules say so.
    Weights and mask are constants; arithmetic is in float32, or float64 for float64 inputs.

    Args:
        x: (B, L, E).
        weight: (E, K), of any dtype.
        bias: (B, 1, E), one copy a row, or None.
        earlier: (B, K - 1, E), the inputs before the first position.
        mask: (B, L) or (B, L, 1), zero on padding, or None.
        rules: the rules that apply.
        backend: "reference", "chunked" (torch), "compiled" (numba; float32 on the CPU, under the identity rule or
            without a graph), "triton" (a GPU, under MambaLRP's rules or without a graph), or "auto", the compiled one
            where it can and is worth it.

    Returns:
        (B, L, E) in the dtype of ``x``.

    Raises:
        BackendError: an unknown backend, or one that cannot run on these arguments.
    """
    arguments = (x, weight, bias, earlier, mask, rules)
    if backend == "auto" and x.numel() >= WORTH_COMPILING and _compiled_declines(arguments) is None:
        backend = "compiled"
    u: Tensor = chosen(BACKENDS, backend, arguments)(*arguments)
    return u
