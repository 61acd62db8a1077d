"""Uncertainty over examples by the bootstrap, and agreement of rankings."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def bootstrap(values: Tensor, confidence: float, resamples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Means of resampled examples, and their percentile interval (Efron and Tibshirani 1993, chapter 13).

    All columns are resampled together, so a difference of columns of the result is a paired difference.

    Args:
        values: (n, m), a row an example.
        confidence: mass of the interval, such as 0.95.
        resamples: how often n examples are drawn with replacement.
        seed: of the draws.

    Returns:
        Means (resamples, m) and the interval's ends (2, m), float64.
    """
    means = resampled(len(values), resamples, seed) @ values.double() / len(values)
    return means, interval(means, confidence)


def resampled(n: int, resamples: int, seed: int) -> Tensor:
    """How often each of ``n`` examples is drawn, n times with replacement. Shape: (resamples, n), float64."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n, (resamples, n), generator=generator)
    once = torch.ones(resamples, n, dtype=torch.float64)
    return torch.zeros_like(once).scatter_add_(1, drawn, once)


def interval(means: Tensor, confidence: float) -> Tensor:
    """The central ``confidence`` of resampled means. Shape: (resamples, m) -> (2, m)."""
    tail = (1 - confidence) / 2
    ends: Tensor = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=means.dtype), dim=0)
    return ends


def mean_with_interval(
    values: Sequence[float | None], confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> dict[str, float | None]:
    """Mean of the examples that have a value, with its bootstrap interval; None where no example has one."""
    known = [value for value in values if value is not None]
    if not known:
        return {"mean": None, "low": None, "high": None}
    column = torch.tensor(known, dtype=torch.float64)[:, None]
    (stat,) = with_ends(column.mean(0), bootstrap(column, confidence, resamples, seed)[1])
    return stat


def midranks(values: Tensor) -> Tensor:
    """Ranks from 1, equal values sharing the mean of theirs. Shape: (n,) -> (n,)."""
    _, which, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ranks: Tensor = counts.cumsum(0) - (counts - 1) / 2
    return ranks.double()[which]


def rank_agreement(relevances: Sequence[Tensor]) -> Tensor:
    """Spearman correlation of every pair of methods, its mean over examples; NaN where it is nowhere defined.

    Args:
        relevances: for every example (m, n), a row a method, a column a token. A pair of which one is constant on an
            example has no correlation there.
    """
    each = []
    for relevance in relevances:
        ranks = torch.stack([midranks(row) for row in relevance])
        centred = ranks - ranks.mean(1, keepdim=True)
        unit = centred / centred.norm(dim=1, keepdim=True)
        each.append(unit @ unit.T)
    agreement: Tensor = torch.stack(each).nanmean(0)
    return agreement.fill_diagonal_(1.0)


def rank_correlation(one: Tensor, other: Tensor, given: Sequence[Tensor] = ()) -> float | None:
    """Spearman correlation of two rankings (n,), or the partial one: of what is left of the ranks of both once a linear
    function of the ranks of ``given`` is taken out (Kendall 1942). None where nothing is left of one of them.
    """
    ranks = torch.stack([midranks(each) for each in (one, other, *given)])
    pair, known = (ranks - ranks.mean(1, keepdim=True)).split([2, len(given)])
    if given:
        pair = pair - torch.linalg.lstsq(known.T, pair.T, driver="gelsd").solution.T @ known
    norms = pair.norm(dim=1)
    if bool((norms <= 1e-9 * len(one)).any()):
        return None
    return float(pair[0] @ pair[1] / norms.prod())


def with_ends(means: Tensor, ends: Tensor) -> list[dict[str, Any]]:
    """Every mean (K,) with the ends (2, K) of its interval, as plain numbers."""
    low, high = ends.tolist()
    return [{"mean": m, "low": a, "high": b} for m, a, b in zip(means.tolist(), low, high, strict=True)]


def mean_of(rows: list[list[float]]) -> list[float]:
    """The mean of rows of numbers, column by column, in double precision."""
    mean: list[float] = torch.tensor(rows, dtype=torch.float64).mean(0).tolist()
    return mean
