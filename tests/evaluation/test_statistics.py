"""The bootstrap and the rank correlation, against loops and against what theory says."""

import math

import pytest
import torch

from hf_mambalrp.evaluation.statistics import (
    bootstrap,
    mean_with_interval,
    midranks,
    rank_agreement,
    rank_correlation,
    resampled,
)


def test_midranks_are_counts_of_smaller_and_half_of_equal_values():
    values = torch.tensor([3.0, 1.0, 3.0, -2.0, 3.0, 1.0])
    expected = [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]
    assert midranks(values).tolist() == [float(rank) for rank in expected]


def slow_spearman(a, b):
    ranks = [[sum(w < v for w in x) + (sum(w == v for w in x) + 1) / 2 for v in x] for x in (a, b)]
    means = [sum(r) / len(r) for r in ranks]
    products = sum((x - means[0]) * (y - means[1]) for x, y in zip(*ranks, strict=True))
    squares = [sum((x - mean) ** 2 for x in r) for r, mean in zip(ranks, means, strict=True)]
    return products / math.sqrt(squares[0] * squares[1])


def test_agreement_is_the_mean_spearman_correlation_over_examples():
    generator = torch.Generator().manual_seed(0)
    relevances = [torch.randint(-2, 4, (3, n), generator=generator).float() for n in (5, 8, 12)]
    found = rank_agreement(relevances)
    for i in range(3):
        for j in range(3):
            pairs = [slow_spearman(r[i].tolist(), r[j].tolist()) for r in relevances]
            assert found[i, j].item() == pytest.approx(sum(pairs) / 3)


def test_agreement_of_reversed_and_of_monotonically_changed_relevance():
    values = torch.tensor([0.1, -2.0, 5.0, 0.3])
    found = rank_agreement([torch.stack([values, -values, values**3])])
    assert found[0].tolist() == pytest.approx([1.0, -1.0, 1.0])


def test_examples_on_which_a_method_is_constant_have_no_correlation():
    usual = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 3.0]])
    constant = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    single = torch.tensor([[1.0], [2.0]])
    assert rank_agreement([usual, constant, single])[0, 1].item() == pytest.approx(0.5)
    nowhere = rank_agreement([constant, single])
    assert math.isnan(nowhere[0, 1])
    assert nowhere.diagonal().tolist() == [1.0, 1.0]


def test_the_bootstrap_against_a_loop_over_the_same_draws():
    values = torch.tensor([[1.0, 4.0], [2.0, -1.0], [7.0, 0.5]], dtype=torch.float64)
    means, (low, high) = bootstrap(values, 0.8, 11, seed=3)
    drawn = torch.randint(3, (11, 3), generator=torch.Generator().manual_seed(3)).tolist()
    for column in range(2):
        slow = [sum(values[i, column].item() for i in draw) / 3 for draw in drawn]
        assert means[:, column].tolist() == pytest.approx(slow)
        ordered = sorted(slow)  # the 10 % and 90 % points of 11 values are the second and the last but one
        assert low[column].item() == pytest.approx(ordered[1])
        assert high[column].item() == pytest.approx(ordered[9])


def test_the_interval_of_many_examples_is_the_normal_one():
    values = torch.randn(400, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, (low, high) = bootstrap(values, 0.95, 4000, seed=0)
    half = 1.96 * values.std().item() / 20
    assert low.item() == pytest.approx(values.mean().item() - half, abs=0.01)
    assert high.item() == pytest.approx(values.mean().item() + half, abs=0.01)


def test_one_example_has_a_point_and_columns_are_resampled_together():
    _, ends = bootstrap(torch.tensor([[0.3, -2.0]]).double(), 0.95, 50, seed=0)
    assert ends[0].tolist() == ends[1].tolist() == pytest.approx([0.3, -2.0])
    shared = torch.randn(30, 1, generator=torch.Generator().manual_seed(1)).double()
    means, _ = bootstrap(torch.cat([shared, shared + 1], 1), 0.95, 50, seed=0)
    assert (means[:, 1] - means[:, 0]).tolist() == pytest.approx([1.0] * 50)


def test_draws_depend_on_the_seed_only():
    values = torch.arange(9.0)[:, None]
    first, again, other = (bootstrap(values, 0.95, 40, seed=seed)[0] for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_draws_are_counted_as_a_loop_counts_them():
    drawn = torch.randint(4, (7, 4), generator=torch.Generator().manual_seed(2)).tolist()
    assert resampled(4, 7, seed=2).tolist() == [[float(draw.count(i)) for i in range(4)] for draw in drawn]


def test_the_mean_and_its_interval_are_of_the_examples_that_have_a_value():
    values = [None, 1.0, 2.0, None, 7.0]
    found = mean_with_interval(values, confidence=0.8, resamples=11, seed=3)
    drawn = torch.randint(3, (11, 3), generator=torch.Generator().manual_seed(3)).tolist()
    means = sorted(sum((1.0, 2.0, 7.0)[i] for i in draw) / 3 for draw in drawn)
    assert found == pytest.approx({"mean": 10 / 3, "low": means[1], "high": means[9]})
    assert mean_with_interval([None, None]) == mean_with_interval([]) == {"mean": None, "low": None, "high": None}


def partial(r_xy, r_xz, r_yz):
    """The partial correlation of x and y given z, from the three correlations (Yule 1907)."""
    return (r_xy - r_xz * r_yz) / math.sqrt((1 - r_xz**2) * (1 - r_yz**2))


def test_the_partial_rank_correlation_is_the_closed_formula_s():
    generator = torch.Generator().manual_seed(1)
    for n in (6, 15):
        x, y, z, w = torch.randint(-3, 5, (4, n), generator=generator).float()  # with ties

        def r(a, b):
            return slow_spearman(a.tolist(), b.tolist())

        def given_z(a, b, z=z, r=r):
            return partial(r(a, b), r(a, z), r(b, z))

        assert rank_correlation(x, y) == pytest.approx(r(x, y))
        assert rank_correlation(x, y, [z]) == pytest.approx(given_z(x, y))
        both = partial(given_z(x, y), given_z(x, w), given_z(y, w))
        assert rank_correlation(x, y, [z, w]) == pytest.approx(both)
        assert rank_correlation(x, y, [w, z]) == pytest.approx(both)
        # What is known already, or in the same order, takes nothing more out.
        assert rank_correlation(x, y, [z, z**3]) == pytest.approx(given_z(x, y))


def test_where_nothing_is_left_of_a_ranking_there_is_no_correlation():
    x, y = torch.tensor([1.0, 4.0, 2.0, 3.0]), torch.tensor([2.0, 1.0, 4.0, 3.0])
    assert rank_correlation(x, torch.ones(4)) is None
    assert rank_correlation(x, y, [x**3]) is None
    assert rank_correlation(torch.tensor([1.0]), torch.tensor([2.0])) is None
