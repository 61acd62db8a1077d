"""Hashes by which a run that goes on tells whether model and texts are those that it began with."""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hf_mambalrp.rules.offload import loaded
from hf_mambalrp.rules.twin import uncompiled


def fingerprint(source: nn.Module | str) -> str:
    """SHA-256 of a text, or of the name, dtype, shape and values of every weight of a model.

    Weights that accelerate has offloaded are read a module at a time, so equal weights give equal fingerprints wherever
    they are.
    """
    digest = hashlib.sha256()
    if isinstance(source, str):
        digest.update(source.encode())
        return digest.hexdigest()
    model = uncompiled(source)
    for name, weight in model.state_dict().items():
        _add(digest, name, _loaded(model, name) if weight.is_meta else weight.detach())
    return digest.hexdigest()


def weight_fingerprint(model: nn.Module, name: str) -> str:
    """The same of one weight. AttributeError: the model has none of that name."""
    digest = hashlib.sha256()
    _add(digest, name, _loaded(model, name))
    return digest.hexdigest()


def _add(digest: Any, name: str, weight: Tensor) -> None:
    for part, tensor in _parts(name, weight):
        plain = tensor.cpu()
        digest.update(f"{part} {plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _parts(name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The plain tensors of a weight: itself, or those that a subclass, such as torchao's quantised ones, is made of."""
    if not hasattr(weight, "__tensor_flatten__"):
        yield name, weight
        return
    for inner in weight.__tensor_flatten__()[0]:
        yield from _parts(f"{name}.{inner}", getattr(weight, inner))


def _loaded(model: nn.Module, name: str) -> Tensor:
    """A weight with its values, on the CPU, also where accelerate keeps them elsewhere."""
    owner, _, attribute = name.rpartition(".")
    module = model.get_submodule(owner)
    with loaded(module):
        weight: Tensor = getattr(module, attribute)
        return weight.detach().cpu()
