"""Perturbed inputs and the areas they give, by hand, by a formula for additive outputs, and by a slow loop."""

import itertools
import random

import pytest

from hf_mambalrp.evaluation.perturbation import (
    BINS,
    GRID,
    ZERO,
    Perturbation,
    area,
    counts_of,
    on_grid,
    order_of,
)


def additive(worth):
    """An output that is the sum of what the tokens that are there are worth; a replaced token is worth nothing."""

    class Output(dict):
        def __missing__(self, row):
            return sum(worth.get(token, 0.0) for token in row)

    return Output()


def measured(worth, order, *, insertion="remove", step=1, output=None):
    ids = tuple(sorted(worth))
    output = output or additive(worth)
    each = Perturbation(ids, tuple(order), counts_of(len(order), step), ZERO, insertion)
    return each.measures(output, output)


def test_the_inputs_of_three_tokens_by_hand():
    each = Perturbation((5, 6, 7), (2, 0, 1), (0, 1, 3), 9, "remove")
    assert each.rows() == {
        "flip_morf": [(5, 6, 7), (5, 6, 9), (9, 9, 9)],
        "flip_lerf": [(5, 6, 7), (5, 9, 7), (9, 9, 9)],
        "insert_morf": [(9,), (7,), (5, 6, 7)],
        "insert_lerf": [(9,), (6,), (5, 6, 7)],
        "comprehensiveness": [(5, 6, 9)] * 4 + [(9, 6, 9)],  # one token up to 20 %, and 1.5 rounded up
        "sufficiency": [(9, 9, 7)] * 4 + [(5, 9, 7)],
    }


def test_positions_outside_the_order_are_never_touched():
    each = Perturbation((1, 5, 6, 2), (2, 1), (0, 1, 2), 9, "remove")
    rows = each.rows()
    assert rows["flip_morf"] == [(1, 5, 6, 2), (1, 5, 9, 2), (1, 9, 9, 2)]
    assert rows["insert_morf"] == [(1, 2), (1, 6, 2), (1, 5, 6, 2)]


def test_orders_are_signed_and_ties_go_by_position():
    assert order_of([1.0, -3.0, 2.0, 1.0, 0.0, -0.0], range(6)) == (2, 0, 3, 4, 5, 1)
    assert order_of([1.0, 2.0, 3.0], [2, 0]) == (2, 0)


@pytest.mark.parametrize(
    ("n", "step", "expected"),
    [
        (1, "auto", (0, 1)),
        (4, "auto", (0, 1, 2, 3, 4)),
        (20, "auto", tuple(range(21))),
        (25, "auto", (*range(0, 25, 2), 25)),
        (5, 2, (0, 2, 4, 5)),
        (5, 9, (0, 5)),
        (10, 0.25, (0, 2, 4, 6, 8, 10)),
        (10, 0.01, tuple(range(11))),
        (10, 1.0, (0, 10)),
    ],
)
def test_counts_begin_at_none_and_end_at_all(n, step, expected):
    assert counts_of(n, step) == expected


@pytest.mark.parametrize("n", [21, 40, 41, 99, 1000])
def test_there_are_at_most_twenty_steps(n):
    assert len(counts_of(n, "auto")) <= 21


def test_area_is_the_trapezoid_over_fractions():
    assert area((0, 1, 4), [4.0, 2.0, 0.0]) == pytest.approx((3.0 * 1 + 1.0 * 3) / 4)
    assert area((0, 7), [2.0, 2.0]) == pytest.approx(2.0)


def test_curves_are_read_off_straight_between_their_points():
    found = on_grid((0, 4, 5), [1.0, 5.0, 0.0])
    for fraction, value in zip(GRID, found, strict=True):
        k = 5 * fraction
        assert value == pytest.approx(1 + k if k <= 4 else 5 * (5 - k))
    assert (len(found), found[0], found[-1]) == (21, 1.0, 0.0)


