"""Softmax attention by torch's ``scaled_dot_product_attention``, whose kernels hold no matrix of the length squared."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hf_mambalrp.ops.attention.dispatch import Scores
from hf_mambalrp.ops.attention.reference import product, read, weights
from hf_mambalrp.rules import Rules

BLOCK_ELEMENTS = 2**24
"""How many bits (B, R, keys) the mask of a block of queries has, or with a softcap how many numbers (B, H, R, keys)."""


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
    before = 0 if k_past is None else k_past.shape[1]
    length = before + q.shape[1]
    window = length if scores.window is None else min(scores.window, length)
    if before == 0 and window == length and scores.mask is None and scores.softcap is None:
        return _sdpa(q, k, v, scores.scale)
    found = []
    for start in range(before, length, size := _rows(q, length, window, scores)):
        queries = range(start, min(start + size, length))
        keys = range(max(0, start - window + 1), queries.stop)
        block: Any = (q[:, start - before : queries.stop - before], k, v, k_past, v_past, queries, keys, scores, rules)
        # Computed again in the backward, or masks and joined keys of all blocks and layers would be kept until it.
        found.append(checkpoint(_block, *block, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(found, 1)


def _rows(q: Tensor, length: int, window: int, scores: Scores) -> int:
    """How many queries a block has; each then reads about as many keys as it may."""
    each = (1 if scores.mask is None else len(q)) if scores.softcap is None else len(q) * q.shape[2]
    return max(1, min(window, BLOCK_ELEMENTS // (each * min(length, 2 * window))))


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


def _at(positions: range, past: Tensor | None, x: Tensor) -> Tensor:
    """What x, and where they reach there what is before it, holds at the positions."""
    before = 0 if past is None else past.shape[1]
    if past is None or positions.start >= before:
        return x[:, positions.start - before : positions.stop - before]
    return torch.cat([past[:, positions.start :], x[:, : positions.stop - before]], 1)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """Causal where there is no mask."""
    q, k, v = (x.to(v.dtype).transpose(1, 2) for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    o = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=scale, enable_gqa=grouped)
    return o.transpose(1, 2)
