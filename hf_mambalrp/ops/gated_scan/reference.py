"""The gated selective scan as Mamba-1 writes it, differentiated by autograd: for reading and tests."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp.rules import Rules


def gated_scan_reference(
    u: Tensor,
    step_size: Callable[[], Tensor],
    z: Tensor,
    A_log: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    bias: Tensor,
    initial_state: Tensor | None,
    rules: Rules,
) -> tuple[Tensor, Tensor]:
    """p = y silu(z), y_t = C_t h_t + D u_t, h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t, dt = softplus(delta + bias).

    Arguments and rules as in :func:`gated_scan`; float32 inside, or float64.
    """
    dtype = torch.promote_types(u.dtype, torch.float32)
    A_log, D, bias = (value.detach().to(dtype) for value in (A_log, D, bias))
    A = -torch.exp(A_log)
    delta, B, C = (value.detach() if rules.ssm else value for value in (step_size(), B, C))
    delta, B, C, content, gate = (value.to(dtype) for value in (delta, B, C, u, z))
    dt = F.softplus(delta + bias)
    state = content.new_zeros(u.shape[0], *A.shape) if initial_state is None else initial_state.to(dtype)
    outputs = []
    # unbind and not an index per step, whose gradients would each be as large as the whole.
    for u_t, dt_t, B_t, C_t in zip(content.unbind(1), dt.unbind(1), B.unbind(1), C.unbind(1), strict=True):
        state = torch.exp(dt_t[:, :, None] * A) * state + (dt_t * u_t)[:, :, None] * B_t[:, None, :]
        outputs.append((state * C_t[:, None, :]).sum(-1) + D * u_t)
    sigmoid = torch.sigmoid(gate)
    product = torch.stack(outputs, 1) * gate * (sigmoid.detach() if rules.silu else sigmoid)
    return (product / 2 + (product / 2).detach() if rules.gate else product).to(u.dtype), state
