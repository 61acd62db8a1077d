"""Softmax attention by torch's ``scaled_dot_product_attention``, whose kernels hold no matrix of the length squared."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.attention.bias import causal_lower_right
from torch.utils.checkpoint import checkpoint

from hf_mambalrp.ops.attention.dispatch import Scores
from hf_mambalrp.ops.attention.reference import product, read, transposed_product, weights
from hf_mambalrp.ops.gpu import triton_declines
from hf_mambalrp.rules import Rules

BLOCK_ELEMENTS = 2**24
"""How many bits (B, R, keys) the mask of a block of queries has, or with a softcap how many numbers (B, H, R, keys)."""
ROWS = 128
"""Of a block in the backward of constant weights: few, since what is computed and not read grows with them."""
ON_A_GPU = 8
"""So many times as many there: a block reads all keys before it, which are in memory of their own for it."""


def attention_sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_past: Tensor | None = None,
    v_past: Tensor | None = None,
    *,
    scores: Scores,
    rules: Rules,
) -> Tensor:
    """Same contract as :func:`hf_mambalrp.ops.attention.reference.attention_reference`."""
    if rules.attention == "cp" and torch.is_grad_enabled():
        all_before = _all_before(q.shape[1] + (0 if k_past is None else k_past.shape[1]), scores)
        if v.device.type == "cpu" or (all_before and v.is_cuda and triton_declines(v.device, v.dtype) is None):
            o: Tensor = _ConstantWeights.apply(v, v_past, q, k, k_past, scores, rules)
            return o
    return _mixed(q, k, v, k_past, v_past, scores, rules)


class _ConstantWeights(torch.autograd.Function):
    """o = [A] v. Its backward is A^T alone; torch's own would give the gradients of q and k too."""

    @staticmethod
    def forward(
        ctx: Any,
        v: Tensor,
        v_past: Tensor | None,
        q: Tensor,
        k: Tensor,
        k_past: Tensor | None,
        scores: Scores,
        rules: Rules,
    ) -> Tensor:
        ctx.scores, ctx.rules, lse = scores, rules, None
        if v.is_cuda:
            o, lse = _with_lse(q, k, v, k_past, v_past, scores.scale)
        elif k_past is None and _all_before(q.shape[1], scores):
            q_h, k_h, v_h = _by_heads(v.dtype, q, k, v)
            o, lse = _causal(q_h, k_h, v_h, scores.scale)
            o = o.transpose(1, 2)
        else:
            o = _mixed(q, k, v, k_past, v_past, scores, rules)
        ctx.save_for_backward(q, k, k_past, lse)
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, k_past, lse = ctx.saved_tensors
        if lse is None:
            found = _transposed_in_blocks(q, k, k_past, grad, ctx.scores, ctx.rules)
        elif grad.is_cuda:
            found = _transposed_on_a_gpu(q, k, k_past, lse, grad, ctx.scores.scale)
        else:
            q_h, k_h, g_h = _by_heads(lse.dtype, q, k, grad)
            each = _transposed(q_h, k_h, lse, g_h, ctx.scores.scale)
            found = each.unflatten(1, (k.shape[2], -1)).sum(2).transpose(1, 2)
        of_past, of_v = found.to(grad.dtype).tensor_split([found.shape[1] - q.shape[1]], 1)
        return of_v, None if k_past is None else of_past, None, None, None, None, None


def _all_before(length: int, scores: Scores) -> bool:
    """Whether every query reads all positions up to itself, by scores as they are."""
    return (scores.window or length) >= length and scores.mask is None and scores.softcap is None


