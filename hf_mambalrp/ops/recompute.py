"""Constants that are cheaper to compute again in the backward than to keep until it."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor


def computed_again(value: Tensor, compute: Callable[[], Tensor]) -> AbstractContextManager[None]:
    """Operations inside that would keep ``value`` for their backward ``compute`` it again there instead."""
    address, shape = value.data_ptr(), value.shape  # not the tensor itself, which these functions would keep alive

    def pack(kept: Tensor) -> Tensor | None:
        return None if (kept.data_ptr(), kept.shape) == (address, shape) else kept

    def unpack(kept: Tensor | None) -> Tensor:
        return compute() if kept is None else kept

    hooks: AbstractContextManager[None] = torch.autograd.graph.saved_tensors_hooks(pack, unpack)
    return hooks
