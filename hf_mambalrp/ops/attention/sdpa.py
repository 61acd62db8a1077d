"""Softmax attention by torch's ``scaled_dot_product_attention``, whose kernels hold no matrix of the length squared."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hf_mambalrp.ops.attention.dispatch import Scores
from hf_mambalrp.ops.attention.reference import attention_reference, joined, read
from hf_mambalrp.rules import Rules

MASK_ELEMENTS = 2**24
"""How many bits (B, R, keys) the mask of a block of queries has."""


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
    """Same contract as :func:`attention_reference`."""
    if scores.softcap is not None:  # which it does not have
        return attention_reference(q, k, v, k_past, v_past, scores=scores, rules=rules)
    if k_past is None and scores.mask is None and (scores.window is None or scores.window >= q.shape[1]):
        return _sdpa(q, k, v, scores.scale)
    # Computed again in the backward, or masks and joined keys of every layer would be kept until it.
    o: Tensor = checkpoint(_masked, q, k, v, k_past, v_past, scores, use_reentrant=False, preserve_rng_state=False)
    return o


def _masked(q: Tensor, k: Tensor, v: Tensor, k_past: Tensor | None, v_past: Tensor | None, scores: Scores) -> Tensor:
    """A block of queries at a time, each with the keys that it may read."""
    k, v = joined(k_past, k), joined(v_past, v)
    length, before = k.shape[1], k.shape[1] - q.shape[1]
    window = length if scores.window is None else min(scores.window, length)
    size = window if window < length else max(1, MASK_ELEMENTS // (len(q) * length))
    found = []
    for start in range(before, length, size):
        queries = range(start, min(start + size, length))
        keys = range(max(0, start - window + 1), queries.stop)
        rows, at = slice(queries.start - before, queries.stop - before), slice(keys.start, keys.stop)
        found.append(_sdpa(q[:, rows], k[:, at], v[:, at], scores.scale, read(queries, keys, scores, q.device)))
    return torch.cat(found, 1)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """Causal where there is no mask."""
    q, k, v = (x.to(v.dtype).transpose(1, 2) for x in (q, k, v))
    grouped = q.shape[1] != k.shape[1]
    o = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, scale=scale, enable_gqa=grouped)
    return o.transpose(1, 2)