@pytest.mark.parametrize("insertion", ["remove", "replace"])
@pytest.mark.parametrize("seed", range(3))
def test_an_additive_output_has_the_closed_form(insertion, seed):
    """delta = sum_i v_(i) (n - 2 i + 1) / n for the values v_(1), v_(2), ... in the order, i from 1."""
    draw = random.Random(seed)
    n = draw.randint(1, 9)
    worth = {token: draw.gauss(0, 1) for token in range(n)}
    order = draw.sample(range(n), n)
    expected = sum(worth[token] * (n - 2 * i + 1) / n for i, token in enumerate(order, 1))
    found = measured(worth, order, insertion=insertion)
    assert found["delta_flip"] == pytest.approx(expected)
    assert found["delta_insert"] == pytest.approx(expected)
    tops = [-(-n * percent // 100) for percent in BINS]
    assert found["comprehensiveness"] == pytest.approx(sum(sum(worth[t] for t in order[:k]) for k in tops) / 5)
    assert found["sufficiency"] == pytest.approx(sum(sum(worth[t] for t in order[k:]) for k in tops) / 5)


def test_no_order_beats_that_of_the_values_and_none_is_below_its_reverse():
    worth = {0: 2.0, 1: -1.0, 2: 0.5, 3: 1.0}
    best = order_of([worth[token] for token in range(4)], range(4))
    deltas = {order: measured(worth, order)["delta_flip"] for order in itertools.permutations(range(4))}
    assert max(deltas, key=deltas.get) == best
    assert min(deltas, key=deltas.get) == best[::-1]
    assert sum(deltas.values()) == pytest.approx(0)


def interacting(row):
    """Neither additive nor blind to places and to how many tokens there are."""
    return sum((place + 1) * (token % 5) ** 2 for place, token in enumerate(row)) / len(row) ** 1.5


def slow_delta(ids, order, kind, replacement, insertion):
    """The definition, a token at a time."""
    areas = {}
    for name, ordered in (("morf", list(order)), ("lerf", list(order)[::-1])):
        values = []
        for k in range(len(order) + 1):
            row = []
            for place, token in enumerate(ids):
                chosen = place in ordered[:k]
                if kind == "flip":
                    row.append(replacement if chosen else token)
                elif chosen:
                    row.append(token)
                elif insertion == "replace":
                    row.append(replacement)
            values.append(interacting(tuple(row) or (replacement,)))
        areas[name] = sum((a + b) / 2 / len(order) for a, b in itertools.pairwise(values))
    return areas["lerf"] - areas["morf"] if kind == "flip" else areas["morf"] - areas["lerf"]


class Interacting(dict):
    def __missing__(self, row):
        return interacting(row)


@pytest.mark.parametrize("insertion", ["remove", "replace"])
def test_any_output_against_a_slow_loop(insertion):
    draw = random.Random(0)
    for _ in range(5):
        ids = tuple(draw.choices(range(1, 20), k=6))
        order = draw.sample(range(6), 6)
        each = Perturbation(ids, tuple(order), counts_of(6, 1), 3, insertion)
        found = each.measures(Interacting(), Interacting())
        assert found["delta_flip"] == pytest.approx(slow_delta(ids, order, "flip", 3, insertion))
        assert found["delta_insert"] == pytest.approx(slow_delta(ids, order, "insert", 3, insertion))
        backwards = Perturbation(ids, tuple(order[::-1]), each.counts, 3, insertion)
        opposite = backwards.measures(Interacting(), Interacting())
        assert opposite["delta_flip"] == pytest.approx(-found["delta_flip"])
        assert opposite["delta_insert"] == pytest.approx(-found["delta_insert"])


def test_insertion_by_replacement_is_flipping_read_backwards_and_by_removal_is_not():
    ids, order = (4, 8, 2, 6, 3), (3, 1, 0, 4, 2)
    found = {
        insertion: Perturbation(ids, order, counts_of(5, 1), ZERO, insertion).measures(Interacting(), Interacting())
        for insertion in ("replace", "remove")
    }
    same = found["replace"]
    assert same["delta_insert"] == pytest.approx(same["delta_flip"])
    assert same["curves"]["insert_morf"] == pytest.approx(same["curves"]["flip_lerf"][::-1])
    assert abs(found["remove"]["delta_insert"] - same["delta_insert"]) > 0.1
