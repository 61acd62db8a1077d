"""Softmax attention over the positions before, with each of its factors constant or not, as the rules say."""

from hf_mambalrp.ops.attention.dispatch import Scores, attention

__all__ = ["Scores", "attention"]
