"""The gated delta rule as matrix products over chunks of positions (the WY form of Yang et al. 2024, section 3.2).

With G_t the decay from the start of a chunk to position t, and S the state before the chunk, what position t writes is
w_t = beta_t (v_t - S_{t-1} D_t k_t), so that S_t = S G_t + sum over j <= t of w_j (G_t / G_j k_j)^T. For all positions
of a chunk, one a row,

    (I + A) W = beta (V - (G K) S^T),    A_tj = beta_t k_t . (G_t / G_j k_j) for j < t, else 0
    O  = (G Q) S^T + M W,                M_tj = q_t . (G_t / G_j k_j) for j <= t, else 0
    S' = S G_last + W^T (G_last / G K)

The map from (V, S) to (O, S') is linear in both; its transpose is the same products and solves with the transposes:

    dW = M^T dO + (G_last / G K) dS'^T
    dV = beta (I + A)^-T dW
    dS = dS' G_last + dO^T (G Q) - dV^T (G K)

so where q, k, decay and beta are constants, the backward keeps A and M, two numbers a head for every position and
position of its chunk, and no state but those between chunks need, which run along with it.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

CHUNK = 64
"""Positions at a time: the products with A and M cost in proportion to it, those with the state a fixed price."""


class _Chunk(NamedTuple):
    """What q, k, decay and beta make of one chunk of Q positions; decays are of a head (F = 1) or a channel (F = N)."""

    squares: Tensor
    """A / beta, of which what is above the diagonal or on it is not read, and M: (2, B, H, Q, Q)."""
    beta: Tensor
    """(B, H, Q, 1)."""
    k_since: Tensor
    """G K, (B, H, Q, N)."""
    q_since: Tensor
    """G Q, (B, H, Q, N)."""
    k_until: Tensor
    """G_last / G K, (B, H, Q, N)."""
    through: Tensor
    """G_last, (B, H, 1, F)."""

    def forward(self, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map values (B, H, Q, P) and the state before (B, H, P, N) to outputs and the state after."""
        of_keys, mixing = self.squares
        written = torch.linalg.solve_triangular(
            self.beta * of_keys, self.beta * (v - self.k_since @ state.mT), upper=False, unitriangular=True
        )
        return self.q_since @ state.mT + mixing @ written, self.through * state + written.mT @ self.k_until

    def transposed(self, grad_o: Tensor, grad_state: Tensor) -> tuple[Tensor, Tensor]:
        """Map adjoints of outputs and of the state after to those of values and of the state before."""
        of_keys, mixing = self.squares
        system = self.beta * of_keys
        grad_written = mixing.mT @ grad_o + self.k_until @ grad_state.mT
        grad_v = self.beta * torch.linalg.solve_triangular(system.mT, grad_written, upper=True, unitriangular=True)
        return grad_v, self.through * grad_state + grad_o.mT @ self.q_since - grad_v.mT @ self.k_since


def _chunk(at: slice, q: Tensor, k: Tensor, log_decay: Tensor, beta: Tensor, squares: Tensor | None = None) -> _Chunk:
    """What positions ``at`` of q and k (B, L, G, N), log_decay (B, L, H, F) and beta (B, L, H) make.

    ``squares`` are the chunk's, where they are known already.
    """
    q, k, log_decay, beta = (x[:, at].transpose(1, 2) for x in (q, k, log_decay, beta[..., None]))
    # Differences of sums: in float64, or a slow decay behind a fast one would lose its digits.
    sums = log_decay.double().cumsum(2)
    squares = _scores(torch.stack([k, q]), k, sums) if squares is None else squares
    since, until = sums.exp().to(k.dtype), (sums[:, :, -1:] - sums).exp().to(k.dtype)
    q, k = (_for_heads(x, beta.shape[1], 1) for x in (q, k))
    return _Chunk(squares, beta, since * k, since * q, until * k, since[:, :, -1:])


def _scores(left: Tensor, k: Tensor, sums: Tensor) -> Tensor:
    """left_t . (G_t / G_j k_j) for j <= t, else 0. Shape: (2, B, G, Q, N), (B, H, Q, F) -> (2, B, H, Q, Q)."""
    heads, groups = sums.shape[1], k.shape[1]
    if sums.shape[-1] > 1:
        return _scores_by_channel(_for_heads(left, heads, 2), _for_heads(k, heads, 1), sums)
    steps = torch.arange(k.shape[2], device=k.device)
    decay = (sums - sums.mT).to(k.dtype).masked_fill_(steps[:, None] < steps, -torch.inf).exp_()
    by_group = (left @ k.mT)[:, :, :, None]
    by_head: Tensor = by_group * decay.unflatten(1, (groups, -1))
    return by_head.flatten(2, 3)


