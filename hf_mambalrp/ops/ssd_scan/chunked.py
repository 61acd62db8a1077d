"""The scan of Mamba-2 as matrix products over chunks of positions (block decomposition, Dao and Gu 2024, section 6).

With s_t = A (dt_1 + ... + dt_t) the log decay within a chunk, and S the state before it, for one head

    y  = M (dt x) + exp(s) (C S),     M_ij = (C_i . B_j) exp(s_i - s_j) for j <= i, else 0
    S' = exp(s_last) S + (exp(s_last - s) dt x)^T B

The map from (x, S) to (y, S') is linear, and its transpose is the same four products with M, B and C transposed:

    d(dt x) = M^T dy + exp(s_last - s) (B dS')
    dS      = exp(s_last) dS' + (exp(s) dy)^T C

so under the SSM rule, where dt, B and C are constants, the backward keeps no state but those between chunks need, which
run along with it, and costs a forward. Several chunks go at a time: only S is carried from one to the next.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 64
"""Positions at a time: the products with M cost in proportion to it, those with the state a fixed price a position."""


ELEMENTS = 2**18
"""Numbers that the matrices M of a few chunks, or the states between them, have at most: 1 MiB of float32."""


class _Chunks(NamedTuple):
    """What dt, B and C make of K chunks of Q positions; heads are (G, R), R of them in each of G groups."""

    mixing: Tensor
    """M, (B, K, G, R, Q, Q)."""
    since: Tensor
    """exp(s), decay from the state before a chunk to each position: (B, K, Q, G, R, 1)."""
    until: Tensor
    """exp(s_last - s), decay from each position to the state after its chunk: (B, K, Q, G, R, 1)."""
    through: Tensor
    """exp(s_last), decay of the state over a chunk: (B, K, G, R, 1, 1)."""
    B: Tensor
    """(B, K, Q, G, N)."""
    C: Tensor
    """(B, K, Q, G, N)."""

    def forward(self, dtx: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map dt x (B, K, Q, G, R, P) and the state before (B, G, R, P, N) to y and the state after."""
        added, before = torch.einsum("bcjgrp,bcjgn->bcgrpn", self.until * dtx, self.B), []
        for through, own in zip(self.through.unbind(1), added.unbind(1), strict=True):
            before.append(state)
            state = torch.addcmul(own, through, state)
        y = torch.einsum("bcgrij,bcjgrp->bcigrp", self.mixing, dtx)
        of_states = torch.einsum("bcign,bcgrpn->bcigrp", self.C, torch.stack(before, 1))
        return torch.addcmul(y, self.since, of_states), state

    def transposed(self, grad_y: Tensor, grad_state: Tensor) -> tuple[Tensor, Tensor]:
        """Map adjoints of y and of the state after to those of dt x and of the state before."""
        added, behind = torch.einsum("bcigrp,bcign->bcgrpn", self.since * grad_y, self.C), []
        for through, own in zip(self.through.unbind(1)[::-1], added.unbind(1)[::-1], strict=True):
            behind.append(grad_state)
            grad_state = torch.addcmul(own, through, grad_state)
        grad_dtx = torch.einsum("bcgrij,bcigrp->bcjgrp", self.mixing, grad_y)
        of_states = torch.einsum("bcgrpn,bcjgn->bcjgrp", torch.stack(behind[::-1], 1), self.B)
        return torch.addcmul(grad_dtx, self.until, of_states), grad_state


def _chunks(dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> _Chunks:
    """The matrices of chunks from dt (B, K, Q, G, R), A (G, R), B and C (B, K, Q, G, N)."""
    # Differences of sums: in float64, or a slow decay behind a fast one would lose its digits.
    s = (dt.double() * A.double()).cumsum(2)
    by_head = s.permute(0, 1, 3, 4, 2)  # (B, K, G, R, Q)
    steps = torch.arange(dt.shape[2], device=dt.device)
    future = steps[:, None] < steps
    decay = (by_head[..., :, None] - by_head[..., None, :]).to(dt.dtype).masked_fill(future, -torch.inf).exp()
    scores = torch.einsum("bcign,bcjgn->bcgij", C, B)
    return _Chunks(
        mixing=scores[:, :, :, None] * decay,
        since=s.exp().to(dt.dtype)[..., None],
        until=(s[:, :, -1:] - s).exp().to(dt.dtype)[..., None],
        through=s[:, :, -1].exp().to(dt.dtype)[..., None, None],
        B=B,
        C=C,
    )


def _grouped(per_head: Tensor, groups: int, axis: int) -> Tensor:
    """Split heads into (G, R): head h belongs to group h // R."""
    grouped: Tensor = per_head.unflatten(axis, (groups, -1))
    return grouped


class _Span(NamedTuple):
    """Positions that go at a time, and how many of them are in one chunk."""

    at: slice
    chunk: int

    def __call__(self, x: Tensor) -> Tensor:
        """(B, L, ...) -> (B, K, Q, ...)."""
        cut: Tensor = x[:, self.at].unflatten(1, (-1, self.chunk))
        return cut


def _spans(length: int, elements: int) -> list[_Span]:
    """Spans of whole chunks, each of so many ``elements``, and the rest."""
    whole, size = length - length % CHUNK, CHUNK * max(1, ELEMENTS // elements)
    spans = [_Span(slice(start, min(start + size, whole)), CHUNK) for start in range(0, whole, size)]
    return [*spans, _Span(slice(whole, length), length - whole)] if whole < length else spans


def _elements(state: Tensor) -> int:
    """Numbers of M of a chunk, or of the state behind it, whichever has more; by the state (B, H, P, N)."""
    batch, heads, *size = state.shape
    return batch * heads * max(CHUNK**2, math.prod(size))


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
        for span in reversed(_spans(dt.shape[1], _elements(grad_last))):
            own = span(dt)
            grad_dtx, grad_state = _chunks(own, A, span(B), span(C)).transposed(span(grad_y), grad_state)
            torch.mul(grad_dtx, own[..., None], out=span(grad_x))
        return grad_x.flatten(2, 3), None, None, None, None, grad_state.flatten(1, 2)


def _scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor) -> tuple[Tensor, Tensor]:
    groups = B.shape[2]
    dt, A, dtx = _grouped(dt, groups, 2), _grouped(A, groups, 0), _grouped(x * dt[..., None], groups, 2)
    state, outputs = _grouped(initial_state, groups, 1), []
    for span in _spans(x.shape[1], _elements(initial_state)):
        y, state = _chunks(span(dt), A, span(B), span(C)).forward(span(dtx), state)
        outputs.append(y.flatten(1, 2))
    return torch.cat(outputs, 1).flatten(2, 3), state.flatten(1, 2)


def ssd_scan_chunked(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor, D: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`ssd_scan_reference`; nothing of size (B, L, H, P, N) exists."""
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in (dt, A, B, C)):
        y, state = _scan(x, dt, A, B, C, initial_state)
    else:
        y, state = _ConstantParameters.apply(x, dt, A, B, C, initial_state)
    return y if D is None else torch.addcmul(y, x, D.detach().to(y.dtype)[:, None]), state
