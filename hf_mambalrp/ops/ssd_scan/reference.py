"""The scan of Mamba-2 as it is defined: one step at a time, differentiable by autograd. Slow; for reading and tests."""

import torch
from torch import Tensor


def ssd_scan_reference(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor, D: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T,  y_t = S_t C_t + D x_t. Shapes as in :func:`ssd_scan`."""
    heads_per_group = x.shape[2] // B.shape[2]
    B, C = (value.repeat_interleave(heads_per_group, 2) for value in (B, C))  # (B, L, H, N)
    state, outputs = initial_state, []
    for t in range(x.shape[1]):
        decay = torch.exp(dt[:, t] * A)[:, :, None, None]  # (B, H, 1, 1)
        state = decay * state + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None, :]
        outputs.append((state * C[:, t, :, None, :]).sum(-1))
    y = torch.stack(outputs, 1)
    return y if D is None else y + D.detach().to(y.dtype)[:, None] * x, state
