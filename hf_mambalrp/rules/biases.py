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

    def shares(self, gradients: Sequence[Tensor]) -> Tensor:
        """b . g of every bias, on the device of the first. Shape: (biases, B)."""
        found = [(bias.detach() * gradient).sum((1, 2)) for bias, gradient in zip(self.entries, gradients, strict=True)]
        return torch.stack([share.to(found[0].device) for share in found]) if found else torch.zeros(0, self.batch_size)

    def from_block_on(self, shares: Tensor) -> Tensor:
        """What the biases of a block and of all after it absorbed: (biases, B) -> (blocks + 1, B), the last 0."""
        sizes = [end - start for start, end in zip([0, *self.ends[:-1]], self.ends, strict=True)]
        by_block = torch.stack([part.sum(0) for part in shares.split(sizes)])
        return torch.cat([by_block.flip(0).cumsum(0).flip(0), torch.zeros_like(by_block[:1])])
