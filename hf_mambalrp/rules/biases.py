"""What additive biases absorb: with them the score is accounted for in full."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hf_mambalrp.rules.constant import constant


class BiasLedger:
    """Records every additive bias on the content path, so that its share of the score can be read off.

    A bias b enters as one copy per row, (B, 1, F), that requires a gradient; with g that gradient, which is summed
    over positions, the bias absorbed b . g of the row's score. A layer that a hook changes may have a bias at every
    position, (B, L, F).
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.entries: list[Tensor] = []
        self.ends: list[int] = []

    def enter(self, bias: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a bias (F,) as (B, 1, F), or one for every position (1 or B, 1 or L, F), in ``dtype``, recorded."""
        bias = constant(bias, dtype)
        per_row = bias.expand(self.batch_size, bias.shape[1] if bias.dim() > 1 else 1, -1).clone().requires_grad_()
        self.entries.append(per_row)
        return per_row

    def end_block(self) -> None:
        """Say that the biases entered since the last call belong to one block."""
        self.ends.append(len(self.entries))

    def absorbed(self, gradients: Sequence[Tensor], part: slice = slice(None)) -> Tensor:
        """Sum over biases of b . g, or over a ``part`` of them. Shape: (B,)."""
        by_device: dict[torch.device, Tensor] = {}
        for bias, gradient in zip(self.entries[part], gradients[part], strict=True):
            share = (bias.detach() * gradient).sum((1, 2))
            by_device[share.device] = by_device[share.device] + share if share.device in by_device else share
        return sum((share.cpu() for share in by_device.values()), torch.zeros(self.batch_size))

    def absorbed_by_block(self, gradients: Sequence[Tensor]) -> Tensor:
        """The same for every block. Shape: (num_layers, B)."""
        starts = [0, *self.ends[:-1]]
        parts = [self.absorbed(gradients, slice(start, end)) for start, end in zip(starts, self.ends, strict=True)]
        return torch.stack(parts)
