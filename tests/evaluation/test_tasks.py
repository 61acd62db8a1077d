"""The generators against their definitions, read off each sequence by slow loops."""

import pytest
import torch

from hf_mambalrp.errors import OptionError
from hf_mambalrp.evaluation.tasks import BOS, KEY, SEP, associative_recall, copying, needle

DRAWS = {
    "copying": lambda seed=0, n=40: copying(n, 6, 12, seed),
    "copying, every token": lambda seed=0, n=40: copying(n, 6, 10, seed),
    "copying, one token": lambda seed=0, n=40: copying(n, 1, 12, seed),
    "recall": lambda seed=0, n=40: associative_recall(n, 4, 17, seed),
    "recall, several queries": lambda seed=0, n=40: associative_recall(n, 4, 12, seed, queries=3),
    "needle": lambda seed=0, n=40: needle(n, 9, 8, seed),
    "needle, shortest": lambda seed=0, n=40: needle(n, 4, 8, seed),
    "needle, given depth": lambda seed=0, n=40: needle(n, 9, 8, seed, depth=0.5),
}


def copied_column(row, position, name):
    """The column that the output after ``position`` is copied from, found by reading the sequence as a person would."""
    sep = row.index(SEP)
    if name.startswith("copying"):
        return 1 + (position - sep)
    if name.startswith("recall"):
        keys = [column for column in range(1, sep, 2) if row[column] == row[position]]
        assert len(keys) == 1, "the query is one of the keys, once"
        return keys[0] + 1
    assert row.count(KEY) == 1
    return row.index(KEY) + 1


@pytest.mark.parametrize("name", DRAWS)
def test_evidence_is_the_one_column_that_is_copied(name):
    batch = DRAWS[name]()
    n, length = batch.input_ids.shape
    outputs = batch.positions.shape[1]
    assert batch.targets.shape == (n, outputs)
    assert batch.evidence.shape == (n, outputs, length)
    assert batch.evidence.dtype == torch.bool
    assert {batch.input_ids.dtype, batch.positions.dtype, batch.targets.dtype} == {torch.int64}
    for row, positions, targets, evidence in zip(
        batch.input_ids.tolist(), batch.positions.tolist(), batch.targets.tolist(), batch.evidence.tolist(), strict=True
    ):
        for position, target, mask in zip(positions, targets, evidence, strict=True):
            column = copied_column(row, position, name)
            assert column <= position
            assert row[column] == target == row[position + 1]
            assert [i for i, is_evidence in enumerate(mask) if is_evidence] == [column]


@pytest.mark.parametrize("name", [name for name in DRAWS if not name.startswith("needle")])
def test_the_output_stands_nowhere_else_before_it(name):
    batch = DRAWS[name]()
    for row, positions, targets in zip(
        batch.input_ids.tolist(), batch.positions.tolist(), batch.targets.tolist(), strict=True
    ):
        for position, target in zip(positions, targets, strict=True):
            assert row[: position + 1].count(target) == 1


def test_copying_has_the_documented_layout():
    for row in copying(20, 5, 12, 3).input_ids.tolist():
        assert (row[0], row[6]) == (BOS, SEP)
        assert row[1:6] == row[7:]
        assert len({*row[1:6]}) == 5
        assert all(4 <= token < 12 for token in row[1:6])


def test_recall_has_the_documented_layout():
    for row in associative_recall(20, 3, 14, 3, queries=2).input_ids.tolist():
        assert (row[0], row[7], len(row)) == (BOS, SEP, 12)
        pairs = dict(zip(row[1:7:2], row[2:7:2], strict=True))
        assert len(pairs) == len({*pairs.values()}) == 3
        assert all(4 <= key < 9 for key in pairs)
        assert all(9 <= value < 14 for value in pairs.values())
        assert row[8] != row[10]
        assert (pairs[row[8]], pairs[row[10]]) == (row[9], row[11])


def test_needle_has_the_documented_layout():
    rows = needle(200, 7, 8, 3).input_ids.tolist()
    for row in rows:
        assert (row[0], row[6], len(row)) == (BOS, SEP, 8)
        noise = [token for token in row[1:6] if token != KEY]
        assert len(noise) == 4
        assert all(4 <= token < 8 for token in noise)
    assert {row.index(KEY) for row in rows} == {1, 2, 3, 4}
    # The value occurs as noise as well, so it cannot be found without the marker.
    assert any(row[1:6].count(row[7]) > 1 for row in rows)


@pytest.mark.parametrize(("depth", "key"), [(0, 1), (0.25, 3), (0.5, 5), (1, 9)])
def test_needle_at_a_given_depth(depth, key):
    ids = needle(3, 12, 8, 0, depth=depth).input_ids
    assert [row.index(KEY) for row in ids.tolist()] == [key] * 3


@pytest.mark.parametrize("name", DRAWS)
def test_equal_seeds_give_equal_sequences_and_others_do_not(name):
    before = torch.random.get_rng_state()
    first, again, other = DRAWS[name](5), DRAWS[name](5), DRAWS[name](6)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator is left alone"
    for field in ("input_ids", "positions", "targets", "evidence"):
        assert torch.equal(getattr(first, field), getattr(again, field))
    assert not torch.equal(first.input_ids, other.input_ids)


def test_draws_are_uniform():
    """Counts of 6000 draws of one in 6: 1000 each, standard deviation 29."""
    ids = copying(6000, 3, 10, 0).input_ids
    for column in (1, 2, 3):
        assert (ids[:, column].bincount(minlength=10)[4:] - 1000).abs().max() < 150
    asked = associative_recall(6000, 6, 16, 0).evidence[:, 0].sum(0)
    assert (asked[2:13:2] - 1000).abs().max() < 150
    values = needle(6000, 8, 10, 0).targets[:, 0]
    assert (values.bincount(minlength=10)[4:] - 1000).abs().max() < 150


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda: copying(0, 3, 12, 0), "n=0; it must be at least 1"),
        (lambda: copying(1, 0, 12, 0), "length=0; it must be at least 1"),
        (lambda: copying(1, 9, 12, 0), "vocabulary=12; it must be at least 13 to draw 9 different source tokens"),
        (lambda: associative_recall(1, 0, 12, 0), "pairs=0; it must be at least 1"),
        (lambda: associative_recall(1, 5, 13, 0), "vocabulary=13; it must be at least 14 to draw 5 different"),
        (lambda: associative_recall(1, 2, 12, 0, queries=0), "queries=0; allowed are 1 to pairs=2"),
        (lambda: associative_recall(1, 2, 12, 0, queries=3), "queries=3; allowed are 1 to pairs=2"),
        (lambda: needle(0, 8, 12, 0), "n=0"),
        (lambda: needle(1, 3, 12, 0), "length=3; it must be at least 4 for BOS, KEY, a value and SEP"),
        (lambda: needle(1, 8, 5, 0), "vocabulary=5; it must be at least 6"),
        (lambda: needle(1, 8, 12, 0, depth=1.01), "depth=1.01; allowed are 0"),
        (lambda: needle(1, 8, 12, 0, depth=float("nan")), "depth=nan; allowed are 0"),
    ],
)
def test_impossible_sizes_are_refused(draw, says):
    with pytest.raises(OptionError, match=says):
        draw()
