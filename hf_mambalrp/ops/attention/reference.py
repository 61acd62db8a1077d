"""Softmax attention as it is defined, with its whole matrix: for reading, tests, and hidden attention."""

import torch
from torch import Tensor

from hf_mambalrp.ops.attention.dispatch import Scores
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.activation import softcap


def attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_past: Tensor | None = None,
    v_past: Tensor | None = None,
    *,
    scores: Scores,
    rules: Rules,
) -> Tensor:
    """o = A v; arguments and result as of :func:`hf_mambalrp.ops.attention.attention`."""
    if k_past is not None and v_past is not None:
        k, v = torch.cat([k_past, k], 1), torch.cat([v_past, v], 1)
    return product(weights(q, k, range(k.shape[1]), scores, rules), v)


def weights(q: Tensor, k: Tensor, keys: range, scores: Scores, rules: Rules) -> Tensor:
    """A of queries, the last of the positions ``keys``. Shape: (B, R, H, P), (B, keys, K, P) -> (B, H, R, keys)."""
    wide = torch.promote_types(q.dtype, torch.float32)
    shared = (scores.scale * q.to(wide)).unflatten(2, (k.shape[2], -1))
    x = torch.einsum("bikgp,bjkp->bkgij", shared, k.to(wide)).flatten(1, 2)
    if scores.softcap is not None:
        x = softcap(x, scores.softcap, rules)
    are_read = read(range(keys.stop - q.shape[1], keys.stop), keys, scores, q.device)
    return x.masked_fill(~are_read, -torch.inf).softmax(-1)


def read(queries: range, keys: range, scores: Scores, device: torch.device) -> Tensor:
    """Whether a query reads a key. Shape: (1 or B, 1, queries, keys)."""
    i = torch.arange(queries.start, queries.stop, device=device)[:, None]
    j = torch.arange(keys.start, keys.stop, device=device)
    found = j <= i
    if scores.window is not None:
        found &= j > i - scores.window
    if scores.mask is None:
        return found[None, None]
    unmasked = scores.mask[:, None, None, keys.start : keys.stop] != 0
    return (found & unmasked) | (i == j)  # a query that reads nothing else reads itself: its softmax stays finite


def product(A: Tensor, v: Tensor) -> Tensor:
    """A v in the dtype of v. Shape: (B, H, R, keys), (B, keys, K, P) -> (B, R, H, P)."""
    return torch.einsum("bkgij,bjkp->bikgp", A.unflatten(1, (v.shape[2], -1)), v.to(A)).flatten(2, 3).to(v.dtype)


def transposed_product(A: Tensor, o: Tensor, heads: int) -> Tensor:
    """A^T o in the dtype of A. Shape: (B, H, R, keys), (B, R, H, P) -> (B, keys, heads, P)."""
    by_heads = A.unflatten(1, (heads, -1)), o.to(A).unflatten(2, (heads, -1))
    return torch.einsum("bkgij,bikgp->bjkp", *by_heads)
