"""What is wrong with a call of ``explain_dataset`` as such, said before a row is read or a file written."""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hf_mambalrp.errors import OptionError

NO_OPTIONS = {"inputs", "input_ids", "attention_mask", "inputs_embeds", "per_layer"}
"""Arguments of ``explain`` for which a run over texts into rows of one relevance a token has no use."""


def check_launch(state: Any) -> None:
    """Warn where more processes were launched than see each other."""
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if wanted != state.num_processes:
        warnings.warn(
            f"WORLD_SIZE is {wanted}, but this process sees {state.num_processes}: every process would explain all "
            "rows. Launch with torchrun, or with accelerate launch --multi_gpu.",
            stacklevel=3,
        )


def check_options(options: Mapping[str, Any]) -> None:
    """Raise :class:`OptionError` for options of ``explain`` that a dataset cannot have."""
    refused = sorted({*options} & NO_OPTIONS)
    if refused:
        raise OptionError(f"{refused} cannot be given for a dataset: its texts are the input, its rows hold no layers.")


def check_for_all(**given: Any) -> None:
    """Raise :class:`OptionError` for what is a batch: of a stream every row has the same."""
    for name, value in given.items():
        several = value.ndim > 0 if isinstance(value, torch.Tensor) else isinstance(value, Sequence)
        if several and not isinstance(value, str):
            raise OptionError(f"{name}={value!r}: a batch is not in the order of the dataset; give one for all rows.")
