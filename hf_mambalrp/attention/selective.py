"""Hidden attention of the selective scan (Ali, Zimerman and Wolf 2025): its mean over channels, and every channel's.

For channel d, query i and key j <= i, with S the sum of dt up to a position,

    alpha_ij = sum_n C_i[n] exp(A[d, n] (S_i - S_j)) dt_j B_j[n].

For a border b with j <= b < i the exponential is exp(A (S_i - S_b)) exp(A (S_b - S_j)), both at most 1, so the queries
behind a border and the keys before it are one matrix product over channels and states. Halving splits the triangle into
such blocks. From one size of blocks to the next, factors need a multiplication by the decay over the block in between,
so there are 2 L exponentials instead of L^2, and nothing of size (E, L, L).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, threshold

from hf_mambalrp.attention.mixing import Gains, ScanMixing
from hf_mambalrp.ops.selective_scan import selective_scan

CPU_ELEMENTS, GPU_ELEMENTS = 2**19, 2**28
"""How many numbers one factor of the products has: on a CPU what stays in its cache, on a GPU what fills it."""
INNER = 256
"""Smallest inner size of a product, below which it is all overhead."""


@dataclass(frozen=True)
class SelectiveMixing(ScanMixing):
    """Mamba-1's mixer: every channel has its alpha."""

    dt: Tensor
    """(B, L, E)."""
    A: Tensor
    """(E, N) negative."""
    B: Tensor
    """(B, L, N)."""
    C: Tensor
    """(B, L, N)."""

    @property
    def written(self) -> Tensor:
        """(B, L, E) the factor of u in the state, beside B."""
        return self.dt

    @property
    def matrices(self) -> int:
        """E."""
        return self.x.shape[2]

    def alpha(self, rows: range) -> Tensor:
        """Alpha for the queries in ``rows``. Shape: (B, E, R, keys up to the last query)."""
        return _every_channel(self, rows)

    def mean(self, rows: range, gains: Gains | None) -> Tensor:
        """The mean over channels for the queries in ``rows``. Shape: (B, R, keys up to the last query)."""
        return _mean_of_channels(self, rows, gains)

    def mean_elements(self) -> int:
        """0: channels are added up a few at a time."""
        return 0

    def scanned(self, u: Tensor) -> Tensor:
        """Alpha u. Shape: (B, L, E) -> (B, L, E)."""
        return selective_scan(u, self.dt, self.A, self.B, self.C)[0]


class Pairs(NamedTuple):
    """Pairs of neighbouring blocks, ``number`` of them, each ``period`` positions behind the one before it."""

    number: int
    period: int
    first: int
    """First position of the first pair: its keys, which its queries follow."""
    keys: int
    queries: int


def halves(length: int) -> Iterator[Pairs]:
    """Pairs that cover j < i among ``length`` positions, the smallest blocks first."""
    half = 1
    while half < length:
        count, rest = divmod(length, 2 * half)
        if count:
            yield Pairs(count, 2 * half, 0, half, half)
        if rest > half:
            yield Pairs(1, 0, count * 2 * half, half, rest - half)
        half *= 2


