"""The scan of Mamba-2 on a GPU: block decomposition (Dao and Gu 2024, section 6), states never leave the registers.

A chunk of Q positions is the four matrix products of :mod:`chunked`. The transpose of the scan is the scan backwards in
time with B and C swapped: one kernel does both. With W the projection that writes to the state and R the one that reads
it (forward B and C, transposed C and B), x the input (transposed: the adjoint of y), s the sums of dt A in a chunk,

    decay_ij = dt_j exp(s_i - s_j) for j <= i, else 0      since = exp(s)      until = dt exp(s_last - s)

    forward      y = ((R W^T) * decay) x   + since (R S) + D x      S' = exp(s_last) S + W^T (until x)
    transposed   y = ((R W^T) * decay^T) x + until (R S) + D x      S' = exp(s_last) S + W^T (since x)

Long sequences are cut into as many segments as fill the GPU, each some chunks long. The first launch finds what every
segment but the last adds to the state, the second starts from those and writes y; with one segment there is no first.
So x is read twice, y written once, and of the state only (segments, H, P, N) numbers are ever in memory.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# mypy: disable-error-code="import-untyped, import-not-found"
# Kernels have no annotations but constexpr: Triton reads those that it finds, and knows no typing.Any.

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_mambalrp.errors import BackendError
from hf_mambalrp.ops.triton_common import processors, sums, with_unit_stride

_LOG2_E = 1.4426950408889634
_ANY_LENGTH = ["L", "H", "heads_per_group", "chunks", "chunks_per_segment", "dt_b"]
"""Numbers that a kernel is not compiled anew for."""


@triton.jit(do_not_specialize=_ANY_LENGTH)
def _segment_ends(
    x,  # (B, L, H, P)
    dt,  # (B, L, H)
    A,  # (H,)
    W,  # (B, L, G, N)
    ends,  # (B, segments - 1, H, P, N): the state after each segment that starts from nothing
    logs,  # (B, segments - 1, H): log2 of the decay over each segment
    L,
    H,
    P,
    N,
    heads_per_group,
    chunks,
    chunks_per_segment,
    log2_e,
    x_b,
    x_l,
    x_h,
    dt_b,
    dt_l,
    dt_h,
    w_b,
    w_l,
    w_g,
    Q: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """S = sum over the segment of (decay until its end) W^T x, for one row, head, segment and block of P."""
    blocks = tl.cdiv(P, BLOCK_P)
    head, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    segment, row = tl.program_id(1), tl.program_id(2).to(tl.int64)
    i, p, n = tl.arange(0, Q), block * BLOCK_P + tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_N)
    x += row * x_b + head * x_h
    dt += row * dt_b + head * dt_h
    W += row * w_b + head // heads_per_group * w_g
    rate = tl.load(A + head).to(tl.float32) * log2_e

    state = tl.zeros((BLOCK_N, BLOCK_P), tl.float32)
    log = 0.0  # log2 of the decay from the chunk to the end of the segment
    for back in range(0, chunks_per_segment):
        step = (segment + 1) * chunks_per_segment - 1 - back
        start = tl.cast((chunks - 1 - step if TRANSPOSED else step) * Q, tl.int64)
        inside = start + i < L
        dt_i = tl.load(dt + start * dt_l + i * dt_l, inside, other=0.0).to(tl.float32)
        x_i = tl.load(x + start * x_l + i[:, None] * x_l + p[None, :], inside[:, None] & (p < P)[None, :], other=0.0)
        W_i = tl.load(W + start * w_l + i[:, None] * w_l + n[None, :], inside[:, None] & (n < N)[None, :], other=0.0)
        s, s_rest, s_last, s_last_rest = sums(dt_i * rate)
        if TRANSPOSED:
            weight = tl.exp2(log + (s + s_rest))
        else:
            weight = tl.exp2(log + ((s_last - s) + (s_last_rest - (s_rest - tl.log2(dt_i)))))
        written = (x_i.to(tl.float32) * weight[:, None]).to(OPERAND)
        state = tl.dot(tl.trans(W_i.to(OPERAND)), written, state, input_precision=PRECISION)
        log += s_last + s_last_rest

    at = (row * tl.num_programs(1) + segment) * H + head
    if block == 0:
        tl.store(logs + at, log)
    inside_state = (p < P)[:, None] & (n < N)[None, :]
    tl.store(ends + at * P * N + p[:, None] * N + n[None, :], tl.trans(state), inside_state)


@triton.jit(do_not_specialize=_ANY_LENGTH)
def _outputs(
    x,  # (B, L, H, P)
    dt,  # (B, L, H)
    A,  # (H,)
    W,  # (B, L, G, N)
    R,  # (B, L, G, N)
    before,  # (B, H, P, N) state that the first segment starts from, or nothing
    ends,  # as in _segment_ends
    logs,
    D,  # (H,), or nothing
    y,  # (B, L, H, P) contiguous
    after,  # (B, H, P, N)
    L,
    H,
    P,
    N,
    heads_per_group,
    chunks,
    chunks_per_segment,
    log2_e,
    x_b,
    x_l,
    x_h,
    dt_b,
    dt_l,
    dt_h,
    w_b,
    w_l,
    w_g,
    r_b,
    r_l,
    r_g,
    Q: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    HAS_BEFORE: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The formulas above, chunk after chunk, for one row, head, segment and block of P."""
    blocks = tl.cdiv(P, BLOCK_P)
    head, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    segment, segments, row = tl.program_id(1), tl.num_programs(1), tl.program_id(2).to(tl.int64)
    i, p, n = tl.arange(0, Q), block * BLOCK_P + tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_N)
    x += row * x_b + head * x_h
    dt += row * dt_b + head * dt_h
    W += row * w_b + head // heads_per_group * w_g
    R += row * r_b + head // heads_per_group * r_g
    y += row * L * H * P + head * P
    rate = tl.load(A + head).to(tl.float32) * log2_e
    if D is not None:
        skip = tl.load(D + head).to(tl.float32)
    in_state, in_state_mask = p[:, None] * N + n[None, :], (p < P)[:, None] & (n < N)[None, :]

    before_segment = tl.zeros((BLOCK_P, BLOCK_N), tl.float32)
    if HAS_BEFORE:
        before_segment = tl.load(before + (row * H + head) * P * N + in_state, in_state_mask, other=0.0).to(tl.float32)
    for earlier in range(0, segment):
        at = (row * (segments - 1) + earlier) * H + head
        added = tl.load(ends + at * P * N + in_state, in_state_mask, other=0.0)
        before_segment = before_segment * tl.exp2(tl.load(logs + at)) + added
    state = tl.trans(before_segment)

    causal = i[:, None] <= i[None, :] if TRANSPOSED else i[:, None] >= i[None, :]
    for step in range(segment * chunks_per_segment, tl.minimum((segment + 1) * chunks_per_segment, chunks)):
        start = tl.cast((chunks - 1 - step if TRANSPOSED else step) * Q, tl.int64)
        inside = start + i < L
        inside_x, inside_n = inside[:, None] & (p < P)[None, :], inside[:, None] & (n < N)[None, :]
        dt_i = tl.load(dt + start * dt_l + i * dt_l, inside, other=0.0).to(tl.float32)
        W_i = tl.load(W + start * w_l + i[:, None] * w_l + n[None, :], inside_n, other=0.0).to(OPERAND)
        R_i = tl.load(R + start * r_l + i[:, None] * r_l + n[None, :], inside_n, other=0.0).to(OPERAND)
        x_i = tl.load(x + start * x_l + i[:, None] * x_l + p[None, :], inside_x, other=0.0)

        s, s_rest, s_last, s_last_rest = sums(dt_i * rate)
        s_rest_dt = s_rest - tl.log2(dt_i)  # a decay from here on times dt
        since, until = tl.exp2(s + s_rest), tl.exp2((s_last - s) + (s_last_rest - s_rest_dt))
        if TRANSPOSED:
            log_decay = (s[None, :] - s[:, None]) + (s_rest[None, :] - s_rest_dt[:, None])
        else:
            log_decay = (s[:, None] - s[None, :]) + (s_rest[:, None] - s_rest_dt[None, :])

        mixing = tl.dot(R_i, tl.trans(W_i), input_precision=PRECISION)
        mixing *= tl.exp2(tl.where(causal, log_decay, float("-inf")))
        read = tl.dot(R_i, state.to(OPERAND), input_precision=PRECISION)
        read *= (until if TRANSPOSED else since)[:, None]
        y_i = tl.dot(mixing.to(OPERAND), x_i.to(OPERAND), read, input_precision=PRECISION)
        if D is not None:
            y_i += skip * x_i.to(tl.float32)
        tl.store(y + start * H * P + i[:, None] * (H * P) + p[None, :], y_i.to(y.dtype.element_ty), inside_x)

        state *= tl.exp2(s_last + s_last_rest)
        written = (x_i.to(tl.float32) * (since if TRANSPOSED else until)[:, None]).to(OPERAND)
        state = tl.dot(tl.trans(W_i), written, state, input_precision=PRECISION)

    if segment == segments - 1:
        tl.store(after + (row * H + head) * P * N + in_state, tl.trans(state), in_state_mask)


