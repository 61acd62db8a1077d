"""Sharing on the Hub: models with a card that explains them, datasets of explanations, Spaces."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_mambalrp.hub.space import create_space

__all__ = ["create_space"]


def __getattr__(name: str) -> Any:
    # Loaded when used: whether a model can be reached is asked before torch is loaded.
    if name == "create_space":
        return import_module(f"{__name__}.space").create_space
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