def _scores_by_channel(left: Tensor, k: Tensor, sums: Tensor) -> Tensor:
    """The same where every channel has its decay.

    For a border b between j and t the decay is exp(s_t - s_b) exp(s_b - s_j), both at most 1, so that what is behind a
    border and what is before it are one product. Blocks are put together two by two, from single positions on.
    """
    length = k.shape[2]
    more = (1 << (length - 1).bit_length()) - length
    left, k, sums = pad(left, (0, 0, 0, more)), pad(k, (0, 0, 0, more)), _extended(sums, more)
    block, half = (left * k).sum(-1)[..., None, None], 1  # (2, B, H, blocks, half, half)
    while half < length:
        pairs = (-1, 2, half)
        _, late = left.unflatten(-2, pairs).unbind(-3)
        early, _ = k.unflatten(-2, pairs).unbind(-3)
        before, behind = sums.unflatten(-2, pairs).unbind(-3)
        border = before[..., -1:, :]
        late = late * (behind - border).to(k.dtype).exp()
        early = early * (border - before).to(k.dtype).exp()
        first, second = block.unflatten(-3, (-1, 2)).unbind(-3)
        upper = torch.cat([first, torch.zeros_like(first)], -1)
        block = torch.cat([upper, torch.cat([late @ early.mT, second], -1)], -2)
        half *= 2
    return block.squeeze(-3)[..., :length, :length]


def _extended(sums: Tensor, more: int) -> Tensor:
    """With the last one again, ``more`` times."""
    return torch.cat([sums, sums[..., -1:, :].expand(*sums.shape[:-2], more, -1)], -2)


def _chunks(length: int) -> list[slice]:
    return [slice(start, min(start + CHUNK, length)) for start in range(0, length, CHUNK)]


def _for_heads(x: Tensor, heads: int, axis: int) -> Tensor:
    """Groups, which stand along the axis, as heads: head h belongs to group h // (H / G)."""
    return x if x.shape[axis] == heads else x.repeat_interleave(heads // x.shape[axis], axis)


class _ConstantParameters(torch.autograd.Function):
    """The scan as a linear map of v and the initial state."""

    @staticmethod
    def forward(
        ctx: Any, v: Tensor, q: Tensor, k: Tensor, log_decay: Tensor, beta: Tensor, initial_state: Tensor
    ) -> tuple[Tensor, Tensor]:
        squares: list[Tensor] = []
        found = _scan(v, q, k, log_decay, beta, initial_state, squares if any(ctx.needs_input_grad) else None)
        ctx.save_for_backward(q, k, log_decay, beta, *squares)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_o: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        q, k, log_decay, beta, *squares = ctx.saved_tensors
        grad_state = grad_last
        grad_v = torch.empty(grad_o.shape, dtype=grad_o.dtype, device=grad_o.device)
        for at, own in zip(reversed(_chunks(grad_o.shape[1])), reversed(squares), strict=True):
            chunk = _chunk(at, q, k, log_decay, beta, own)
            found, grad_state = chunk.transposed(grad_o[:, at].transpose(1, 2), grad_state)
            grad_v[:, at] = found.transpose(1, 2)
        return grad_v, None, None, None, None, grad_state


def _scan(
    v: Tensor,
    q: Tensor,
    k: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    initial_state: Tensor,
    squares: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The scan chunk by chunk; those of every chunk are put to ``squares``, if given."""
    state, outputs = initial_state, []
    for at in _chunks(v.shape[1]):
        chunk = _chunk(at, q, k, log_decay, beta)
        o, state = chunk.forward(v[:, at].transpose(1, 2), state)
        outputs.append(o.transpose(1, 2))
        if squares is not None:
            squares.append(chunk.squares)
    return torch.cat(outputs, 1), state


def delta_scan_chunked(
    v: Tensor, q: Tensor, k: Tensor, log_decay: Tensor, beta: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`delta_scan_reference`; nothing of size (B, L, H, P, N) exists."""
    dtype, wide = v.dtype, torch.promote_types(v.dtype, torch.float32)
    v, q, k, log_decay, beta, initial_state = (x.to(wide) for x in (v, q, k, log_decay, beta, initial_state))
    varies = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, log_decay, beta))
    scan = _scan if varies else _ConstantParameters.apply
    o, last = scan(v, q, k, log_decay, beta, initial_state)
    return o.to(dtype), last
