"""Families that only newer releases of transformers have, or have right; with older ones all else works."""

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
    folder: str = ""
    """Where its modules are, if not under its model type."""
    rewritten: bool = False
    """Whether older releases have it too, with a forward that is wrong."""


SINCE = {
    "nemotron_h": Since("5.3", "NemotronH"),
    "qwen3_5_moe_text": Since("5.2", "Qwen3_5Moe", "qwen3_5_moe"),
    "qwen3_5_text": Since("5.2", "Qwen3_5", "qwen3_5"),
    "olmo_hybrid": Since("5.3", "OlmoHybrid"),
    "kimi_linear": Since("5.17", "KimiLinear"),
    "bailing_hybrid": Since("5.20", "BailingHybrid"),
    "lfm2_moe": Since("5.0", "Lfm2Moe"),
    # Before, its recurrence keeps the state of the last call, and fails at a batch of another size.
    "recurrent_gemma": Since("5.0", "RecurrentGemma", rewritten=True),
}
"""By ``config.model_type``; where the name of a class begins with several prefixes, the first is its family's."""


def has_family(model_type: str) -> bool:
    """Whether the installed transformers has this family. Looks at its files, and so loads nothing."""
    if model_type not in SINCE:
        return True
    since = SINCE[model_type]
    if since.rewritten and _numbers(version("transformers")) < _numbers(since.release):
        return False
    spec = find_spec("transformers")
    folders = None if spec is None else spec.submodule_search_locations
    return any(Path(folder, "models", since.folder or model_type).is_dir() for folder in folders or ())


def _numbers(release: str) -> list[int]:
    """Major and minor."""
    return [int(number) for number in release.split(".")[:2]]


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
