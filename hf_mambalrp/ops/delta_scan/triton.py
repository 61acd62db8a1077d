"""The gated delta rule on a GPU: the products of :mod:`chunked`, states never leave the registers.

A first launch makes what q, k, decay and beta alone decide, all chunks at once: T = (I + A)^-1 diag(beta) and M, both
(Q, Q). A second goes through the chunks of a head, one after the other, for a block of the channels of v; the
transposed scan is the same launch with the chunks in reverse order. With the state S as (N, P) in registers,
since = G, until = G_last / G and through = G_last,

    forward      w = T (x - (since K) S)              y = (since Q) S + M w       S' = through S + (until K)^T w
    transposed   w = M^T x + (until K) S              y = T^T w                   S' = through S + (since Q)^T x
                                                                                       - (since K)^T y

so x is read once, y written once, and beside them only T and M, (L, H, Q) numbers each, are ever in memory.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# mypy: disable-error-code="import-untyped, import-not-found"
# Kernels have no annotations but constexpr: Triton reads those that it finds, and knows no typing.Any.

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from hf_mambalrp.errors import BackendError
from hf_mambalrp.ops.triton_common import LOG2_E, processors, sums, with_unit_stride

_ANY_LENGTH = ["L", "H", "heads_per_group", "chunks", "beta_b", "g_b"]
"""Numbers that a kernel is not compiled anew for."""
_BLOCK = tl.constexpr(16)
"""Positions whose system is solved one after the other; blocks of them by products."""


@triton.jit
def _sums(log_decay, g_l, i, f, N, inside, F: tl.constexpr):
    """Sums of log2 decays up to each position, (Q, F), and of all, (F,); of one decay a head the latter are numbers."""
    if F == 1:  # Triton 3.6 compiles no scan along a tensor that is one wide
        logs = tl.load(log_decay + i * g_l, inside, other=0.0).to(tl.float32)
        s, s_rest, s_last, s_last_rest = sums(logs * LOG2_E)
        return s[:, None], s_rest[:, None], s_last, s_last_rest
    else:
        inside_f = inside[:, None] & (f < N)[None, :]
        logs = tl.load(log_decay + i[:, None] * g_l + f[None, :], inside_f, other=0.0).to(tl.float32)
        return sums(logs * LOG2_E)


@triton.jit
def _scores(q, k, s, s_rest, i, Q: tl.constexpr, F: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr):
    """k_t . (G_t / G_j k_j), which counts for j < t only, and q_t . (G_t / G_j k_j), 0 for j > t. Shape: (Q, Q).

    Where every channel has its decay it is, for a border between j and t, the product of two that are at most 1, as in
    :func:`hf_mambalrp.ops.delta_scan.chunked._scores_by_channel`; ``log2(Q)`` sizes of blocks have all borders.
    """
    if F == 1:
        log = (s - tl.trans(s)) + (s_rest - tl.trans(s_rest))
        decay = tl.exp2(tl.where(i[:, None] >= i[None, :], log, float("-inf")))
        keys = tl.trans(k.to(OPERAND))
        of_keys = tl.dot(k.to(OPERAND), keys, input_precision=PRECISION) * decay
        of_queries = tl.dot(q.to(OPERAND), keys, input_precision=PRECISION) * decay
    else:
        of_keys = tl.zeros((Q, Q), tl.float32)
        q, k = q.to(tl.float32), k.to(tl.float32)
        of_queries = tl.where(i[:, None] == i[None, :], tl.sum(q * k, 1)[:, None], 0.0)
        for level in tl.static_range(6):
            if 2**level < Q:
                log = _since_border(s, Q, F, 2**level) + _since_border(s_rest, Q, F, 2**level)
                late = ((i // 2**level) % 2 == 1)[:, None]
                decay = tl.exp2(tl.where(late, log, -log))
                early = tl.trans(tl.where(late, 0.0, k * decay).to(OPERAND))
                late_k, late_q = tl.where(late, k * decay, 0.0), tl.where(late, q * decay, 0.0)
                pair = (i // 2 ** (level + 1))[:, None] == (i // 2 ** (level + 1))[None, :]
                of_keys += tl.where(pair, tl.dot(late_k.to(OPERAND), early, input_precision=PRECISION), 0.0)
                of_queries += tl.where(pair, tl.dot(late_q.to(OPERAND), early, input_precision=PRECISION), 0.0)
    return of_keys, of_queries


@triton.jit
def _since_border(s, Q: tl.constexpr, F: tl.constexpr, HALF: tl.constexpr):
    """s less that of the last position in the first half of its block of 2 HALF positions. Shape: (Q, F)."""
    blocks = tl.reshape(s, (Q // (2 * HALF), 2 * HALF, F))
    last = (tl.arange(0, 2 * HALF) == HALF - 1)[None, :, None]
    return tl.reshape(blocks - tl.sum(tl.where(last, blocks, 0.0), 1, keep_dims=True), (Q, F))


@triton.jit
def _inverse(A, i, Q: tl.constexpr, DOUBLINGS: tl.constexpr):
    """(I + A)^-1 of a strictly lower triangular A (Q, Q).

    With D the blocks of I + A on its diagonal, solved position by position, and E = D^-1 A of the blocks below, which
    is nilpotent, it is (I - E) (I + E^2) (I + E^4) ... D^-1.
    """
    count: tl.constexpr = Q // _BLOCK
    b, r = tl.arange(0, count), tl.arange(0, _BLOCK)
    same = b[:, None, None, None] == b[None, None, :, None]
    own = tl.sum(tl.where(same, tl.reshape(A, (count, _BLOCK, count, _BLOCK)), 0.0), 2)
    solved = tl.where(r[None, :, None] == r[None, None, :], 1.0, own * 0.0)
    for j in range(_BLOCK - 1):
        column = tl.sum(tl.where(r[None, None, :] == j, own, 0.0), 2)
        row = tl.sum(tl.where(r[None, :, None] == j, solved, 0.0), 1)
        solved -= column[:, :, None] * row[:, None, :]
    inverse = tl.reshape(tl.where(same, solved[:, :, None, :], 0.0), (Q, Q))
    if count > 1:
        below = tl.where((i // _BLOCK)[:, None] > (i // _BLOCK)[None, :], A, 0.0)
        power = tl.dot(inverse, below, input_precision="tf32x3")
        inverse -= tl.dot(power, inverse, input_precision="tf32x3")
        for _ in tl.static_range(DOUBLINGS - 1):
            power = tl.dot(power, power, input_precision="tf32x3")
            inverse += tl.dot(power, inverse, input_precision="tf32x3")
    return inverse


@triton.jit(do_not_specialize=_ANY_LENGTH)
def _prepare(
    q,  # (B, L, G, N)
    k,  # (B, L, G, N)
    log_decay,  # (B, L, H, F)
    beta,  # (B, L, H)
    T,  # (B, chunks, H, Q, Q)
    M,  # (B, chunks, H, Q, Q)
    L,
    H,
    N,
    heads_per_group,
    q_b,
    q_l,
    q_g,
    k_b,
    k_l,
    k_g,
    g_b,
    g_l,
    g_h,
    beta_b,
    beta_l,
    beta_h,
    Q: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_F: tl.constexpr,
    DOUBLINGS: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """T and M of one row, head and chunk."""
    chunk, head, row = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    i, n, f = tl.arange(0, Q), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_F)
    inside = chunk * Q + i < L
    inside_n = inside[:, None] & (n < N)[None, :]
    q += row * q_b + chunk * Q * q_l + head // heads_per_group * q_g
    k += row * k_b + chunk * Q * k_l + head // heads_per_group * k_g
    log_decay += row * g_b + chunk * Q * g_l + head * g_h
    beta += row * beta_b + chunk * Q * beta_l + head * beta_h
    q_i = tl.load(q + i[:, None] * q_l + n[None, :], inside_n, other=0.0)
    k_i = tl.load(k + i[:, None] * k_l + n[None, :], inside_n, other=0.0)
    beta_i = tl.load(beta + i * beta_l, inside, other=0.0).to(tl.float32)
    s, s_rest, _, _ = _sums(log_decay, g_l, i, f, N, inside, BLOCK_F)
    of_keys, of_queries = _scores(q_i, k_i, s, s_rest, i, Q, BLOCK_F, OPERAND, PRECISION)
    A = tl.where(i[:, None] > i[None, :], of_keys * beta_i[:, None], 0.0)
    solved = _inverse(A, i, Q, DOUBLINGS) * beta_i[None, :]
    at = ((row * tl.num_programs(0) + chunk) * H + head) * Q * Q + i[:, None] * Q + i[None, :]
    tl.store(T + at, solved.to(T.dtype.element_ty))
    tl.store(M + at, of_queries.to(M.dtype.element_ty))


@triton.jit(do_not_specialize=_ANY_LENGTH)
def _outputs(
    x,  # (B, L, H, P)
    q,  # (B, L, G, N)
    k,  # (B, L, G, N)
    log_decay,  # (B, L, H, F)
    T,  # (B, chunks, H, Q, Q)
    M,  # (B, chunks, H, Q, Q)
    before,  # (B, H, P, N), or nothing
    y,  # (B, L, H, P) contiguous
    after,  # (B, H, P, N)
    L,
    H,
    P,
    N,
    heads_per_group,
    chunks,
    x_b,
    x_l,
    x_h,
    q_b,
    q_l,
    q_g,
    k_b,
    k_l,
    k_g,
    g_b,
    g_l,
    g_h,
    Q: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_F: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    HAS_BEFORE: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The formulas above, chunk after chunk, for one row, head and block of P."""
    block, head, row = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    i, p, n = tl.arange(0, Q), block * BLOCK_P + tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_N)
    f = tl.arange(0, BLOCK_F)
    x += row * x_b + head * x_h
    q += row * q_b + head // heads_per_group * q_g
    k += row * k_b + head // heads_per_group * k_g
    log_decay += row * g_b + head * g_h
    y += row * L * H * P + head * P
    in_state, in_state_mask = p[None, :] * N + n[:, None], (p < P)[None, :] & (n < N)[:, None]

    state = tl.zeros((BLOCK_N, BLOCK_P), tl.float32)
    if HAS_BEFORE:
        state = tl.load(before + (row * H + head) * P * N + in_state, in_state_mask, other=0.0).to(tl.float32)
    for step in range(0, chunks):
        chunk = chunks - 1 - step if TRANSPOSED else step
        start = tl.cast(chunk * Q, tl.int64)
        inside = start + i < L
        inside_x, inside_n = inside[:, None] & (p < P)[None, :], inside[:, None] & (n < N)[None, :]
        x_i = tl.load(x + start * x_l + i[:, None] * x_l + p[None, :], inside_x, other=0.0).to(tl.float32)
        q_i = tl.load(q + start * q_l + i[:, None] * q_l + n[None, :], inside_n, other=0.0)
        k_i = tl.load(k + start * k_l + i[:, None] * k_l + n[None, :], inside_n, other=0.0)
        in_square = ((row * chunks + chunk) * H + head) * Q * Q + i[:, None] * Q + i[None, :]
        T_i, M_i = tl.load(T + in_square), tl.load(M + in_square)

        s, s_rest, s_last, s_last_rest = _sums(log_decay + start * g_l, g_l, i, f, N, inside, BLOCK_F)
        since, through = tl.exp2(s + s_rest), tl.exp2(s_last + s_last_rest)
        if BLOCK_F == 1:
            until = tl.exp2((s_last - s) + (s_last_rest - s_rest))
        else:
            until = tl.exp2((s_last[None, :] - s) + (s_last_rest[None, :] - s_rest))
            through = through[:, None]
        S = state.to(OPERAND)
        k_until = (k_i if BLOCK_F == 1 else k_i * until).to(OPERAND)
        k_i, q_i = (
            (k_i if BLOCK_F == 1 else k_i * since).to(OPERAND),
            (q_i if BLOCK_F == 1 else q_i * since).to(OPERAND),
        )
        if BLOCK_F > 1:  # otherwise the decays are factors of the narrow side
            since, until = 1.0, 1.0
        if TRANSPOSED:
            w = tl.dot(k_until, S, input_precision=PRECISION) * until
            w = tl.dot(tl.trans(M_i), x_i.to(OPERAND), w, input_precision=PRECISION)
            y_i = tl.dot(tl.trans(T_i), w.to(OPERAND), input_precision=PRECISION)
            state = tl.dot(tl.trans(q_i), (x_i * since).to(OPERAND), state * through, input_precision=PRECISION)
            state -= tl.dot(tl.trans(k_i), (y_i * since).to(OPERAND), input_precision=PRECISION)
        else:
            found = x_i - tl.dot(k_i, S, input_precision=PRECISION) * since
            w = tl.dot(T_i, found.to(OPERAND), input_precision=PRECISION)
            y_i = tl.dot(q_i, S, input_precision=PRECISION) * since
            y_i = tl.dot(M_i, w.to(OPERAND), y_i, input_precision=PRECISION)
            state = tl.dot(tl.trans(k_until), (w * until).to(OPERAND), state * through, input_precision=PRECISION)
        tl.store(y + start * H * P + i[:, None] * (H * P) + p[None, :], y_i.to(y.dtype.element_ty), inside_x)
    tl.store(after + (row * H + head) * P * N + in_state, state, in_state_mask)


