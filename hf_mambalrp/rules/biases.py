"""What is absorbed on the way, by additive biases and by a softmax that does not conserve.

With it the score is accounted for in full.
"""

from collections.abc import Sequence

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
        bias = constant(bias, dtype)
        per_row = bias.expand(self.batch_size, bias.shape[1] if bias.dim() > 1 else 1, -1).clone().requires_grad_()
        self.entries.append(per_row)
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

    def shares(self, gradients: Sequence[Tensor]) -> Tensor:
        """b . g of every block's biases, and of its softmaxes, on the device of the first. Shape: (2, blocks, B).

        What is entered behind the last block, or without blocks, is one more.
        """
        found = [(bias.detach() * gradient).sum((1, 2)) for bias, gradient in zip(self.entries, gradients, strict=True)]
        ends = [*self.ends, *([len(found)] if not self.ends or self.ends[-1] < len(found) else [])]
        if not found:
            return torch.zeros(2, len(ends), self.batch_size)
        shares = torch.stack([share.to(found[0].device) for share in found])
        of_softmax = torch.zeros_like(shares)
        of_softmax[self.of_softmax] = shares[self.of_softmax]
        sizes = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        kinds = [torch.stack([part.sum(0) for part in kind.split(sizes)]) for kind in (shares - of_softmax, of_softmax)]
        return torch.stack(kinds)


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
