"""The gated delta rule as it is defined: step by step, differentiable by autograd. Slow; for reading and tests."""

import torch
from torch import Tensor


def delta_scan_reference(
    v: Tensor, q: Tensor, k: Tensor, log_decay: Tensor, beta: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor]:
    """S_t = S_{t-1} D_t (I - beta_t k_t k_t^T) + beta_t v_t k_t^T,  o_t = S_t q_t. Shapes as in :func:`delta_scan`."""
    dtype, wide = v.dtype, torch.promote_types(v.dtype, torch.float32)
    v, q, k, log_decay, beta, state = (x.to(wide) for x in (v, q, k, log_decay, beta, initial_state))
    q, k = (x.repeat_interleave(v.shape[2] // x.shape[2], 2) for x in (q, k))  # (B, L, H, N)
    outputs = []
    for t in range(v.shape[1]):
        state = state * torch.exp(log_decay[:, t, :, None])  # (B, H, P, N)
        read = (state * k[:, t, :, None]).sum(-1)  # what the key finds, (B, H, P)
        written = beta[:, t, :, None] * (v[:, t] - read)
        state = state + written[..., None] * k[:, t, :, None]
        outputs.append((state * q[:, t, :, None]).sum(-1))
    return torch.stack(outputs, 1).to(dtype), state
