"""The selective scan as the paper writes it: one step after the other, differentiated by autograd."""

import torch
from torch import Tensor


def selective_scan_reference(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor]:
    """h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t,  y_t = C_t h_t.

    Shapes: u, dt (B, L, E); A (E, N); B, C (B, L, N); initial_state (B, E, N). Returns y (B, L, E) and h_L (B, E, N).
    """
    state, outputs = initial_state, []
    for t in range(u.shape[1]):
        decay = torch.exp(dt[:, t, :, None] * A)  # (B, E, N)
        state = decay * state + (dt[:, t] * u[:, t])[:, :, None] * B[:, t, None, :]
        outputs.append((state * C[:, t, None, :]).sum(-1))
    return torch.stack(outputs, 1), state
