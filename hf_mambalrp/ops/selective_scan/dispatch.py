"""One entry for the selective scan: the table of backends, what each supports, and the choice among them."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

from hf_mambalrp.errors import BackendError

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

WORTH_COMPILING = 2**20
"""State updates (B L E N) from which "auto" takes the compiled scan: loading compiled code has a cost of its own."""


@dataclass(frozen=True)
class Backend:
    """One implementation; its module is imported when first used."""

    module: str
    function: str
    declines: Callable[[tuple[Tensor, ...]], str | None]
    """Why it cannot run on these arguments, or None."""

    @property
    def scan(self) -> Scan:
        """The implementation."""
        found: Scan = getattr(import_module(f"hf_mambalrp.ops.selective_scan.{self.module}"), self.function)
        return found


def _never(arguments: tuple[Tensor, ...]) -> str | None:
    return None


def _compiled_declines(arguments: tuple[Tensor, ...]) -> str | None:
    u, dt, A, B, C, _ = arguments
    if find_spec("numba") is None:
        return "numba is not installed: pip install numba"
    if u.device.type != "cpu" or u.dtype != torch.float32:
        return f"it computes in float32 on the CPU, and this is {u.dtype} on {u.device}: use 'chunked'"
    if torch.is_grad_enabled() and any(value.requires_grad for value in (dt, A, B, C)):
        return "it holds dt, A, B and C constant, as method='mambalrp' does; other methods need 'chunked'"
    return None


BACKENDS: dict[str, Backend] = {
    "reference": Backend("reference", "selective_scan_reference", _never),
    "chunked": Backend("chunked", "selective_scan_chunked", _never),
    "compiled": Backend("compiled", "selective_scan_compiled", _compiled_declines),
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
        backend: "reference" (a loop under autograd), "chunked" (plain torch), "compiled" (numba; float32 on the CPU
            with constant parameters), or "auto", the fastest of them that supports the arguments.

    Returns:
        y (B, L, E) and the state after the last token (B, E, N), in the dtype of ``u``.

    Raises:
        BackendError: an unknown backend, or one that cannot run on these arguments.
    """
    check_backend(backend)
    if initial_state is None:
        initial_state = u.new_zeros(u.shape[0], *A.shape)
    arguments = (u, dt, A, B, C, initial_state)
    if backend == "auto":
        worth = u.numel() * A.shape[1] >= WORTH_COMPILING
        backend = "compiled" if worth and _compiled_declines(arguments) is None else "chunked"
    elif (reason := BACKENDS[backend].declines(arguments)) is not None:
        raise BackendError(f"backend={backend!r} cannot run here: {reason}.")
    return BACKENDS[backend].scan(*arguments)
