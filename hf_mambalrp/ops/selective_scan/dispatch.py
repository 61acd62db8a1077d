"""One entry for the selective scan: the table of backends, what each supports, and the choice among them."""

import torch
from torch import Tensor

from hf_mambalrp.ops.backend import Arguments, Backend, chosen, numba_declines

WORTH_COMPILING = 2**20
"""State updates (B L E N) from which "auto" takes the compiled scan: loading compiled code has a cost of its own."""


def _compiled_declines(arguments: Arguments) -> str | None:
    u, dt, A, B, C, _ = arguments
    if torch.is_grad_enabled() and any(value.requires_grad for value in (dt, A, B, C)):
        return "it holds dt, A, B and C constant, as method='mambalrp' does; other methods need 'chunked'"
    return numba_declines(u)


_HERE = "hf_mambalrp.ops.selective_scan"
BACKENDS: dict[str, Backend] = {
    "reference": Backend(f"{_HERE}.reference", "selective_scan_reference"),
    "chunked": Backend(f"{_HERE}.chunked", "selective_scan_chunked"),
    "compiled": Backend(f"{_HERE}.compiled", "selective_scan_compiled", _compiled_declines),
}


def selective_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    initial_state: Tensor | None = None,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t,  y_t = C_t h_t (Gu and Dao 2023, equations 2 and 4).

    Differentiable in every argument. Arguments that do not require a gradient are constants; with dt, A, B and C
    constant the scan is linear in u and the initial state, and its backward is the transposed scan.

    Args:
        u: (B, L, E) input of the scan.
        dt: (B, L, E) positive step sizes, after softplus.
        A: (E, N) negative decay rates.
        B: (B, L, N) input projection.
        C: (B, L, N) output projection.
        initial_state: (B, E, N) state before the first token; None is zero.
        backend: "reference" (a loop under autograd), "chunked" (plain torch), "compiled" (numba; float32 on the CPU
            with constant parameters), or "auto", the fastest of them that supports the arguments.

    Returns:
        y (B, L, E) and the state after the last token (B, E, N), in the dtype of ``u``.

    Raises:
        BackendError: an unknown backend, or one that cannot run on these arguments.
    """
    if initial_state is None:
        initial_state = u.new_zeros(u.shape[0], *A.shape)
    arguments = (u, dt, A, B, C, initial_state)
    if backend == "auto":
        worth = u.numel() * A.shape[1] >= WORTH_COMPILING
        backend = "compiled" if worth and _compiled_declines(arguments) is None else "chunked"
    found: tuple[Tensor, Tensor] = chosen(BACKENDS, backend, arguments)(*arguments)
    return found
