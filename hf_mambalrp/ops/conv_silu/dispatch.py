"""One entry for the convolution with SiLU."""

from torch import Tensor

from hf_mambalrp.ops.backend import chosen, elementwise
from hf_mambalrp.rules import Rules

BACKENDS = elementwise("conv_silu")


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
        weight: (E, K).
        bias: (B, 1, E), one copy a row, or None.
        earlier: (B, K - 1, E), the inputs before the first position.
        mask: (B, L) or (B, L, 1), zero on padding, or None.
        rules: the rules that apply.
        backend: "reference", "chunked" (torch), "triton" (a GPU, under MambaLRP's rules or without a graph), "auto".

    Returns:
        (B, L, E) in the dtype of ``x``.

    Raises:
        BackendError: an unknown backend, or one that cannot run on these arguments.
    """
    arguments = (x, weight, bias, earlier, mask, rules)
    u: Tensor = chosen(BACKENDS, backend, arguments)(*arguments)
    return u
