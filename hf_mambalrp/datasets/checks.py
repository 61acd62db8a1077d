"""What is wrong with a call of ``explain_dataset`` as such, said before a row is read or a file written."""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hf_mambalrp.calls.targets import Outputs, resolve_target
from hf_mambalrp.errors import OptionError
from hf_mambalrp.runs.rows import Columns

NO_OPTIONS = {"inputs", "input_ids", "attention_mask", "inputs_embeds", "layers"}
"""Of ``explain``, what a run over texts into rows of one relevance a token has no use for."""


def check_launch(state: Any) -> None:
    """Warn where more processes were launched than see each other."""
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if wanted != state.num_processes:
        warnings.warn(
            f"WORLD_SIZE is {wanted}, but this process sees {state.num_processes}: every process would explain all "
            "rows. Launch with torchrun, or with accelerate launch --multi_gpu.",
            stacklevel=3,
        )


def check_sizes(**sizes: int | None) -> None:
    """Raise :class:`OptionError` for what is no whole number of at least 1; None is not given."""
    for name, value in sizes.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise OptionError(f"{name}={value!r} is not allowed; give a whole number of at least 1.")


def check_on_error(on_error: Any) -> None:
    """Raise :class:`OptionError` for another value than "raise", "skip" and None."""
    if on_error not in (None, "raise", "skip"):
        raise OptionError(f"on_error={on_error!r} is not allowed; use 'raise' or 'skip'.")


def check_options(options: Mapping[str, Any]) -> None:
    """Raise :class:`OptionError` for options of ``explain`` that a dataset cannot have."""
    refused = sorted({*options} & NO_OPTIONS)
    if refused:
        raise OptionError(f"{refused} cannot be given for a dataset: its texts are the input, its rows hold no layers.")


def check_targets(fixed: Mapping[str, Any], position: Any, columns: Columns, outputs: Outputs) -> None:
    """Raise for targets that no row can have.

    Args:
        fixed: ``target`` and ``contrast`` of all rows.
        position: of all rows.
        columns: may name those that hold one a row.
        outputs: classes or tokens of the model.

    Raises:
        OptionError: a target of all rows and a column of targets, or a batch of them.
        TargetError: a target that the model does not have.
    """
    if any(value is not None and getattr(columns, name) for name, value in fixed.items()):
        raise OptionError("Give target and contrast for all rows, or the columns that hold them, not both.")
    for name, value in (*fixed.items(), ("position", position)):
        several = value.ndim > 0 if isinstance(value, torch.Tensor) else isinstance(value, Sequence)
        if several and not isinstance(value, str):
            raise OptionError(f"{name}={value!r}: a batch is not in the order of the dataset; give one for all rows.")
    for name, value in fixed.items():
        resolve_target(value, name, 1, outputs)
