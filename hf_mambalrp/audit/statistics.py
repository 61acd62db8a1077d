"""Paired differences whose classes weigh the same."""

import math
from collections.abc import Hashable, Mapping, Sequence
from statistics import fmean, variance
from typing import NamedTuple

from hf_mambalrp.runs.scipy_stats import stats

AUDIT = "An audit", "audit"
"""What needs scipy here, and the extra that brings it."""
MAX_Q = 0.05
"""The rate of false discoveries that is allowed among what an audit confirms."""


class Mean(NamedTuple):
    """A mean with its interval and the p-value of a two-sided t test that it is 0."""

    mean: float
    low: float
    high: float
    p: float
    of: Mapping[Hashable, tuple[int, float]]
    """Number and mean of every class that counts."""


def mean_over_classes(values: Sequence[float], classes: Sequence[Hashable], confidence: float) -> Mean | None:
    """The mean of the K classes' means, with Welch's t test (Welch 1947; degrees of freedom of Satterthwaite 1946).

    ``m = sum_k m_k / K``, ``v_k = s_k² / (n_k K²)``, ``t = m / sqrt(sum_k v_k)``,
    ``df = (sum_k v_k)² / sum_k (v_k² / (n_k - 1))``. Of one class it is Student's t test of one sample. A class with
    one value has no variance, and does not count; None where every class is such.
    """
    groups: dict[Hashable, list[float]] = {}
    for value, name in zip(values, classes, strict=True):
        groups.setdefault(name, []).append(value)
    groups = {name: group for name, group in groups.items() if len(group) > 1}
    if not groups:
        return None
    count = len(groups)
    of = {name: (len(group), fmean(group)) for name, group in groups.items()}
    mean = fmean(m for _, m in of.values())
    parts = [(variance(group) / len(group) / count**2, len(group)) for group in groups.values()]
    total = math.fsum(v for v, _ in parts)
    if total == 0:  # the same in all texts
        return Mean(mean, mean, mean, float(mean == 0), of)
    freedom = total**2 / math.fsum(v**2 / (n - 1) for v, n in parts)
    distribution = stats(*AUDIT).t(freedom)
    half = float(distribution.ppf((1 + confidence) / 2)) * math.sqrt(total)
    p = 2 * float(distribution.sf(abs(mean) / math.sqrt(total)))
    return Mean(mean, mean - half, mean + half, p, of)


def false_discovery_rates(p_values: Sequence[float]) -> list[float]:
    """The q-values of Benjamini and Hochberg (1995) of several tests."""
    return [float(q) for q in stats(*AUDIT).false_discovery_control(p_values)] if p_values else []


def share(count: int, total: int, confidence: float) -> tuple[float, float]:
    """The interval of Wilson (1927) of a share."""
    interval = stats(*AUDIT).binomtest(count, total).proportion_ci(confidence, "wilson")
    return float(interval.low), float(interval.high)
