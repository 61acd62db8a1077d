"""Localisation metrics against loops over their definitions, and `localise` on a model that copies."""

import itertools
import math

import pytest
import torch
from random_models import random_model

from hf_mambalrp import make_explainable
from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.evaluation.localisation import (
    METRICS,
    Localisation,
    average_precision,
    hit,
    localise,
    recall_at_k,
    roc_auc,
)
from hf_mambalrp.evaluation.tasks import TaskBatch


def slow_auc(scores, evidence):
    pairs = [
        (p, n)
        for p, e in zip(scores, evidence, strict=True)
        if e
        for n, f in zip(scores, evidence, strict=True)
        if not f
    ]
    return sum((p > n) + 0.5 * (p == n) for p, n in pairs) / len(pairs)


def slow_average_precision(scores, evidence):
    """Sum over thresholds, from the highest, of precision times the recall gained."""
    area, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [e for s, e in zip(scores, evidence, strict=True) if s >= threshold]
        reached = sum(chosen) / sum(evidence)
        area, recall = area + (reached - recall) * sum(chosen) / len(chosen), reached
    return area


def slow_recall(scores, evidence, k):
    """The mean over every order that sorts the scores."""
    found = []
    for order in itertools.permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            found.append(sum(evidence[i] for i in order[:k]) / sum(evidence))
    return sum(found) / len(found)


def slow_hit(scores, evidence):
    return slow_recall(scores, evidence, 1) * sum(evidence)


def rows():
    """Rows of 6 with few different scores, so that many are tied, and rows without ties."""
    generator = torch.Generator().manual_seed(0)
    tied = torch.randint(-1, 2, (20, 6), generator=generator).float()
    scores = torch.cat([tied, torch.randn(10, 6, generator=generator)])
    evidence = torch.rand(30, 6, generator=generator) < 0.4
    evidence[:, 0], evidence[:, 5] = True, False
    return scores, evidence, torch.rand(30, 6, generator=generator) < 0.7


SLOW = {
    roc_auc: slow_auc,
    average_precision: slow_average_precision,
    recall_at_k: lambda s, e: slow_recall(s, e, sum(e)),
    hit: slow_hit,
}


@pytest.mark.parametrize("metric", SLOW)
def test_metrics_are_their_definitions_ties_included(metric):
    scores, evidence, _ = rows()
    expected = [SLOW[metric](s, e) for s, e in zip(scores.tolist(), evidence.tolist(), strict=True)]
    torch.testing.assert_close(metric(scores, evidence), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("metric", SLOW)
def test_positions_that_are_not_allowed_do_not_count(metric):
    scores, evidence, allowed = rows()
    allowed[:, 0] = allowed[:, 5] = True
    scores[7, 5] = scores[9, 0] = math.inf
    scores[~allowed] = torch.tensor([1e9, -1e9, math.nan]).repeat(100)[: int((~allowed).sum())]
    expected = [SLOW[metric](s[a].tolist(), e[a].tolist()) for s, e, a in zip(scores, evidence, allowed, strict=True)]
    torch.testing.assert_close(metric(scores, evidence, allowed), torch.tensor(expected, dtype=torch.float64))


def test_recall_at_a_k_of_ones_own():
    scores, evidence, _ = rows()
    for k in (1, 3, 9):
        expected = [slow_recall(s, e, k) for s, e in zip(scores.tolist(), evidence.tolist(), strict=True)]
        torch.testing.assert_close(recall_at_k(scores, evidence, k=k), torch.tensor(expected, dtype=torch.float64))
    with pytest.raises(OptionError, match="k=0"):
        recall_at_k(scores, evidence, k=0)


def test_constant_scores_are_at_chance():
    evidence = torch.tensor([True, False, False, True, False])
    scores = torch.full((5,), 0.3)
    assert roc_auc(scores, evidence) == 0.5
    assert hit(scores, evidence) == pytest.approx(2 / 5)
    assert recall_at_k(scores, evidence) == pytest.approx(2 / 5)
    assert average_precision(scores, evidence) == pytest.approx(2 / 5)


def test_a_perfect_and_a_reversed_order():
    evidence = torch.tensor([False, True, False, True])
    best = torch.tensor([0.0, 2, 1, 3])
    assert [float(metric(best, evidence)) for metric in SLOW] == [1, 1, 1, 1]
    assert float(roc_auc(-best, evidence)) == 0
    assert float(hit(-best, evidence)) == 0


@pytest.mark.parametrize("metric", SLOW)
@pytest.mark.parametrize("evidence", [[True, True], [False, False]])
def test_without_evidence_or_without_anything_else_there_is_no_metric(metric, evidence):
    assert metric(torch.tensor([[1.0, 2.0]]), torch.tensor([evidence])).isnan().all()


@pytest.mark.parametrize("metric", SLOW)
def test_masks_and_scores_are_checked(metric):
    with pytest.raises(InputError, match="evidence has dtype torch"):
        metric(torch.zeros(3), torch.zeros(3).long())
    with pytest.raises(InputError, match=r"allowed .* shape \(2,\)"):
        metric(torch.zeros(3), torch.zeros(3).bool(), torch.ones(2).bool())
    with pytest.raises(InputError, match="NaN"):
        metric(torch.tensor([1.0, math.nan]), torch.tensor([True, False]))


@pytest.fixture(scope="module")
def model():
    return make_explainable(random_model(dtype=torch.float32))


def batch(n=3, length=7, outputs=2):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 19, (n, length), generator=generator)
    positions = torch.tensor([[3, 6], [4, 5], [2, 6]])[:n, :outputs]
    evidence = torch.zeros(n, outputs, length, dtype=torch.bool)
    evidence[:, :, 1] = True
    evidence[0, 1, 4] = True
    return TaskBatch(ids, positions, torch.randint(1, 19, (n, outputs), generator=generator), evidence)


