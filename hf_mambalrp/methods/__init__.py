"""The explanation methods, by name."""

from hf_mambalrp.methods.engine import Forward, by_chunks, predict
from hf_mambalrp.methods.graphs import propagate
from hf_mambalrp.methods.problem import Problem, Relevance
from hf_mambalrp.methods.registry import METHODS, Method, method_named

__all__ = [
    "METHODS",
    "Forward",
    "Method",
    "Problem",
    "Relevance",
    "by_chunks",
    "method_named",
    "predict",
    "propagate",
]
