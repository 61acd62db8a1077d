"""Hashes by which a run that goes on tells whether model and texts are those that it began with."""

import hashlib

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn


def fingerprint(source: nn.Module | str) -> str:
    """SHA-256 of a text, or of the name, dtype, shape and values of every weight of a model.

    Weights that accelerate has offloaded are read a module at a time, so equal weights give equal fingerprints wherever
    they are.
    """
    digest = hashlib.sha256()
    if isinstance(source, str):
        digest.update(source.encode())
    else:
        for name, weight in source.state_dict().items():
            tensor = _offloaded(source, name) if weight.is_meta else weight.detach().cpu()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _offloaded(model: nn.Module, name: str) -> Tensor:
    """A weight whose values are elsewhere, on the CPU."""
    owner, _, attribute = name.rpartition(".")
    module = model.get_submodule(owner)
    with align_module_device(module):
        weight: Tensor = getattr(module, attribute)
        return weight.detach().cpu()
