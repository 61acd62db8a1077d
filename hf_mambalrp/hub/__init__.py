"""Sharing on the Hub: models with a card that explains them, datasets of explanations, Spaces."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_mambalrp.hub.datasets import push_explanations
    from hf_mambalrp.hub.space import create_space

__all__ = ["create_space", "push_explanations"]


def __getattr__(name: str) -> Any:
    # Loaded when used: whether a model can be reached is asked before torch is loaded.
    modules = {"create_space": "space", "push_explanations": "datasets"}
    if name in modules:
        return getattr(import_module(f"{__name__}.{modules[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
