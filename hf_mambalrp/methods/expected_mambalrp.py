"""Expected MambaLRP: a token's relevance averaged over inputs in which a part of the other tokens is replaced."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

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
    samples: int = 6,
    keep: float = 0.75,
    baseline: str | int | Tensor = "auto",
    seed: int = 0,
    gamma: float = 0.0,
    gamma_on: str | Iterable[str] = ("conv1d",),
    attention_rule: str = "cp",
    internal_batch_size: int | None = None,
) -> Relevance:
    """MambaLRP in expectation over coalitions of tokens, this project's own.

    R_i = mean of r_i(S) over the coalitions S_1 .. S_n that token i is in, where r(S) is MambaLRP's relevance at
    the input in which the tokens outside of S are replaced. So a token is explained in many contexts, and not by the
    network's one linear piece at the input; relatives are expected gradients (Erion et al. 2021) and Shapley values by
    sampling (Castro et al. 2009). A coalition is a share ``keep`` of the row's attended tokens, drawn at random; every
    second one is drawn from the other end of the order that the one before it was drawn from. So with a half or more
    every token is in one of the two. The explained positions are in all.

    An average over other inputs does not sum to the score: what the replaced tokens hold is missing, and the result's
    ``conservation.gap`` says how much that is. It is often more than sum(|R|), so to share it out would turn signs.
    With ``keep=1`` nothing is replaced, and it is MambaLRP, which conserves.

    Args:
        problem: what is explained.
        samples: n coalitions, each as much work as one MambaLRP. A token that is in none has 0.
        keep: share of the tokens in a coalition, rounded up to whole tokens.
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
    if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 < keep <= 1:
        raise OptionError(f"keep={keep!r} is not allowed. Give a share of the tokens, above 0 and up to 1.")
    rules = mambalrp_rules(gamma=gamma, gamma_on=gamma_on, attention_rule=attention_rule)
    x, replacement = problem.embeddings, _replacement(problem, baseline)
    kept = _coalitions(problem, samples, keep, seed)
    together = copies_together(problem, internal_batch_size)
    found: list[Relevance] = []
    for first in patient_bar(range(0, samples, together), "explain: expected_mambalrp", "batch"):
        copies = torch.where(kept[first : first + together, ..., None].to(x.device), x, replacement)
        found.append(propagate(stacked(problem, copies), rules))

    def each(of_rows: list[Tensor]) -> Tensor:
        """Of every coalition and row, in double precision: terms may cancel."""
        rows: Tensor = torch.cat(of_rows).unflatten(0, (samples, -1)).double()
        return rows

    tokens = (each([one.tokens for one in found]) * kept).sum(0) / kept.sum(0).clamp(min=1)
    biases = each([one.biases for one in found]).mean(0)
    of_softmax = [one.softmax for one in found if one.softmax is not None]
    softmax = each(of_softmax).mean(0) if of_softmax else torch.zeros_like(biases)
    logits, (score,) = scores(problem, x[None])
    return Relevance(
        tokens=tokens.float(),
        score=score.float(),
        biases=biases.float(),
        layers=None,
        logits=logits[0],
        softmax=softmax.float() if of_softmax else None,
    )


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


def _coalitions(problem: Problem, samples: int, keep: float, seed: int) -> Tensor:
    """Which attended tokens are in each coalition. Shape: (samples, B, L) bool, on the CPU."""
    attended, explained = problem.mask.cpu() != 0, problem.positions.cpu()
    kept = torch.zeros(samples, *attended.shape, dtype=torch.bool)
    for row, generator in enumerate(row_generators(problem, seed)):
        places = attended[row].nonzero().flatten()
        number = math.ceil(keep * len(places))
        for sample in range(0, samples, 2):
            order = places[torch.randperm(len(places), generator=generator)]
            for one, chosen in zip(kept[sample : sample + 2], (order[:number], order[-number:]), strict=False):
                one[row, chosen] = True
        kept[:, row, explained[row]] = True
    return kept
