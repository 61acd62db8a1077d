"""Where a row ends, whatever side its padding is on."""

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
