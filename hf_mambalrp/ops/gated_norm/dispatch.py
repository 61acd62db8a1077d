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
    skip: tuple[Tensor, Tensor] | None = None,
    *,
    rules: Rules,
    backend: str = "auto",
) -> Tensor:
    """o = p [rsqrt(mean(p^2) + eps)] w for each group of channels, p = (y + D x) silu(z) (Dao and Gu 2024, section 7).

    Half rule for the product p, identity rule for silu(z), norm rule for the bracket, LRP-0 for the skip.

    Args:
        y: (B, L, E) output of the scan.
        z: (B, L, E) gate.
        weight: (E,), constant.
        eps: added to the mean square.
        group_size: consecutive channels in a group; divides E.
        skip: x (B, L, E) and D (H,), constant, one number for each E / H consecutive channels; None is D = 0.
        rules: the rules that apply.
        backend: "reference", "chunked" (torch), "triton" (a GPU, under MambaLRP's rules or without a graph), "auto".

    Returns:
        (B, L, E) in the dtype of ``y``.

    Raises:
        BackendError: an unknown backend, or one that cannot run on these arguments.
    """
    arguments = (y, z, weight, eps, group_size, skip, rules)
    o: Tensor = chosen(BACKENDS, backend, arguments)(*arguments)
    return o
