"""The t test against scipy's own of one and of two samples; q-values against the definition."""

import pytest
import torch
from scipy import stats

from hf_mambalrp.audit.statistics import false_discovery_rates, mean_over_classes


def values(n, mean, spread, seed):
    return (mean + spread * torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).tolist()


def test_one_class_is_students_test():
    sample = values(17, 0.4, 1.0, 0)
    found = mean_over_classes(sample, ["a"] * 17, 0.9)
    expected = stats.ttest_1samp(sample, 0.0)
    interval = expected.confidence_interval(0.9)
    assert found.mean == pytest.approx(sum(sample) / 17)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_two_classes_are_welchs_test_of_one_sample_and_the_others_negative():
    """(m_a + m_b) / 2 is half of the difference between a and -b."""
    a, b = values(9, 1.0, 2.0, 1), values(30, -0.2, 0.5, 2)
    found = mean_over_classes([*a, *b], ["a"] * 9 + ["b"] * 30, 0.95)
    expected = stats.ttest_ind(a, [-x for x in b], equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low / 2, interval.high / 2))
    assert found.of == {"a": (9, pytest.approx(sum(a) / 9)), "b": (30, pytest.approx(sum(b) / 30))}


def test_three_classes_by_the_formula():
    groups = {"a": [1.0, 2.0, 4.0], "b": [0.0, 1.0], "c": [3.0, 3.5, 2.0, 5.0]}
    found = mean_over_classes([x for g in groups.values() for x in g], [k for k, g in groups.items() for _ in g], 0.95)
    m = [sum(g) / len(g) for g in groups.values()]
    v = [sum((x - c) ** 2 for x in g) / (len(g) - 1) / len(g) / 9 for g, c in zip(groups.values(), m, strict=True)]
    freedom = sum(v) ** 2 / sum(w**2 / (len(g) - 1) for w, g in zip(v, groups.values(), strict=True))
    t = sum(m) / 3 / sum(v) ** 0.5
    assert found.p == pytest.approx(2 * (1 - stats.t.cdf(t, freedom)))
    half = found.high - found.mean
    assert stats.t.cdf(half / sum(v) ** 0.5, freedom) == pytest.approx(0.975)


def test_a_class_of_one_does_not_count_and_no_variance_is_certain():
    assert mean_over_classes([1.0, 2.0], ["a", "b"], 0.95) is None
    found = mean_over_classes([1.0, 1.0, 9.0], ["a", "a", "b"], 0.95)
    assert found[:4] == (1.0, 1.0, 1.0, 0.0)
    assert mean_over_classes([0.0, 0.0], ["a", "a"], 0.95).p == 1.0


def test_q_values_by_the_definition():
    p = [0.01, 0.04, 0.03, 0.5]
    expected = [0.04, 0.04 * 4 / 3, 0.04 * 4 / 3, 0.5]  # min over larger p of p n / rank
    assert false_discovery_rates(p) == pytest.approx(expected)
    assert false_discovery_rates([]) == []
