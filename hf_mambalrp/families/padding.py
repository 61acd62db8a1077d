"""Where a row begins and ends, whatever side its padding is on."""

import torch
from torch import Tensor


def last_attended(attention_mask: Tensor) -> Tensor:
    """Index of the rightmost attended token of each row. Shape: (B, L) -> (B,).

    Right for both padding sides, unlike ``attention_mask.sum(-1) - 1``.
    """
    positions = torch.arange(attention_mask.shape[-1], device=attention_mask.device)
    return (positions * (attention_mask != 0)).argmax(-1)


def padding_of(mask: Tensor, like: Tensor) -> Tensor | None:
    """The mask as mixers take it, (B, L, 1); None where nothing is padding."""
    return None if bool((mask != 0).all()) else mask.to(like)[:, :, None]


def keys_of(mask: Tensor, like: Tensor) -> Tensor | None:
    """The mask (B, L) as attention takes it; None where padding is behind the tokens only, which causality hides."""
    return mask.to(like.device) if bool((mask[:, 1:] > mask[:, :-1]).any()) else None


def leading(mask: Tensor) -> Tensor:
    """How much padding each row begins with. Shape: (B, L) -> (B,)."""
    return (mask != 0).long().argmax(-1)


def rolled(x: Tensor, shifts: Tensor, dim: int = 1) -> Tensor:
    """Every row of the batch, the first axis, rolled to the left along ``dim`` by a number of its own, (B,)."""
    length = x.shape[dim]
    index = (torch.arange(length) + shifts.cpu()[:, None]) % length
    shape = [len(x), *[1] * (x.dim() - 1)]
    shape[dim] = length
    return x.gather(dim, index.view(shape).expand(x.shape).to(x.device))
