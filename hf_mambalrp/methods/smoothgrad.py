"""SmoothGrad: the gradient averaged over noisy copies of the input, times the input."""

import math
from dataclasses import replace

import torch

from hf_mambalrp.errors import OptionError
from hf_mambalrp.methods.copies import copies_together, scores, stacked
from hf_mambalrp.methods.graphs import propagate
from hf_mambalrp.methods.problem import Problem, Relevance
from hf_mambalrp.methods.random_relevance import row_generators, standard_normal
from hf_mambalrp.rules import NO_RULES
from hf_mambalrp.runs.checks import whole_number
from hf_mambalrp.runs.progress import patient_bar


def smoothgrad(
    problem: Problem,
    *,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
    internal_batch_size: int | None = None,
) -> Relevance:
    """SmoothGrad (Smilkov et al. 2017, section 2) in its gradient x input form.

    R_i = sum_d x_id (1/n) sum_k d(score)/d(x_id) at x + e_k, with e_k ~ N(0, s^2) and s = noise (max x - min x) over
    the row's attended tokens. The input that is multiplied is the one without noise; captum's ``NoiseTunnel`` around
    ``InputXGradient`` multiplies the noisy one, around ``Saliency(abs=False)`` it averages the same gradients.

    Args:
        problem: what is explained.
        samples: n.
        noise: standard deviation as a share of the row's range.
        seed: of the noise; each row's depends on nothing but the row, see
            :func:`hf_mambalrp.methods.random_relevance.row_generators`.
        internal_batch_size: rows that run together, at least the batch; None is what memory allows.

    Raises:
        OptionError: an option's value is not allowed.
    """
    samples = whole_number("samples", samples, 1)
    if isinstance(noise, bool) or not isinstance(noise, (int, float)) or not 0 <= noise < math.inf:
        raise OptionError(f"noise={noise!r} is not allowed. Give a share of the input's range, from 0 up.")
    generators, x = row_generators(problem, seed), problem.embeddings
    absent = (problem.mask == 0).to(x.device)[:, :, None]
    highest, lowest = x.masked_fill(absent, -math.inf).amax((1, 2)), x.masked_fill(absent, math.inf).amin((1, 2))
    deviation = (noise * (highest - lowest))[:, None, None]
    together = copies_together(problem, internal_batch_size)
    tokens = torch.zeros(problem.mask.shape, dtype=torch.float32)
    for first in patient_bar(range(0, samples, together), "explain: smoothgrad", "batch"):
        number = min(together, samples - first)
        drawn = torch.stack([standard_normal(generators, problem.mask, x.shape[-1]) for _ in range(number)])
        many = stacked(problem, x + deviation * drawn.to(x))
        found = propagate(replace(many, factor=x.repeat(number, 1, 1)), NO_RULES)
        tokens += found.tokens.unflatten(0, (number, -1)).sum(0) / samples
    logits, score = scores(problem, x[None])
    return Relevance(tokens, score[0].float(), torch.zeros(len(tokens), dtype=torch.float32), None, logits[0])
