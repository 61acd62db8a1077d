"""Families that only newer releases of transformers have; of older ones the rest of the package works without them."""

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from hf_mambalrp.errors import MissingReleaseError


class Since(NamedTuple):
    """The first release with a family."""

    release: str
    prefix: str
    """How its classes' names begin."""


SINCE = {"nemotron_h": Since("5.3", "NemotronH")}
"""By ``config.model_type``."""


def has_family(model_type: str) -> bool:
    """Whether the installed transformers has this family. Looks at its files, and so loads nothing."""
    if model_type not in SINCE:
        return True
    spec = find_spec("transformers")
    folders = None if spec is None else spec.submodule_search_locations
    return any(Path(folder, "models", model_type).is_dir() for folder in folders or ())


def family_of(name: str) -> str:
    """The family of :data:`SINCE` that a class of this name is of; "" of every other."""
    return next((family for family, since in SINCE.items() if name.startswith(since.prefix)), "")


def check_release(model_type: str, what: str) -> None:
    """Raise for a family that the installed transformers lacks; ``what`` begins the message.

    Raises:
        MissingReleaseError: says which release has it.
    """
    if not has_family(model_type):
        needed = SINCE[model_type].release
        raise MissingReleaseError(
            f"{what} needs transformers {needed} or later, and this is {version('transformers')}. Install it: "
            f"pip install 'transformers>={needed}'."
        )
