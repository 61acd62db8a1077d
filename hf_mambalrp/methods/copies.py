"""Changed copies of a batch, several run together as one larger batch: what input-level methods are made of."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.errors import OptionError
from hf_mambalrp.families.padding import rolled
from hf_mambalrp.methods.engine import budget, predict
from hf_mambalrp.methods.problem import Problem
from hf_mambalrp.rules import NO_RULES
from hf_mambalrp.runs.checks import whole_number


def stacked(problem: Problem, copies: Tensor) -> Problem:
    """The problem at S copies (S, B, L, D) of its embeddings, as one batch of S B rows."""
    number, batch_size = copies.shape[:2]

    def score(logits: Tensor) -> Tensor:
        return torch.cat([problem.score(copy) for copy in logits.unflatten(0, (number, batch_size))])

    return replace(
        problem,
        embeddings=copies.flatten(0, 1),
        mask=problem.mask.repeat(number, 1),
        positions=problem.positions.repeat(number, 1),
        score=score,
    )


def scores(problem: Problem, copies: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (S, B, K, V) and scores (S, B) at S copies (S, B, L, D), without gradients."""
    many = stacked(problem, copies)
    logits = predict(many)
    shape = copies.shape[:2]
    return logits.unflatten(0, shape), many.score(logits).detach().cpu().unflatten(0, shape)


def copies_together(problem: Problem, internal_batch_size: Any) -> int:
    """How many copies of the batch run together: ``internal_batch_size`` rows, or None for what memory allows."""
    batch_size, length = problem.mask.shape
    if internal_batch_size is None:
        return max(1, budget(problem) // (problem.kept(NO_RULES) * length))
    return max(1, whole_number("internal_batch_size", internal_batch_size, 1) // batch_size)


def reference(problem: Problem, baseline: Any) -> Tensor:
    """Embeddings (B, L, D) without content: "zero", those of a token id, or the caller's own."""
    like = problem.embeddings
    if isinstance(baseline, str) and baseline == "zero":
        return torch.zeros_like(like)
    if isinstance(baseline, Tensor) and baseline.is_floating_point():
        try:
            own = baseline.detach().to(like).expand_as(like)
            return own if problem.shifts is None else rolled(own, problem.shifts)
        except RuntimeError:
            pass
    vocabulary = problem.network.vocabulary_size
    if isinstance(baseline, int) and not isinstance(baseline, bool) and 0 <= baseline < vocabulary:
        return problem.network.embed(torch.tensor([[baseline]])).expand_as(like)
    given = f"a {baseline.dtype} tensor of shape {tuple(baseline.shape)}" if isinstance(baseline, Tensor) else baseline
    raise OptionError(
        f"baseline={given!r} is not allowed. Give 'zero', a token id from 0 to {vocabulary - 1}, or a tensor of "
        f"embeddings that broadcasts to {tuple(like.shape)}, such as ({like.shape[-1]},)."
    )
