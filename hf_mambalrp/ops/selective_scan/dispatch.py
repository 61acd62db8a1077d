"""One entry for the selective scan: checks, the table of backends, and the choice among them."""

from collections.abc import Callable

from torch import Tensor

from hf_mambalrp.errors import BackendError
from hf_mambalrp.ops.selective_scan.chunked import selective_scan_chunked
from hf_mambalrp.ops.selective_scan.reference import selective_scan_reference

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

BACKENDS: dict[str, Scan] = {
    "reference": selective_scan_reference,
    "chunked": selective_scan_chunked,
}


def check_backend(backend: str) -> None:
    """Raise :class:`BackendError` for a name that is not "auto" and not in the table."""
    if backend != "auto" and backend not in BACKENDS:
        raise BackendError(f"Unknown backend {backend!r}. Choose 'auto' or one of {sorted(BACKENDS)}.")


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
        backend: "auto", "reference" or "chunked".

    Returns:
        y (B, L, E) and the state after the last token (B, E, N), in the dtype of ``u``.

    Raises:
        BackendError: unknown backend.
    """
    check_backend(backend)
    if initial_state is None:
        initial_state = u.new_zeros(u.shape[0], *A.shape)
    scan = BACKENDS["chunked" if backend == "auto" else backend]
    return scan(u, dt, A, B, C, initial_state)
