"""Sharing on the Hub: models with a card that explains them, datasets of explanations."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_mambalrp.hub.datasets import push_explanations

__all__ = ["push_explanations"]


def __getattr__(name: str) -> Any:
    # Loaded when used: whether a model can be reached is asked before torch is loaded.
    if name == "push_explanations":
        return getattr(import_module(f"{__name__}.datasets"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
