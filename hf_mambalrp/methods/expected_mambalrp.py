"""Expected MambaLRP: the modified gradient averaged over inputs of which a part is replaced, times the input."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor

from hf_mambalrp.errors import OptionError
from hf_mambalrp.methods.copies import copies_together, reference, scores, stacked
from hf_mambalrp.methods.graphs import propagate
from hf_mambalrp.methods.mambalrp import mambalrp_rules
from hf_mambalrp.methods.problem import Problem, Relevance
from hf_mambalrp.methods.random_relevance import row_generators
from hf_mambalrp.runs.checks import whole_number
from hf_mambalrp.runs.progress import patient_bar


def expected_mambalrp(
    problem: Problem,
    *,
    samples: int = 8,
    keep: float = 0.5,
    baseline: str | int | Tensor = "auto",
    seed: int = 0,
    gamma: float = 0.0,
    gamma_on: str | Iterable[str] = ("conv1d",),
    attention_rule: str = "cp",
    internal_batch_size: int | None = None,
) -> Relevance:
    """MambaLRP in expectation over coalitions of tokens, this project's own.

    Its relatives are expected gradients (Erion et al. 2021), and Shapley values by sampling (Castro et al. 2009).

    R_i = c_i sum_d x_id (1/n) sum_k g_id(S_k), where g(S) is MambaLRP's modified gradient at the input in which the
    tokens outside of the coalition S are replaced. A coalition is a share ``keep`` of the row's attended tokens, drawn
    at random; every second one is drawn antithetically: from the other end of the order that the one before it was
    drawn from, so that with 0.5 it is the other half. So a token is explained in many contexts, and not by the
    network's one linear piece at the input.

    An average over other inputs does not sum to the score. What is missing is shared in proportion to |R|, which is
    c_i = 1 + sign(R_i) (score - biases - sum(R)) / sum(|R|), with the mean of what the biases absorbed, so that score =
    sum(R) + biases as under MambaLRP. As long as less is missing than sum(|R|), no relevance changes its sign and no
    token its rank. With ``keep=1`` nothing is replaced, and it is MambaLRP.

    Args:
        problem: what is explained.
        samples: n coalitions, each as much work as one MambaLRP.
        keep: share of the tokens in a coalition, rounded to whole tokens.
        baseline: what the others are replaced by: "auto", the embedding of the configuration's end-of-sequence token,
            or the row's mean embedding where it names none; "mean"; "zero"; a token id; or a tensor that broadcasts to
            (B, L, D).
        seed: of the coalitions; each row's depend on nothing but the row, see
            :func:`hf_mambalrp.methods.random_relevance.row_generators`.
        gamma, gamma_on, attention_rule: of the rules, as :func:`hf_mambalrp.methods.mambalrp.mambalrp`.
        internal_batch_size: rows that run together, at least the batch; None is what memory allows.

    Raises:
        OptionError: an option's value is not allowed.
    """
    samples = whole_number("samples", samples, 1)
    if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 <= keep <= 1:
        raise OptionError(f"keep={keep!r} is not allowed. Give a share of the tokens, from 0 to 1.")
    rules = mambalrp_rules(gamma=gamma, gamma_on=gamma_on, attention_rule=attention_rule)
    x, replacement = problem.embeddings, _replacement(problem, baseline)
    kept = _coalitions(row_generators(problem, seed), problem.mask, samples, keep)
    together = copies_together(problem, internal_batch_size)
    sums: list[list[Tensor]] = [[], [], []]
    for first in patient_bar(range(0, samples, together), "explain: expected_mambalrp", "batch"):
        some = kept[first : first + together]
        many = stacked(problem, torch.where(some[..., None].to(x.device), x, replacement))
        found = propagate(replace(many, factor=x.repeat(len(some), 1, 1)), rules)
        for total, part in zip(sums, (found.tokens, found.biases, found.softmax), strict=True):
            if part is not None:
                total.append(part.unflatten(0, (len(some), -1)).sum(0) / samples)
    tokens, biases, softmax = (sum(parts[1:], parts[0]) if parts else None for parts in sums)
    assert tokens is not None
    assert biases is not None
    logits, (score,) = scores(problem, x[None])
    tokens, size = tokens.double(), tokens.double().abs()  # the terms may cancel
    missing = score.double() - biases - (0 if softmax is None else softmax) - tokens.sum(-1)
    settled = tokens + size * (missing / size.sum(-1).clamp(min=torch.finfo(size.dtype).tiny))[:, None]
    return Relevance(settled.float(), score.float(), biases, None, logits[0], softmax)


def _replacement(problem: Problem, baseline: Any) -> Tensor:
    """What stands in a replaced token's place. (B, L, D)."""
    if isinstance(baseline, str) and baseline == "auto":
        end = getattr(problem.network.config, "eos_token_id", None)
        baseline = end if isinstance(end, int) else "mean"
    if isinstance(baseline, str) and baseline == "mean":
        weight = problem.mask.to(problem.embeddings)[..., None]
        mean = (problem.embeddings * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        return mean.expand_as(problem.embeddings)
    return reference(problem, baseline)


def _coalitions(generators: list[Generator], mask: Tensor, samples: int, keep: float) -> Tensor:
    """Which tokens are in each coalition; padding always is. Shape: (samples, B, L) bool."""
    attended = mask.cpu() != 0
    kept = torch.ones(samples, *attended.shape, dtype=torch.bool)
    for row, generator in enumerate(generators):
        places = attended[row].nonzero().flatten()
        number = round(keep * len(places))
        for sample in range(samples):
            if sample % 2 == 0:
                order = torch.randperm(len(places), generator=generator)
            gone = order[number:] if sample % 2 == 0 else order[: len(places) - number]
            kept[sample, row, places[gone]] = False
    return kept
