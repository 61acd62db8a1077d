"""The gated selective scan as Mamba-1 writes it, with what the rules hold constant detached."""

import torch
from torch import Tensor
from torch.nn import functional as F


def gated_scan_reference(
    u: Tensor,
    delta: Tensor,
    z: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    bias: Tensor,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """p = y silu(z), y_t = C_t h_t + D u_t, h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t, dt = softplus(delta + bias).

    Differentiated under MambaLRP's rules (Rezaei Jafari et al. 2024, section 4): dt, A, B, C and D are constants, silu
    has the identity rule z [sigmoid(z)], and the gate the half rule p / 2 + [p / 2].

    Args:
        u: (B, L, E) input of the scan.
        delta: (B, L, E) step sizes before bias and softplus.
        z: (B, L, E) gate.
        A: (E, N) negative decay rates.
        B: (B, L, N) input projection.
        C: (B, L, N) output projection.
        D: (E,) skip.
        bias: (E,) of the step sizes.
        initial_state: (B, E, N) state before the first position; None is zero.

    Returns:
        p (B, L, E) in the dtype of ``u`` and the state after the last position (B, E, N); float32 inside, or float64.
    """
    dtype = torch.promote_types(u.dtype, torch.float32)
    delta, A, B, C, D, bias = (value.detach().to(dtype) for value in (delta, A, B, C, D, bias))
    content, gate = u.to(dtype), z.to(dtype)
    dt = F.softplus(delta + bias)
    state = content.new_zeros(u.shape[0], *A.shape) if initial_state is None else initial_state.to(dtype)
    outputs = []
    # unbind and not an index per step, whose gradients would each be as large as the whole.
    for u_t, dt_t, B_t, C_t in zip(content.unbind(1), dt.unbind(1), B.unbind(1), C.unbind(1), strict=True):
        state = torch.exp(dt_t[:, :, None] * A) * state + (dt_t * u_t)[:, :, None] * B_t[:, None, :]
        outputs.append((state * C_t[:, None, :]).sum(-1) + D * u_t)
    product = torch.stack(outputs, 1) * (gate * torch.sigmoid(gate).detach())
    return (product / 2 + (product / 2).detach()).to(u.dtype), state
