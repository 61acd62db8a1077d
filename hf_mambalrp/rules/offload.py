"""Weights that accelerate keeps on another device, in CPU memory or on disk, until they are used."""

from contextlib import AbstractContextManager, nullcontext

from accelerate.utils import align_module_device
from torch import nn

HERE: AbstractContextManager[None] = nullcontext()


def loaded(module: nn.Module) -> AbstractContextManager[None]:
    """In it the module's own weights are where it computes. Most modules have no hook of accelerate: they are there."""
    return align_module_device(module) if "_hf_hook" in module.__dict__ else HERE