class Tuning(NamedTuple):
    """How the work is cut."""

    chunk: int
    """Q, a power of 2 from 16 to 64."""
    width: int
    """Channels of v in one program, a power of 2 from 16."""
    warps: int
    stages: int
    """Chunks in flight from memory, for the second launch."""
    precision: str = "tf32"
    """How products of float32 operands are computed: "ieee", "tf32x3" (1e-6, on tensor cores) or "tf32"."""


def tuning_for(dtype: torch.dtype, P: int, N: int, heads: int, processors: int) -> Tuning:
    """The choice for heads of P channels of v and N of the key; ``heads`` counts those of all rows.

    A head's chunks go one after the other, so its channels are cut into as few blocks as keep every processor busy.
    """
    width = max(16, min(64 if N <= 64 else 32, triton.next_power_of_2(P)))
    while width > 16 and heads * triton.cdiv(P, width) < processors:
        width //= 2
    warps = 4 if N <= 64 else 8  # with fewer, the tiles of wide keys leave the registers
    if dtype == torch.bfloat16:
        return Tuning(chunk=64, width=width, warps=warps, stages=2)
    precision = "tf32" if dtype == torch.float16 else "tf32x3"
    return Tuning(chunk=32, width=width, warps=warps, stages=1, precision=precision)


