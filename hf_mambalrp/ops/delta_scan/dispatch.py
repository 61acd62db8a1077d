"""One entry for the gated delta rule: the table of backends and the choice among them."""

import torch
from torch import Tensor

from hf_mambalrp.ops.backend import Arguments, Backend, chosen
from hf_mambalrp.ops.gpu import triton_declines


def _triton_declines(arguments: Arguments) -> str | None:
    v, *parameters, _ = arguments
    if torch.is_grad_enabled() and any(value.requires_grad for value in parameters):
        return "it holds q, k, decay and beta constant, as method='mambalrp' does; other methods need 'chunked'"
    return triton_declines(v.device, v.dtype)


_HERE = "hf_mambalrp.ops.delta_scan"
BACKENDS: dict[str, Backend] = {
    "reference": Backend(f"{_HERE}.reference", "delta_scan_reference"),
    "chunked": Backend(f"{_HERE}.chunked", "delta_scan_chunked"),
    "triton": Backend(f"{_HERE}.triton", "delta_scan_triton", _triton_declines),
}


def delta_scan(
    v: Tensor,
    q: Tensor,
    k: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    initial_state: Tensor | None = None,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """S_t = S_{t-1} D_t (I - beta_t k_t k_t^T) + beta_t v_t k_t^T,  o_t = S_t q_t per head,  D_t = diag(exp(g_t)).

    Yang, Kautz and Hatamizadeh 2025 (Gated DeltaNet, equation 10), with one decay a head; with one a channel of the key
    it is Kimi Delta Attention (Kimi Team 2025, equation 1). Differentiable in every argument. Arguments that do not
    require a gradient are constants; with q, k, decay and beta constant the scan is linear in v and the initial state,
    and its backward is the transposed scan: backwards in time, with L the adjoint of the state behind position t,

        L_t = L'_t + do_t q_t^T,   dv_t = beta_t L_t k_t,   L'_{t-1} = L_t (I - beta_t k_t k_t^T) D_t.

    Args:
        v: (B, L, H, P) values.
        q: (B, L, G, N) queries; head h uses group h // (H / G). Their scale and norm are the caller's.
        k: (B, L, G, N) keys, of length 1 at most where the scan is to be stable.
        log_decay: g, (B, L, H), or (B, L, H, N) of every channel of the key; at most 0.
        beta: (B, L, H) strength of writing, from 0 to 2.
        initial_state: (B, H, P, N) state before the first token; None is zero.
        backend: "reference" (a loop under autograd), "chunked" (matrix products over chunks), "triton" (the same as GPU
            kernels, with constant parameters), or "auto": "chunked".

    Returns:
        o (B, L, H, P) in the dtype of ``v``, and the state after the last token (B, H, P, N), float32 at least.

    Raises:
        BackendError: an unknown backend, or one that cannot run on these arguments.
    """
    if initial_state is None:
        initial_state = v.new_zeros(v.shape[0], v.shape[2], v.shape[3], k.shape[3])
    if log_decay.dim() == 3:
        log_decay = log_decay[..., None]
    arguments = (v, q, k, log_decay, beta, initial_state)
    found: tuple[Tensor, Tensor] = chosen(BACKENDS, "chunked" if backend == "auto" else backend, arguments)(*arguments)
    return found
