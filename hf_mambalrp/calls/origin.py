"""What made a result: the model, by a name that can be shared, and the versions of the libraries."""

import re
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PureWindowsPath

from hf_mambalrp.families import Network

REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""A name on the Hub; anything else that a model was loaded from is a path."""


def model_id(network: Network) -> str:
    """Repository the model was loaded from, or its folder's name (a path says too much to share), or its class."""
    return _short(str(getattr(network.config, "_name_or_path", "") or type(network.model).__name__))


@lru_cache(maxsize=64)
def _short(source: str) -> str:
    if Path(source).is_dir():
        return Path(source).resolve().name
    return source if REPOSITORY.fullmatch(source) else PureWindowsPath(source).name


def versions() -> dict[str, str]:
    """Versions that an explanation depends on."""
    return dict(_versions())


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    found = {}
    for package in ("hf_mambalrp", "torch", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a source tree that was not installed
            found[package] = "not installed"
    return found