def scan(
    x: Tensor,
    q: Tensor,
    k: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    before: Tensor | None,
    *,
    transposed: bool,
    tuning: Tuning | None = None,
) -> tuple[Tensor, Tensor]:
    """The formulas of the module: y (B, L, H, P) in the dtype of ``x`` and the state at the end in float32."""
    rows, length, heads, P = x.shape
    groups, N = k.shape[2:]
    tuning = tuning or tuning_for(x.dtype, P, N, rows * heads, processors(x.device))
    x, q, k, log_decay = (with_unit_stride(value) for value in (x, q, k, log_decay))
    before = None if before is None else before.contiguous()
    Q = tuning.chunk
    chunks = max(1, triton.cdiv(length, Q))
    operand = torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float32
    T, M = (torch.empty((rows, chunks, heads, Q, Q), dtype=operand, device=x.device) for _ in range(2))
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    after = torch.empty((rows, heads, P, N), dtype=torch.float32, device=x.device)
    strides = (*q.stride()[:3], *k.stride()[:3], *log_decay.stride()[:3])
    block_n = max(16, triton.next_power_of_2(N))
    options: dict[str, Any] = {
        "Q": Q,
        "BLOCK_N": block_n,
        "BLOCK_F": 1 if log_decay.shape[3] == 1 else block_n,
        "OPERAND": tl.bfloat16 if operand == torch.bfloat16 else tl.float32,
        "PRECISION": tuning.precision,
        "num_warps": tuning.warps,
    }
    with torch.cuda.device_of(x):
        _prepare[(chunks, heads, rows)](
            *(q, k, log_decay, beta, T, M, length, heads, N, heads // groups, *strides, *beta.stride()),
            DOUBLINGS=(Q // _BLOCK.value).bit_length() - 1,
            num_stages=1,
            **options,
        )
        _outputs[(triton.cdiv(P, tuning.width), heads, rows)](
            *(x, q, k, log_decay, T, M, before, y, after),
            *(length, heads, P, N, heads // groups, chunks, *x.stride()[:3], *strides),
            BLOCK_P=tuning.width,
            TRANSPOSED=transposed,
            HAS_BEFORE=before is not None,
            num_stages=tuning.stages,
            **options,
        )
    return y, after


class _DeltaScan(torch.autograd.Function):
    """The scan as a linear map of v and the initial state."""

    @staticmethod
    def forward(
        ctx: Any,
        v: Tensor,
        q: Tensor,
        k: Tensor,
        log_decay: Tensor,
        beta: Tensor,
        initial_state: Tensor | None,
        tuning: Tuning | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(q, k, log_decay, beta)
        ctx.set_materialize_grads(False)
        ctx.like_v, ctx.tuning = (v.shape, v.dtype, v.device), tuning
        ctx.state_dtype = None if initial_state is None else initial_state.dtype
        return scan(v, q, k, log_decay, beta, initial_state, transposed=False, tuning=tuning)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_o: Tensor | None, grad_last: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, log_decay, beta = ctx.saved_tensors
        shape, dtype, device = ctx.like_v
        if grad_o is None:
            grad_o = torch.zeros(shape, dtype=dtype, device=device)
        grad_v, grad_state = scan(grad_o, q, k, log_decay, beta, grad_last, transposed=True, tuning=ctx.tuning)
        in_its_dtype = None if ctx.state_dtype is None else grad_state.to(ctx.state_dtype)
        return grad_v, None, None, None, None, in_its_dtype, None


def delta_scan_triton(
    v: Tensor,
    q: Tensor,
    k: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    *,
    tuning: Tuning | None = None,
) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`delta_scan_reference` for constant parameters; the state is float32.

    Sums and the triangular system are float32. Operands of matrix products have the dtype of ``v``, except that float16
    goes in as tf32, with the digits of float16 but a range that states cannot leave.

    Args:
        v: (B, L, H, P) bfloat16, float16 or float32.
        q: (B, L, G, N), N at most 256.
        k: (B, L, G, N).
        log_decay: (B, L, H, 1) or (B, L, H, N), at most 0.
        beta: (B, L, H).
        initial_state: (B, H, P, N), or None for zero.
        tuning: how the work is cut, for benchmarks.

    Raises:
        BackendError: a parameter requires a gradient.
    """
    if torch.is_grad_enabled() and any(value.requires_grad for value in (q, k, log_decay, beta)):
        raise BackendError(
            "backend='triton' holds q, k, decay and beta constant, as method='mambalrp' does; use 'chunked' for others."
        )
    result: tuple[Tensor, Tensor] = _DeltaScan.apply(v, q, k, log_decay, beta, initial_state, tuning)
    return result
