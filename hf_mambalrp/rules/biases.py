"""What is absorbed on the way, by additive biases and by a softmax that does not conserve.

With it the score is accounted for in full.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.rules.constant import constant


class BiasLedger:
    """Records every additive bias on the content path, so that its share of the score can be read off.

    A bias b enters as one copy per row, (B, 1, F), that requires a gradient; with g that gradient, which is summed
    over positions, the bias absorbed b . g of the row's score. A layer that a hook changes may have a bias at every
    position, (B, L, F). A softmax enters as ones (B, 1, 1), whose gradient is what it absorbed.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.entries: list[Tensor] = []
        self.of_softmax: list[int] = []
        """Numbers of the entries of a softmax."""
        self.ends: list[int] = []

    def enter(self, bias: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a bias (F,) as (B, 1, F), or one for every position (1 or B, 1 or L, F), in ``dtype``, recorded."""
        bias = constant(bias)
        positions = bias.shape[1] if bias.dim() > 1 else 1
        per_row = torch.empty(self.batch_size, positions, bias.shape[-1], dtype=dtype, device=bias.device)
        self.entries.append(per_row.copy_(bias).requires_grad_())
        return per_row

    def enter_softmax(self, like: Tensor) -> Tensor:
        """Return ones (B, 1, 1), recorded; their gradient is to be what a softmax absorbed of every row."""
        wide = torch.promote_types(like.dtype, torch.float32)
        ones = like.new_ones(self.batch_size, 1, 1, dtype=wide).requires_grad_()
        self.of_softmax.append(len(self.entries))
        self.entries.append(ones)
        return ones

    def end_block(self) -> None:
        """Say that the biases entered since the last call belong to one block."""
        self.ends.append(len(self.entries))

    def absorbed(self, gradients: Sequence[Tensor]) -> Tensor:
        """b . g of every entry, on the device of the first. Shape: (entries, B).

        Entries of one shape are multiplied and summed together: on a GPU each by itself costs as much as all.
        """
        alike: dict[tuple[Any, ...], list[int]] = {}
        for number, entry in enumerate(self.entries):
            alike.setdefault((entry.shape, entry.dtype, entry.device), []).append(number)
        found: dict[int, Tensor] = {}
        for numbers in alike.values():
            entries, own = (torch.stack([of[number] for number in numbers]) for of in (self.entries, gradients))
            found.update(zip(numbers, (entries.detach() * own).sum((2, 3)).unbind(), strict=True))
        if not found:
            return torch.zeros(0, self.batch_size, dtype=torch.float32)
        return torch.stack([found[number].to(found[0].device) for number in range(len(found))])

    def shares(self, absorbed: Tensor) -> Tensor:
        """What every block's biases absorbed, and its softmaxes: (entries, B) -> (2, blocks, B).

        What is entered behind the last block, or without blocks, is one more.
        """
        count = len(self.entries)
        ends = [*self.ends, *([count] if not self.ends or self.ends[-1] < count else [])]
        blocks = absorbed.new_zeros(2 * len(ends), self.batch_size)
        softmax = {number: len(ends) for number in self.of_softmax}
        rows = [bisect_right(ends, number) + softmax.get(number, 0) for number in range(count)]
        return blocks.index_add_(0, torch.tensor(rows, dtype=torch.long), absorbed).view(2, len(ends), -1)


class RowLedger(BiasLedger):
    """A ledger as one row sees it: what is entered goes there, and the row's copy comes back, (1, 1, F)."""

    def __init__(self, ledger: BiasLedger, row: int) -> None:
        super().__init__(1)
        self.whole, self.row = ledger, row

    def enter(self, bias: Tensor, dtype: torch.dtype) -> Tensor:
        """As :meth:`BiasLedger.enter`."""
        return self.whole.enter(bias, dtype)[self.row : self.row + 1]


def from_block_on(shares: Tensor) -> Tensor:
    """What a block and all after it absorbed: (blocks, B) -> (blocks + 1, B), the last 0."""
    return torch.cat([shares.flip(0).cumsum(0).flip(0), torch.zeros_like(shares[:1])])
