"""Rows of the mean attention without its matrix: the transposed scan, in time and memory linear in the length."""

import torch
from torch import Tensor

from hf_mambalrp.ops.selective_scan import selective_scan
from hf_mambalrp.ops.ssd_scan import ssd_scan
from hf_mambalrp.rules.mixer import Signals


def weighted_rows(s: Signals, weights: Tensor) -> Tensor:
    """sum_i weights_i mean_d alpha_ij, for every j. Shape: (B, L) -> (B, L).

    alpha_ij = dy_i / du_j, so it is the scan's vector-Jacobian product at weights / E in every channel.
    """
    with torch.enable_grad():
        u = torch.zeros_like(s.dt).requires_grad_()
        if s.A.dim() == 2:
            y, _ = selective_scan(u, s.dt, s.A, s.B, s.C)
        else:
            y = ssd_scan(u[..., None], s.dt, s.A, s.B, s.C)[0][..., 0]
        weights = weights.to(y)[..., None].expand_as(y).contiguous()
        (rows,) = torch.autograd.grad(y, u, weights)
    return rows.mean(-1)
