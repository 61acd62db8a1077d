"""Integrated gradients: gradients along the straight way from an input without content to the input."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hf_mambalrp.methods.copies import copies_together, reference, scores, stacked
from hf_mambalrp.methods.graphs import propagate
from hf_mambalrp.methods.problem import Problem, Relevance
from hf_mambalrp.rules import NO_RULES
from hf_mambalrp.runs.checks import whole_number
from hf_mambalrp.runs.progress import patient_bar


def integrated_gradients(
    problem: Problem,
    *,
    steps: int = 50,
    baseline: str | int | Tensor = "zero",
    internal_batch_size: int | None = None,
) -> Relevance:
    """Integrated gradients (Sundararajan et al. 2017, equation 1), the integral by Gauss-Legendre quadrature.

    R_i = sum_d (x_id - x'_id) sum_k w_k d(score)/d(x_id) at x' + a_k (x - x'), nodes a_k and weights w_k on [0, 1].
    The sum of R over tokens is the score at x less the score at x', up to ``convergence_delta``. Watch it at "zero":
    there RMSNorm bends the way within sqrt(eps) of the baseline, and hundreds of steps can be too few, while towards a
    token's embedding 50 are enough.

    Args:
        problem: what is explained.
        steps: nodes of the quadrature.
        baseline: x': "zero", the id of a token whose embedding stands everywhere, or a tensor that broadcasts to
            (B, L, D).
        internal_batch_size: rows that run together, at least the batch; None is what memory allows.

    Raises:
        OptionError: an option's value is not allowed.
    """
    start = reference(problem, baseline)
    way = problem.embeddings - start
    nodes, weights = _gauss_legendre(whole_number("steps", steps, 1))
    together = copies_together(problem, internal_batch_size)
    tokens = torch.zeros(problem.mask.shape, dtype=torch.float32)
    for first in patient_bar(range(0, len(nodes), together), "explain: integrated_gradients", "batch"):
        a, w = nodes[first : first + together], weights[first : first + together]
        points = start + a.to(way)[:, None, None, None] * way
        found = propagate(replace(stacked(problem, points), factor=way.repeat(len(a), 1, 1)), NO_RULES)
        tokens += (w[:, None, None] * found.tokens.unflatten(0, (len(a), -1))).sum(0)
    logits, (score, at_baseline) = scores(problem, torch.stack([problem.embeddings, start]))
    return Relevance(
        tokens=tokens,
        score=score.float(),
        biases=torch.zeros(len(tokens), dtype=torch.float32),
        layers=None,
        logits=logits[0],
        convergence_delta=tokens.sum(-1) - (score - at_baseline).float(),
    )


def _gauss_legendre(steps: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return torch.from_numpy(0.5 * (1 + nodes)), torch.from_numpy(0.5 * weights).float()
