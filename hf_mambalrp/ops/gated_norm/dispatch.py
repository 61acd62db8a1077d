"""One entry for the gated norm."""

from torch import Tensor

from hf_mambalrp.ops.backend import chosen, elementwise
from hf_mambalrp.rules import Rules

BACKENDS = elementwise("gated_norm")


def gated_norm(
    y: Tensor,
    z: Tensor,
    weight: Tensor,
    eps: float,
    group_size: int,
    *,
    rules: Rules,
    backend: str = "auto",
) -> Tensor:
    """o = p [rsqrt(mean(p^2) + eps)] w for each group of channels, p = y silu(z) (Dao and Gu 2024, section 7).

    Half rule for the product p, identity rule for silu(z), norm rule for the bracket.

    Args:
        y: (B, L, E) output of the scan with its skip.
        z: (B, L, E) gate.
        weight: (E,), constant.
        eps: added to the mean square.
        group_size: consecutive channels in a group; divides E.
        rules: the rules that apply.
        backend: "reference", "chunked" (torch), "triton" (a GPU, under MambaLRP's rules or without a graph), "auto".

    Returns:
        (B, L, E) in the dtype of ``y``.

    Raises:
        BackendError: an unknown backend, or one that cannot run on these arguments.
    """
    arguments = (y, z, weight, eps, group_size, rules)
    o: Tensor = chosen(BACKENDS, backend, arguments)(*arguments)
    return o