def _with_lse(
    q: Tensor, k: Tensor, v: Tensor, k_past: Tensor | None, v_past: Tensor | None, scale: float
) -> tuple[Tensor, Tensor | None]:
    """o and lse (B, H, L), as the kernel that torch chooses keeps it for its backward; None where it keeps none."""
    if k_past is not None and v_past is not None:
        k, v = torch.cat([k_past, k], 1), torch.cat([v_past, v], 1)
    with torch.enable_grad():
        o = _sdpa(q, k, v.detach().requires_grad_(), scale)
    node = o.grad_fn
    while node is not None and not hasattr(node, "_saved_logsumexp") and not hasattr(node, "_saved_log_sumexp"):
        node = node.next_functions[0][0] if node.next_functions else None
    lse = getattr(node, "_saved_logsumexp", None)
    lse = getattr(node, "_saved_log_sumexp", None) if lse is None else lse
    return o.detach(), None if lse is None else lse.flatten(2)[..., : q.shape[1]]


def _transposed_on_a_gpu(
    q: Tensor, k: Tensor, k_past: Tensor | None, lse: Tensor, grad: Tensor, scale: float
) -> Tensor:
    """A^T grad, for positions before and for these."""
    from hf_mambalrp.ops.attention.triton import transposed_triton  # which is not installed everywhere

    q, k = (x.to(grad.dtype) for x in (q, k if k_past is None else torch.cat([k_past, k], 1)))
    return transposed_triton(q, k, lse, grad, scale)


