"""Targets of several tokens: the rows a language model reads when each token but the last is fed back to it.

The score of target tokens w_1 .. w_T is sum_k logit(w_k | input, w_1 .. w_{k-1}); the fed-back tokens are inputs like
any other and get relevance of their own. A contrast of several tokens needs rows of its own, which enter with a minus.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from hf_mambalrp.calls.inputs import Batch, pad_right
from hf_mambalrp.calls.targets import Target


@dataclass(frozen=True)
class Forced:
    """Rows with the target's tokens fed back, and where their logits are read."""

    input_ids: Tensor
    """(R, L')."""
    attention_mask: Tensor
    """(R, L')."""
    positions: Tensor
    """(R, K): the position that predicts the k-th target token; repeated where a row has fewer tokens."""


def force(batch: Batch, last: Tensor, target: Target) -> Forced:
    """Put each row's target tokens but the last behind its last real token, at ``last`` (B,)."""
    assert batch.input_ids is not None
    assert target.ids is not None
    ids, masks, positions = [], [], []
    for row, tokens in enumerate(target.ids):
        fed = torch.tensor(tokens[:-1], dtype=torch.long)
        end = int(last[row]) + 1
        ids.append(torch.cat([batch.input_ids[row, :end], fed]))
        masks.append(torch.cat([batch.attention_mask[row, :end], torch.ones_like(fed)]))
        positions.append((torch.arange(target.tokens) + end - 1).clamp(max=end - 1 + len(fed)))
    return Forced(pad_right(ids, 0), pad_right(masks, 0), torch.stack(positions))


def stack(target: Forced, contrast: Forced) -> Forced:
    """The target's rows over the contrast's rows, as one batch of 2B."""
    length = max(target.input_ids.shape[1], contrast.input_ids.shape[1])
    width = max(target.positions.shape[1], contrast.positions.shape[1])
    both = (target, contrast)
    return Forced(
        torch.cat([pad_right(list(side.input_ids), 0, length) for side in both]),
        torch.cat([pad_right(list(side.attention_mask), 0, length) for side in both]),
        torch.cat([side.positions[:, [min(k, side.positions.shape[1] - 1) for k in range(width)]] for side in both]),
    )


def merge_sides(values: Tensor, last: Tensor, target: Target, contrast: Target, shared: str) -> Tensor:
    """Bring (..., 2B, L') values of stacked rows to one row each: input, target's fed tokens, contrast's fed tokens.

    Both sides read the same input: its values are added up (``shared="sum"``) or taken once (``shared="first"``).
    """
    assert target.ids is not None
    assert contrast.ids is not None
    batch_size = len(target.ids)
    rows = []
    for row in range(batch_size):
        end = int(last[row]) + 1
        first, second = values[..., row, :], values[..., batch_size + row, :]
        common = first[..., :end] + second[..., :end] if shared == "sum" else first[..., :end]
        fed_first = first[..., end : end + len(target.ids[row]) - 1]
        fed_second = second[..., end : end + len(contrast.ids[row]) - 1]
        rows.append(torch.cat([common, fed_first, fed_second], -1))
    length = max(row.shape[-1] for row in rows)
    return torch.stack([pad(row, (0, length - row.shape[-1])) for row in rows], -2)
