"""The scan of Mamba-2 as matrix products over chunks of positions (block decomposition, Dao and Gu 2024, section 6).

With s_t = A (dt_1 + ... + dt_t) the log decay within a chunk, and S the state before it, for one head

    y  = M (dt x) + exp(s) (C S),     M_ij = (C_i . B_j) exp(s_i - s_j) for j <= i, else 0
    S' = exp(s_last) S + (exp(s_last - s) dt x)^T B

The map from (x, S) to (y, S') is linear, and its transpose is the same four products with M, B and C transposed:

    d(dt x) = M^T dy + exp(s_last - s) (B dS')
    dS      = exp(s_last) dS' + (exp(s) dy)^T C

so under the SSM rule, where dt, B and C are constants, the backward keeps no state but those between chunks need, which
run along with it, and costs a forward.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 64
"""Positions at a time: the products with M cost in proportion to it, those with the state a fixed price a position."""


class _Chunk(NamedTuple):
    """What dt, B and C make of one chunk of Q positions; heads are (G, R), R of them in each of G groups."""

    mixing: Tensor
    """M, (B, G, R, Q, Q)."""
    since: Tensor
    """exp(s), decay from the state before the chunk to each position: (B, Q, G, R, 1)."""
    until: Tensor
    """exp(s_last - s), decay from each position to the state after the chunk: (B, Q, G, R, 1)."""
    through: Tensor
    """exp(s_last), decay of the state over the chunk: (B, G, R, 1, 1)."""
    B: Tensor
    """(B, Q, G, N)."""
    C: Tensor
    """(B, Q, G, N)."""

    def forward(self, dtx: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map dt x (B, Q, G, R, P) and the state before (B, G, R, P, N) to y and the state after."""
        y = torch.einsum("bgrij,bjgrp->bigrp", self.mixing, dtx)
        y = y + self.since * torch.einsum("bign,bgrpn->bigrp", self.C, state)
        return y, self.through * state + torch.einsum("bjgrp,bjgn->bgrpn", self.until * dtx, self.B)

    def transposed(self, grad_y: Tensor, grad_state: Tensor) -> tuple[Tensor, Tensor]:
        """Map adjoints of y and of the state after to those of dt x and of the state before."""
        grad_dtx = torch.einsum("bgrij,bigrp->bjgrp", self.mixing, grad_y)
        grad_dtx = grad_dtx + self.until * torch.einsum("bgrpn,bjgn->bjgrp", grad_state, self.B)
        return grad_dtx, self.through * grad_state + torch.einsum("bigrp,bign->bgrpn", self.since * grad_y, self.C)


def _chunk(dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> _Chunk:
    """The matrices of one chunk from dt (B, Q, G, R), A (G, R), B and C (B, Q, G, N)."""
    # Differences of sums: in float64, or a slow decay behind a fast one would lose its digits.
    s = (dt.double() * A.double()).cumsum(1)
    by_head = s.permute(0, 2, 3, 1)  # (B, G, R, Q)
    steps = torch.arange(dt.shape[1], device=dt.device)
    future = steps[:, None] < steps
    decay = (by_head[..., :, None] - by_head[..., None, :]).to(dt.dtype).masked_fill(future, -torch.inf).exp()
    scores = torch.einsum("bign,bjgn->bgij", C, B)
    return _Chunk(
        mixing=scores[:, :, None] * decay,
        since=s.exp().to(dt.dtype)[..., None],
        until=(s[:, -1:] - s).exp().to(dt.dtype)[..., None],
        through=s[:, -1].exp().to(dt.dtype)[..., None, None],
        B=B,
        C=C,
    )


def _grouped(per_head: Tensor, groups: int, axis: int) -> Tensor:
    """Split heads into (G, R): head h belongs to group h // R."""
    grouped: Tensor = per_head.unflatten(axis, (groups, -1))
    return grouped


def _chunks(length: int) -> list[slice]:
    return [slice(start, min(start + CHUNK, length)) for start in range(0, length, CHUNK)]


class _ConstantParameters(torch.autograd.Function):
    """The scan as a linear map of x and the initial state."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(dt, A, B, C)
        return _scan(x, dt, A, B, C, initial_state)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        dt, A, B, C = ctx.saved_tensors
        groups = B.shape[2]
        dt, A, grad_y = _grouped(dt, groups, 2), _grouped(A, groups, 0), _grouped(grad_y, groups, 2)
        grad_state, grad_x = _grouped(grad_last, groups, 1), torch.empty_like(grad_y)
        for at in reversed(_chunks(dt.shape[1])):
            grad_dtx, grad_state = _chunk(dt[:, at], A, B[:, at], C[:, at]).transposed(grad_y[:, at], grad_state)
            torch.mul(grad_dtx, dt[:, at, ..., None], out=grad_x[:, at])
        return grad_x.flatten(2, 3), None, None, None, None, grad_state.flatten(1, 2)


def _scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor) -> tuple[Tensor, Tensor]:
    groups = B.shape[2]
    dt, A, dtx = _grouped(dt, groups, 2), _grouped(A, groups, 0), _grouped(x * dt[..., None], groups, 2)
    state, outputs = _grouped(initial_state, groups, 1), []
    for at in _chunks(x.shape[1]):
        y, state = _chunk(dt[:, at], A, B[:, at], C[:, at]).forward(dtx[:, at], state)
        outputs.append(y)
    return torch.cat(outputs, 1).flatten(2, 3), state.flatten(1, 2)


def ssd_scan_chunked(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`ssd_scan_reference`; nothing of size (B, L, H, P, N) exists."""
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in (dt, A, B, C)):
        return _scan(x, dt, A, B, C, initial_state)
    result: tuple[Tensor, Tensor] = _ConstantParameters.apply(x, dt, A, B, C, initial_state)
    return result