def _mean_of_channels(s: SelectiveMixing, rows: range, gains: Gains | None) -> Tensor:
    """The mean over channels for the queries in ``rows``. Shape: (B, R, keys up to the last query)."""
    batch, _, inner = s.dt.shape
    overhang = 0 if gains is None else gains.taps.shape[1] - 1  # keys before the first that the convolution reads
    matrix = s.dt.new_zeros(batch, len(rows), rows.stop + overhang)
    # S before every position and after the last; differences of sums would lose digits in float32.
    sums = pad(s.dt.double().cumsum(1), (0, 0, 1, 0))
    inputs = s.written if gains is None else s.written * gains.keys
    states = s.A.shape[1]
    elements = CPU_ELEMENTS if s.dt.device.type == "cpu" else GPU_ELEMENTS
    together = max(-(-INNER // states), elements // (batch * rows.stop * states))
    for start in range(0, inner, together):
        _add_channels(matrix, s, sums, inputs, rows, slice(start, start + together), gains)
    # j = i: no decay.
    own = (inputs * (s.B * s.C).sum(-1, keepdim=True))[:, rows.start : rows.stop]
    own = own.sum(-1, keepdim=True) if gains is None else (own * gains.queries[:, rows.start : rows.stop]) @ gains.taps
    step = matrix.stride(1)
    matrix.as_strided(own.shape, (matrix.stride(0), step + 1, 1), rows.start).add_(own)
    return matrix[..., overhang:].div_(inner)


def _add_channels(
    matrix: Tensor, s: SelectiveMixing, sums: Tensor, inputs: Tensor, rows: range, some: slice, gains: Gains | None
) -> None:
    """Add the sum over some channels, e of them, of all j < i."""
    A, sums, at = s.A[some], sums[..., some], slice(rows.start, rows.stop)
    taps = None if gains is None else gains.taps[some]
    # (B, R, e, N), from before the query's block to the query, and from the key to the end of its block.
    left = decay(s.dt[:, at, some], A).mul_(s.C[:, at, None])
    right = inputs[:, at, some, None] * s.B[:, at, None]
    if gains is not None:
        left.mul_(gains.queries[:, at, some, None])
    for pairs in halves(len(rows)):
        middle = pairs.first + pairs.keys
        keys, queries = _cut(right, pairs, pairs.first, pairs.keys), _cut(left, pairs, middle, pairs.queries)
        _add_product(_cells(matrix, pairs, middle, rows.start + pairs.first, taps), queries, keys, taps)
        borders = (pairs.first, middle, middle + pairs.queries)
        start, border, end = (_cut(sums, pairs, rows.start + position, 1) for position in borders)
        queries.mul_(decay(border - start, A))
        keys.mul_(decay(end - border, A))
    if rows.start:
        right = decay(sums[:, rows.start, None] - sums[:, 1 : rows.start + 1], A)
        right.mul_(s.B[:, : rows.start, None]).mul_(inputs[:, : rows.start, some, None])
        whole = Pairs(1, 0, 0, rows.start, len(rows))
        _add_product(_cells(matrix, whole, 0, 0, taps), left[:, None], right[:, None], taps)


def decay(steps: Tensor, A: Tensor) -> Tensor:
    """exp(steps A) in the dtype of A. Shape: (..., e), (e, N) -> (..., e, N).

    Values whose products would be subnormal are 0: they add nothing, and processors are 20 times slower at them.
    """
    exponential = (steps.to(A.dtype)[..., None] * A).exp_()
    return threshold(exponential, torch.finfo(A.dtype).tiny ** 0.5, 0.0, inplace=True)


def _add_product(cells: Tensor, queries: Tensor, keys: Tensor, taps: Tensor | None) -> None:
    """Add queries times keys, (B, number, ., e, N) each, to ``cells`` (B, number, queries, keys + overhang)."""
    if taps is not None:
        keys = _before_convolution(keys, taps)
    cells.add_(queries.flatten(-2) @ keys.flatten(-2).transpose(-1, -2))


def _before_convolution(keys: Tensor, taps: Tensor) -> Tensor:
    """From outputs to inputs of the convolution, K - 1 of them before the first. Shape: (B, number, keys, e, N)."""
    width = taps.shape[1]
    inputs = keys.new_zeros(*keys.shape[:2], keys.shape[2] + width - 1, *keys.shape[3:])
    for k in range(width):
        inputs[:, :, k : k + keys.shape[2]].addcmul_(keys, taps[:, k, None])
    return inputs


def _cut(x: Tensor, pairs: Pairs, start: int, length: int) -> Tensor:
    """The same positions of every pair. Shape: (B, L, ...) -> (B, number, length, ...), a view."""
    batch, position, *rest = x.stride()
    return x.as_strided(
        (len(x), pairs.number, length, *x.shape[2:]),
        (batch, pairs.period * position, position, *rest),
        x.storage_offset() + start * position,
    )


def _cells(matrix: Tensor, pairs: Pairs, row: int, key: int, taps: Tensor | None) -> Tensor:
    """The pairs' cells: (B, number, queries, keys + overhang), a view.

    Key j is column j + overhang, so the overhang of ``key`` starts at column ``key``.
    """
    batch, step, _ = matrix.stride()
    overhang = 0 if taps is None else taps.shape[1] - 1
    return matrix.as_strided(
        (len(matrix), pairs.number, pairs.queries, pairs.keys + overhang),
        (batch, pairs.period * (step + 1), step, 1),
        row * step + key,
    )


def _every_channel(s: SelectiveMixing, rows: range) -> Tensor:
    """alpha for the queries in ``rows``. Shape: (B, E, R, keys up to the last query)."""
    at, before = slice(rows.start, rows.stop), slice(rows.start)
    sums, A = s.dt.double().cumsum(1), s.A
    queries = sums[:, at].transpose(1, 2)  # (B, E, R)
    steps = queries[..., None] - queries[..., None, :]  # (B, E, R, R)
    steps.masked_fill_(torch.ones_like(steps[0, 0], dtype=torch.bool).triu(1), torch.inf)
    alpha = torch.zeros_like(steps, dtype=A.dtype)
    for n in range(A.shape[1]):
        weights = s.C[:, at, n, None] * s.B[:, None, at, n]  # (B, R, R)
        alpha.addcmul_(decay(steps.movedim(1, -1), A[:, n : n + 1])[..., 0].movedim(-1, 1), weights[:, None])
    if rows.start:
        border = sums[:, rows.start - 1, None]
        left = decay(sums[:, at] - border, A) * s.C[:, at, None]  # (B, R, E, N)
        right = decay(border - sums[:, before], A) * s.B[:, before, None]
        alpha = torch.cat([left.transpose(1, 2) @ right.permute(0, 2, 3, 1), alpha], -1)
    return alpha * s.written[:, : rows.stop].transpose(1, 2)[:, :, None]
