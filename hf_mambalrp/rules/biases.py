"""What additive biases absorb: with them the score is accounted for in full."""

import torch
from torch import Tensor

from hf_mambalrp.rules.constant import constant


class BiasLedger:
    """Records every additive bias on the content path, so that its share of the score can be read off.

    A bias b enters as one copy per row, (B, 1, F), that requires a gradient; with g that gradient, which is summed
    over positions, the bias absorbed b . g of the row's score.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.entries: list[Tensor] = []

    def enter(self, bias: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the bias as (B, 1, F) in ``dtype``, recorded."""
        per_row = constant(bias, dtype).expand(self.batch_size, 1, -1).clone().requires_grad_()
        self.entries.append(per_row)
        return per_row

    def absorbed(self, gradients: list[Tensor]) -> Tensor:
        """Sum over biases of b . g. Shape: (B,)."""
        by_device: dict[torch.device, Tensor] = {}
        for bias, gradient in zip(self.entries, gradients, strict=True):
            share = (bias.detach() * gradient).sum((1, 2))
            by_device[share.device] = by_device[share.device] + share if share.device in by_device else share
        return sum((share.cpu() for share in by_device.values()), torch.zeros(self.batch_size))
