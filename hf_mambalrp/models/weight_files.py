"""Files of weights in other packages' formats: where they are, what they hold, whether it fits a model."""

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hf_mambalrp.errors import CheckpointError, UnknownArchitectureError

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
"""Arguments of ``from_pretrained`` that say where files come from."""


def hub_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``from_pretrained``'s options that say where files come from."""
    return {name: options[name] for name in HUB_OPTIONS if options.get(name) is not None}


def read_file(path: str, *, also: Sequence[type] = ()) -> Any:
    """Read what a file holds: tensors, containers of them, and objects of the classes in ``also``; never code.

    Weights of a pickle stay on disk until they are used.

    Raises:
        CheckpointError: the file is damaged, or holds something else.
    """
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        with torch.serialization.safe_globals(list(also)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged or holds more than weights; it was not loaded: {error}") from error


def checked_weights(found: Any, path: str) -> dict[str, Tensor]:
    """Return what was read, where it is a dictionary of weights.

    Raises:
        CheckpointError: it is something else.
    """
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(f"{path} holds something else than a dictionary of weights; it was not loaded.")
    return found


def check_fit(model: nn.Module, weights: Mapping[str, Tensor], whose: Any, causes: str) -> None:
    """Raise unless ``weights`` are those of ``model``, by name and shape.

    Args:
        model: may be empty, on the device "meta".
        weights: by the model's names.
        whose: what they belong to, for the message.
        causes: a sentence on what makes a difference.

    Raises:
        UnknownArchitectureError: says how many are missing, unexpected or of another shape, and names some.
    """
    expected = dict(model.named_parameters(remove_duplicate=False))
    wrong = sorted(
        name
        for name in expected.keys() | weights.keys()
        if name not in expected or name not in weights or expected[name].shape != weights[name].shape
    )
    if wrong:
        missing, unexpected = len(expected.keys() - weights.keys()), len(weights.keys() - expected.keys())
        raise UnknownArchitectureError(
            f"The weights of {whose} do not fit {type(model).__name__}: {missing} missing, {unexpected} unexpected, "
            f"{len(wrong) - missing - unexpected} of another shape, such as {wrong[:5]}. {causes}"
        )
