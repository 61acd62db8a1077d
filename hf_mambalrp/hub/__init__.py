"""Sharing on the Hub: models with a card that explains them, datasets of explanations, Spaces."""

from hf_mambalrp.hub.datasets import push_explanations
from hf_mambalrp.hub.space import create_space

__all__ = ["create_space", "push_explanations"]
