"""One entry for the scan of Mamba-2: the table of backends and the choice among them."""

import torch
from torch import Tensor

from hf_mambalrp.ops.backend import Arguments, Backend, chosen
from hf_mambalrp.ops.gpu import triton_declines


def _triton_declines(arguments: Arguments) -> str | None:
    x, *parameters, _, _ = arguments
    if torch.is_grad_enabled() and any(value.requires_grad for value in parameters):
        return "it holds dt, A, B and C constant, as method='mambalrp' does; other methods need 'chunked'"
    return triton_declines(x.device, x.dtype)


_HERE = "hf_mambalrp.ops.ssd_scan"
BACKENDS: dict[str, Backend] = {
    "reference": Backend(f"{_HERE}.reference", "ssd_scan_reference"),
    "chunked": Backend(f"{_HERE}.chunked", "ssd_scan_chunked"),
    "triton": Backend(f"{_HERE}.triton", "ssd_scan_triton", _triton_declines),
}


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    initial_state: Tensor | None = None,
    D: Tensor | None = None,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T,  y_t = S_t C_t + D x_t per head (Dao and Gu 2024, section 6).

    Differentiable in every argument but D. Arguments that do not require a gradient are constants; with dt, A, B and C
    constant the scan is linear in x and the initial state, and its backward is the transposed scan.

    Args:
        x: (B, L, H, P) input of the scan.
        dt: (B, L, H) positive step sizes, after softplus and clamp.
        A: (H,) negative decay rates.
        B: (B, L, G, N) input projection; head h uses group h // (H / G).
        C: (B, L, G, N) output projection.
        initial_state: (B, H, P, N) state before the first token; None is zero.
        D: (H,) skip, of any dtype; None is zero.
        backend: "reference" (a loop under autograd), "chunked" (matrix products over chunks), "triton" (the same as GPU
            kernels, with constant parameters), or "auto": "chunked".

    Returns:
        y (B, L, H, P) in the dtype of ``x``, and the state after the last token (B, H, P, N), float32 at least.

    Raises:
        BackendError: an unknown backend, or one that cannot run on these arguments.
    """
    if initial_state is None:
        initial_state = x.new_zeros(x.shape[0], x.shape[2], x.shape[3], B.shape[3])
    arguments = (x, dt, A, B, C, initial_state, D)
    found: tuple[Tensor, Tensor] = chosen(BACKENDS, "chunked" if backend == "auto" else backend, arguments)(*arguments)
    return found