@pytest.mark.parametrize(("method", "absolute"), [("mambalrp", False), ("occlusion", True), ("random", False)])
def test_localise_explains_each_output_from_what_stands_before_it(model, method, absolute):
    task = batch()
    found = localise(model, task, method=method, absolute=absolute, batch_tokens=14)
    for row, output in itertools.product(range(3), range(2)):
        end = int(task.positions[row, output]) + 1
        target = int(task.targets[row, output])
        one = model.explain(task.input_ids[row : row + 1, :end], target=target, method=method).relevance[0]
        scores = (one.abs() if absolute else one).tolist()
        evidence = task.evidence[row, output, :end].tolist()
        for name, slow in zip(METRICS, SLOW.values(), strict=True):
            assert float(getattr(found, name)[row, output]) == pytest.approx(slow(scores, evidence))
        with torch.no_grad():
            predicted = int(model(task.input_ids[row : row + 1, :end]).logits[0, -1].argmax())
        assert bool(found.correct[row, output]) == (predicted == target)
    assert found.distance.tolist() == [[2, 2], [3, 4], [1, 5]]


def test_a_model_s_own_predictions_are_correct(model):
    task = batch()
    with torch.no_grad():
        predicted = model(task.input_ids).logits.argmax(-1).gather(1, task.positions)
    right = TaskBatch(task.input_ids, task.positions, predicted, task.evidence)
    assert localise(model, right, method="random").correct.all()


def test_means_leave_out_what_has_no_metric_and_count_by_distance():
    nan = math.nan
    values = torch.tensor([[0.25, 0.75], [nan, 1.0]], dtype=torch.float64)
    found = Localisation(
        "mambalrp",
        False,
        *[values] * 4,
        distance=torch.tensor([[2, 5], [9, 2]]),
        correct=torch.tensor([[True, False], [True, True]]),
    )
    assert found.mean()["roc_auc"] == pytest.approx(2 / 3)
    assert found.mean(correct_only=True)["hit"] == pytest.approx(0.625)
    by_distance = {distance: means["roc_auc"] for distance, means in found.by_distance().items()}
    assert by_distance == {2: 0.625, 5: 0.75, 9: None}
    assert list(found.by_distance(correct_only=True)) == [2, 9]
    as_dict = found.to_dict()
    assert (as_dict["outputs"], as_dict["accuracy"]) == (4, 0.75)
    assert as_dict["by_distance"]["5"]["average_precision"] == 0.75


def test_tasks_that_do_not_fit_are_refused(model):
    task = batch()
    late = task.evidence.clone()
    late[1, 0, 6] = True
    with pytest.raises(InputError, match="column 6 for output 0 of row 1, whose position is 4"):
        localise(model, TaskBatch(task.input_ids, task.positions, task.targets, late))
    with pytest.raises(InputError, match=r"\(3, 2\), \(3, 1\)"):
        localise(model, TaskBatch(task.input_ids, task.positions, task.targets[:, :1], task.evidence))
    with pytest.raises(InputError, match=r"torch\.float32"):
        localise(model, TaskBatch(task.input_ids, task.positions, task.targets, task.evidence.float()))
    with pytest.raises(OptionError, match="batch_tokens=0"):
        localise(model, task, batch_tokens=0)