def _by_heads(dtype: torch.dtype, *signals: Tensor) -> Iterator[Tensor]:
    """Each as (B, H, L, P), heads that share repeated."""
    heads = signals[0].shape[2]
    return (x.repeat_interleave(heads // x.shape[2], 2).to(dtype).transpose(1, 2) for x in signals)


def _causal(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """o, every query reading all up to itself, and lse (B, H, L), the logarithms of what the softmax divides by.

    Heads are all equally many here, but values may have another width. Shape: (B, H, L, P).
    """
    width = max(q.shape[-1], v.shape[-1])
    padded = (F.pad(x, (0, width - x.shape[-1])) for x in (q, k, v))
    o, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*padded, 0.0, True, scale=scale)
    return o[..., : v.shape[-1]], lse


def _transposed(q: Tensor, k: Tensor, lse: Tensor, grad: Tensor, scale: float) -> Tensor:
    """A^T grad, by the same kernel: A_ij = exp(s q_i . k_j - lse_i) is, of keys that read queries and with the columns
    [s k, 1] and [q, -lse], a softmax that is not divided by its sum, and backwards in time it is causal.
    """
    q, k, grad, lse = (x.flip(2) for x in (q, k, grad, lse[..., None]))
    readers, read = torch.cat([scale * k, torch.ones_like(lse)], -1), torch.cat([q, -lse], -1)
    found, sums = _causal(readers, read, grad, 1.0)
    return (found * sums.exp()[..., None]).flip(2)


def _transposed_in_blocks(
    q: Tensor, k: Tensor, k_past: Tensor | None, grad: Tensor, scores: Scores, rules: Rules
) -> Tensor:
    """A^T grad for positions before and for these, A computed again for some queries at a time."""
    before = 0 if k_past is None else k_past.shape[1]
    length, heads = before + q.shape[1], k.shape[2]
    found = grad.new_zeros(len(q), length, heads, grad.shape[3], dtype=torch.promote_types(grad.dtype, torch.float32))
    rows = max(1, min(ROWS, BLOCK_ELEMENTS // (len(q) * q.shape[2] * length)))
    for queries, keys in _blocks(before, length, rows, scores.window):
        own = slice(queries.start - before, queries.stop - before)
        A = weights(q[:, own], _at(keys, k_past, k), keys, scores, rules)
        found[:, keys.start : keys.stop] += transposed_product(A, grad[:, own], heads)
    return found


def _mixed(
    q: Tensor, k: Tensor, v: Tensor, k_past: Tensor | None, v_past: Tensor | None, scores: Scores, rules: Rules
) -> Tensor:
    before = 0 if k_past is None else k_past.shape[1]
    length = before + q.shape[1]
    window = length if scores.window is None else min(scores.window, length)
    if _all_before(length, scores):
        if before == 0:
            return _sdpa(q, k, v, scores.scale)
        if _flash(q, k, v):
            return _again(_behind, q, k, v, k_past, v_past, scores.scale)
    found = []
    for queries, keys in _blocks(before, length, _rows(q, length, window, scores), scores.window):
        own = q[:, queries.start - before : queries.stop - before]
        found.append(_again(_block, own, k, v, k_past, v_past, queries, keys, scores, rules))
    return torch.cat(found, 1)


def _again(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Computed again in the backward, or masks and joined keys of all blocks and layers would be kept until it."""
    found: Tensor = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return found


def _blocks(before: int, length: int, rows: int, window: int | None) -> Iterator[tuple[range, range]]:
    """Queries from ``before`` on, so many at a time, and the keys that they may read."""
    for start in range(before, length, rows):
        stop = min(start + rows, length)
        yield range(start, stop), range(0 if window is None else max(0, start - window + 1), stop)


def _rows(q: Tensor, length: int, window: int, scores: Scores) -> int:
    """How many queries a block has; each then reads about as many keys as it may."""
    each = (1 if scores.mask is None else len(q)) if scores.softcap is None else len(q) * q.shape[2]
    elements = BLOCK_ELEMENTS * (ON_A_GPU if q.is_cuda else 1)
    return max(1, min(window, elements // (each * min(length, 2 * window))))


def _block(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_past: Tensor | None,
    v_past: Tensor | None,
    queries: range,
    keys: range,
    scores: Scores,
    rules: Rules,
) -> Tensor:
    """o of ``queries``, which read some of ``keys``, the last of which are they."""
    k, v = _at(keys, k_past, k), _at(keys, v_past, v)
    if scores.softcap is not None:  # which torch does not have
        return product(weights(q, k, keys, scores, rules), v)
    return _sdpa(q, k, v, scores.scale, read(queries, keys, scores, q.device))


def _behind(q: Tensor, k: Tensor, v: Tensor, k_past: Tensor, v_past: Tensor, scale: float) -> Tensor:
    """o of all queries at once."""
    return _sdpa(q, torch.cat([k_past, k], 1), torch.cat([v_past, v], 1), scale)


def _at(positions: range, past: Tensor | None, x: Tensor) -> Tensor:
    """What x, and where they reach there what is before it, holds at the positions."""
    before = 0 if past is None else past.shape[1]
    if past is None or positions.start >= before:
        return x[:, positions.start - before : positions.stop - before]
    return torch.cat([past[:, positions.start :], x[:, : positions.stop - before]], 1)


def _flash(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether torch's flash kernel takes them: without a mask it can tell the last positions, and heads may share."""
    if not q.is_cuda:
        return False
    q, k, v = (x.to(v.dtype).transpose(1, 2) for x in (q, k, v))
    parameters = torch.backends.cuda.SDPAParams(q, k, v, None, 0.0, False, q.shape[1] != k.shape[1])
    found: bool = torch.backends.cuda.can_use_flash_attention(parameters)
    return found


def _sdpa(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """Where there is no mask the queries are the last of the positions, and read all up to their own."""
    shared, last = q.shape[2] // k.shape[2], mask is None and q.shape[1] < k.shape[1]
    if shared > 1 and q.is_cuda and (mask is not None or not _flash(q, k, v)):
        # No other kernel has heads that share: torch would hold the whole matrix without a word.
        k, v, shared = k.repeat_interleave(shared, 2), v.repeat_interleave(shared, 2), 1
    bias: Any = causal_lower_right(q.shape[1], k.shape[1]) if last else mask
    q, k, v = (x.to(v.dtype).transpose(1, 2) for x in (q, k, v))
    o: Tensor = F.scaled_dot_product_attention(
        q, k, v, bias, is_causal=bias is None, scale=scale, enable_gqa=shared > 1
    )
    return o.transpose(1, 2)
