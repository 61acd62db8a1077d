"""The state-space layers of Mamba-1 and Mamba-2 with their parameters constant."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from hf_mambalrp.ops.selective_scan import selective_scan
from hf_mambalrp.ops.ssd_scan import ssd_scan
from hf_mambalrp.rules import Rules


def computed_again(value: Tensor, compute: Callable[[], Tensor]) -> AbstractContextManager[None]:
    """Operations inside that would keep ``value`` for their backward ``compute`` it again there instead."""
    address, shape = value.data_ptr(), value.shape  # not the tensor itself, which these functions would keep alive

    def pack(kept: Tensor) -> Tensor | None:
        return None if (kept.data_ptr(), kept.shape) == (address, shape) else kept

    def unpack(kept: Tensor | None) -> Tensor:
        return compute() if kept is None else kept

    hooks: AbstractContextManager[None] = torch.autograd.graph.saved_tensors_hooks(pack, unpack)
    return hooks


def selective_ssm(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor, rules: Rules, backend: str
) -> tuple[Tensor, Tensor]:
    """y_t = [C_t] h_t, h_t = [exp(dt_t A)] h_{t-1} + [dt_t B_t] u_t, the brackets constant under the SSM rule.

    Shapes as in :func:`hf_mambalrp.ops.selective_scan.selective_scan`.
    """
    if rules.ssm:
        dt, B, C = dt.detach(), B.detach(), C.detach()
    return selective_scan(u, dt, A.detach(), B, C, initial_state, backend=backend)


def ssd_ssm(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor, rules: Rules, backend: str
) -> tuple[Tensor, Tensor]:
    """y_t = S_t [C_t], S_t = [exp(dt_t A)] S_{t-1} + [dt_t] x_t [B_t]^T, the brackets constant under the SSM rule.

    Shapes as in :func:`hf_mambalrp.ops.ssd_scan.ssd_scan`.
    """
    if rules.ssm:
        dt, B, C = dt.detach(), B.detach(), C.detach()
    return ssd_scan(x, dt, A.detach(), B, C, initial_state, backend=backend)
