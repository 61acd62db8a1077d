"""The gated scan in torch: step sizes, the selective scan, skip and gate."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp.ops.recompute import computed_again
from hf_mambalrp.ops.selective_scan import selective_scan
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.gate import gate

SMALL = 2**17
"""Step sizes that are kept until the backward: to compute so few again costs more than half a megabyte."""


def gated_scan_chunked(
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
    """Same contract as :func:`gated_scan_reference`."""
    wide = torch.promote_types(u.dtype, torch.float32)
    A_log, D, bias = (value.detach().to(wide) for value in (A_log, D, bias))
    A = -torch.exp(A_log)

    def softplus() -> Tensor:
        return F.softplus(step_size() + bias)

    if not rules.ssm:
        y, state = selective_scan(u, softplus(), A, B, C, initial_state, backend="chunked")
    else:
        dt = softplus().detach()
        again = torch.is_grad_enabled() and dt.numel() > SMALL
        with computed_again(dt, softplus) if again else nullcontext():
            y, state = selective_scan(u, dt, A, B.detach(), C.detach(), initial_state, backend="chunked")
    return gate(torch.addcmul(y, u, D), z, rules), state  # LRP-0 for the skip, then the half rule
