"""Constants that are cheaper to compute again in the backward than to keep until it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Key = tuple[int, torch.Size]


class _Entered(threading.local):
    """What the contexts that a thread is in compute again; of nested hooks torch asks the innermost alone."""

    def __init__(self) -> None:
        self.computes: dict[Key, Callable[[], Tensor]] = {}


_entered = _Entered()


@contextmanager
def computed_again(value: Tensor, compute: Callable[[], Tensor]) -> Iterator[None]:
    """Operations inside that would keep ``value`` for their backward ``compute`` it again there instead.

    The caller holds ``value`` until the end, so that nothing else comes to lie where it is.
    """
    before = _entered.computes
    _entered.computes = computes = {**before, _key(value): compute}

    def pack(kept: Tensor) -> Tensor | Callable[[], Tensor]:
        return computes.get(_key(kept), kept)

    def unpack(kept: Tensor | Callable[[], Tensor]) -> Tensor:
        return kept if isinstance(kept, Tensor) else kept()

    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield
    finally:
        _entered.computes = before


def _key(value: Tensor) -> Key:
    """Its place in memory, and not the tensor itself, which the hooks would keep alive."""
    return value.data_ptr(), value.shape
