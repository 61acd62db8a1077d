"""A^T g on a GPU, all that relevance through constant attention weights takes: one pass, like that of the forward.

A program takes a block of keys of one head and goes through the queries that read them. The weights are those of the
forward, A_ij = exp(s q_i . k_j - lse_i), computed again from its logsumexp and never in memory.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# mypy: disable-error-code="import-untyped, import-not-found"
# Kernels have no annotations but constexpr: Triton reads those that it finds, and knows no typing.Any.

import torch
import triton
import triton.language as tl
from torch import Tensor

from hf_mambalrp.ops.triton_common import LOG2_E, with_unit_stride


@triton.jit(do_not_specialize=["L", "T"])
def _transposed(
    q,  # (B, L, H, N)
    k,  # (B, T, K, N)
    lse,  # (B, H, L)
    g,  # (B, L, H, P)
    out,  # (B, T, H, P) contiguous
    L,
    T,
    N,
    P,
    shared,
    scale,
    q_b,
    q_l,
    q_h,
    k_b,
    k_l,
    k_h,
    lse_b,
    lse_h,
    lse_l,
    g_b,
    g_l,
    g_h,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_P: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One row, head and block of keys; queries are the last L of the T positions."""
    head, row = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    start = tl.program_id(0) * KEYS
    j, n, p = start + tl.arange(0, KEYS), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_P)
    q += row * q_b + head * q_h
    k += row * k_b + head // shared * k_h
    lse += row * lse_b + head * lse_h
    g += row * g_b + head * g_h
    k_j = tl.load(k + j[:, None].to(tl.int64) * k_l + n[None, :], (j < T)[:, None] & (n < N)[None, :], other=0.0)
    found = tl.zeros((KEYS, BLOCK_P), tl.float32)
    before = T - L
    first = tl.maximum(start - before, 0) // QUERIES * QUERIES
    for block in range(first, L, QUERIES):
        i = block + tl.arange(0, QUERIES)
        at = i.to(tl.int64)
        q_i = tl.load(q + at[None, :] * q_l + n[:, None], (i < L)[None, :] & (n < N)[:, None], other=0.0)
        lse_i = tl.load(lse + at * lse_l, i < L, other=float("inf"))
        logs = tl.dot(k_j, q_i, input_precision=PRECISION) * (scale * LOG2_E) - (lse_i * LOG2_E)[None, :]
        A = tl.exp2(tl.where(i[None, :] + before >= j[:, None], logs, float("-inf")))
        g_i = tl.load(g + at[:, None] * g_l + p[None, :], (i < L)[:, None] & (p < P)[None, :], other=0.0)
        found = tl.dot(A.to(g_i.dtype), g_i, found, input_precision=PRECISION)
    place = ((row * T + j[:, None].to(tl.int64)) * tl.num_programs(1) + head) * P + p[None, :]
    tl.store(out + place, found.to(out.dtype.element_ty), (j < T)[:, None] & (p < P)[None, :])


def _blocks(width: int, dtype: torch.dtype) -> dict[str, int]:
    """Queries and keys at a time, so that both, twice, fit into the memory of a processor."""
    if dtype == torch.float32:
        return {"QUERIES": 32, "KEYS": 64} if width <= 128 else {"QUERIES": 16, "KEYS": 32}
    return {"QUERIES": 64, "KEYS": 128 if width <= 128 else 64}


def transposed_triton(q: Tensor, k: Tensor, lse: Tensor, g: Tensor, scale: float) -> Tensor:
    """sum_i A_ij g_i over the queries i that read key j, A_ij = exp(scale q_i . k_j - lse_i).

    Args:
        q: (B, L, H, N), queries of the last L positions.
        k: (B, T, K, N) keys of all T; K divides H, and H / K consecutive heads share one.
        lse: (B, H, L) float32, natural logarithms of the sums of exp(scale q_i . k_j).
        g: (B, L, H, P) in the dtype of q and k.
        scale: of q . k.

    Returns:
        (B, T, K, P): in the dtype of g, in float32 where heads share keys.
    """
    q, k, g = (with_unit_stride(x) for x in (q, k, g))
    (rows, length, heads, N), (_, keys, K, _), P = q.shape, k.shape, g.shape[3]
    out = torch.empty(rows, keys, heads, P, dtype=g.dtype if heads == K else torch.float32, device=g.device)
    block_n, block_p = (max(16, triton.next_power_of_2(width)) for width in (N, P))
    size = _blocks(max(block_n, block_p), g.dtype)
    with torch.cuda.device_of(g):
        _transposed[(triton.cdiv(keys, size["KEYS"]), heads, rows)](
            *(q, k, lse, g, out, length, keys, N, P, heads // K, scale),
            *(*q.stride()[:3], *k.stride()[:3], *lse.stride(), *g.stride()[:3]),
            BLOCK_N=block_n,
            BLOCK_P=block_p,
            PRECISION="tf32x3" if g.dtype == torch.float32 else "tf32",
            num_warps=8 if max(block_n, block_p) >= 128 else 4,
            num_stages=2,
            **size,
        )
    return out if heads == K else out.unflatten(2, (K, -1)).sum(3)