class Tuning(NamedTuple):
    """How the work is cut."""

    chunk: int
    """Q, a power of 2 from 16 to 128."""
    width: int
    """Channels of a head in one program, a power of 2 from 16."""
    warps: int
    stages: int
    """Chunks in flight from memory, for the second launch; at 1, Triton 3.6 compiles bfloat16 to illegal accesses."""
    precision: str = "tf32"
    """How products of float32 operands are computed: "ieee", "tf32x3" (1e-6, on tensor cores) or "tf32"."""
    segments: int | None = None
    """How many segments the sequence has, or a few fewer; None is :func:`segments_for`."""


def tuning_for(dtype: torch.dtype, P: int, N: int) -> Tuning:
    """The choice for inputs of this dtype, heads of P channels and N states: what leaves most states in registers."""
    width, large = max(16, min(64, triton.next_power_of_2(P))), N > 128
    if dtype == torch.bfloat16:
        return Tuning(chunk=64, width=width, warps=8 if large else 4, stages=2)
    if dtype == torch.float16:
        return Tuning(chunk=32, width=width, warps=8 if large else 4, stages=2)
    return Tuning(chunk=32 if large else 64, width=min(width, 32), warps=4, stages=1, precision="tf32x3")


@lru_cache(maxsize=1024)
def segments_for(programs: int, chunks: int, processors: int) -> int:
    """Segments that make the launches shortest, in units of a chunk's time, with two programs on a processor.

    A chunk costs 1, or 1.3 with the first launch; that launch 1, and to take over another segment's state 0.3. So it
    was measured on an H200, 8 to 128 heads, 1 to 32 rows, 128 to 32 768 positions: the choice is 1 % over the fastest.
    """

    def cost(segments: int) -> float:
        waves = -(-programs * segments // (2 * processors))
        each = -(-chunks // segments)
        return waves * each if segments == 1 else waves * (1.3 * each + 0.3 * segments) + 1

    return min(range(1, min(chunks, 64) + 1), key=cost)


def scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    W: Tensor,
    R: Tensor,
    before: Tensor | None,
    D: Tensor | None = None,
    *,
    transposed: bool,
    tuning: Tuning | None = None,
) -> tuple[Tensor, Tensor]:
    """The formulas of the module: y (B, L, H, P) in the dtype of ``x`` and the state at the end in float32."""
    rows, length, heads, P = x.shape
    groups, N = W.shape[2:]
    tuning = tuning or tuning_for(x.dtype, P, N)
    x, W, R = (with_unit_stride(value) for value in (x, W, R))
    A, before, D = (
        A.contiguous(),
        None if before is None else before.contiguous(),
        None if D is None else D.contiguous(),
    )
    chunks = max(1, triton.cdiv(length, tuning.chunk))
    programs = heads * triton.cdiv(P, tuning.width)
    segments = tuning.segments or segments_for(rows * programs, chunks, processors(x.device))
    chunks_per_segment = triton.cdiv(chunks, segments)
    segments = triton.cdiv(chunks, chunks_per_segment)

    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    after, ends, logs = (
        torch.empty(shape, dtype=torch.float32, device=x.device)
        for shape in ((rows, heads, P, N), (rows, segments - 1, heads, P, N), (rows, segments - 1, heads))
    )
    sizes = (length, heads, P, N, heads // groups, chunks, chunks_per_segment, _LOG2_E)
    strides = (*x.stride()[:3], *dt.stride(), *W.stride()[:3])
    options: dict[str, Any] = {
        "Q": tuning.chunk,
        "BLOCK_P": tuning.width,
        "BLOCK_N": max(16, triton.next_power_of_2(N)),
        "TRANSPOSED": transposed,
        "OPERAND": tl.bfloat16 if x.dtype == torch.bfloat16 else tl.float32,
        "PRECISION": tuning.precision,
        "num_warps": tuning.warps,
    }
    with torch.cuda.device_of(x):
        if segments > 1:
            _segment_ends[(programs, segments - 1, rows)](
                x, dt, A, W, ends, logs, *sizes, *strides, **options, num_stages=tuning.stages + 1
            )
        _outputs[(programs, segments, rows)](
            *(x, dt, A, W, R, before, ends, logs, D, y, after, *sizes, *strides, *R.stride()[:3]),
            HAS_BEFORE=before is not None,
            num_stages=tuning.stages,
            **options,
        )
    return y, after


class _SSDScan(torch.autograd.Function):
    """The scan as a linear map of x and the initial state."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        initial_state: Tensor | None,
        D: Tensor | None,
        tuning: Tuning | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(dt, A, B, C, D)
        ctx.set_materialize_grads(False)
        ctx.like_x, ctx.tuning = (x.shape, x.dtype, x.device), tuning
        ctx.state_dtype = None if initial_state is None else initial_state.dtype
        return scan(x, dt, A, W=B, R=C, before=initial_state, D=D, transposed=False, tuning=tuning)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor | None, grad_last: Tensor | None) -> tuple[Tensor | None, ...]:
        dt, A, B, C, D = ctx.saved_tensors
        shape, dtype, device = ctx.like_x
        if grad_y is None:
            grad_y = torch.zeros(shape, dtype=dtype, device=device)
        grad_x, grad_state = scan(grad_y, dt, A, W=C, R=B, before=grad_last, D=D, transposed=True, tuning=ctx.tuning)
        in_its_dtype = None if ctx.state_dtype is None else grad_state.to(ctx.state_dtype)
        return grad_x, None, None, None, None, in_its_dtype, None, None


def ssd_scan_triton(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    initial_state: Tensor | None,
    D: Tensor | None = None,
    *,
    tuning: Tuning | None = None,
) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`ssd_scan_reference` for constant parameters; the state is float32.

    Sums are float32. Operands of matrix products have the dtype of ``x``, except that float16 goes in as tf32, with the
    digits of float16 but a range that states cannot leave.

    Args:
        x: (B, L, H, P) bfloat16, float16 or float32.
        dt: (B, L, H).
        A: (H,), at most 0.
        B: (B, L, G, N), N at most 256.
        C: (B, L, G, N).
        initial_state: (B, H, P, N), or None for zero.
        D: (H,), or None for zero.
        tuning: how the work is cut, for benchmarks.

    Raises:
        BackendError: a parameter requires a gradient.
    """
    if torch.is_grad_enabled() and any(value.requires_grad for value in (dt, A, B, C)):
        raise BackendError(
            "backend='triton' holds dt, A, B and C constant, as method='mambalrp' does; use 'chunked' for others."
        )
    D = None if D is None else D.detach()
    result: tuple[Tensor, Tensor] = _SSDScan.apply(x, dt, A, B, C, initial_state, D, tuning)
    return result
