"""Expected MambaLRP: a slow loop over coalitions with the oracle's MambaLRP, its limits, and what it sums to.

Its determinism, padding, batch partners, chunks and refusals are with the other methods that change the input.
"""

import pytest
import torch
from oracles import mambalrp_explicit
from random_models import padded_batch, random_model

from hf_mambalrp import make_explainable
from hf_mambalrp.errors import OptionError
from hf_mambalrp.methods import Problem
from hf_mambalrp.methods.expected_mambalrp import _coalitions
from hf_mambalrp.methods.random_relevance import row_generators

EPS = 1e-5
IDS = torch.tensor([[5, 3, 11, 7, 2, 9, 4]])


@pytest.fixture(scope="module")
def model():
    return make_explainable(random_model())


def orders(embeds, pairs, seed):
    """The random orders of one row that its generator gives, one a pair of coalitions."""
    problem = Problem(None, embeds, torch.ones(embeds.shape[:2]), None, None)
    generator = row_generators(problem, seed)[0]
    return [torch.randperm(embeds.shape[1], generator=generator).tolist() for _ in range(pairs)]


@pytest.mark.parametrize(("keep", "in_coalition"), [(0.5, 4), (0.3, 3), (1, 7)])
def test_it_is_the_slow_mean_over_coalitions_and_says_what_is_missing(model, keep, in_coalition):
    embeds = model.backbone.embeddings(IDS).detach()
    found = model.explain(IDS, target=8, method="expected_mambalrp", samples=4, keep=keep, seed=3, baseline=5)
    weights = torch.nn.functional.one_hot(torch.tensor([8]), 19).double()
    total, times, biases = torch.zeros(7).double(), [0] * 7, 0.0
    for order in orders(embeds, 2, 3):
        for kept in (order[:in_coalition], order[-in_coalition:]):
            inside = {*kept, 6}  # the last position is the one whose next token is explained
            ids = torch.tensor([[int(IDS[0, i]) if i in inside else 5 for i in range(7)]])
            one = mambalrp_explicit(model.state_dict(), eps=EPS, input_ids=ids, weights=weights)
            for i in inside:
                total[i] += one.relevance[0, i]
                times[i] += 1
            biases += float(one.biases[0]) / 4
    mean = total / torch.tensor(times).clamp(min=1)
    score = float(mambalrp_explicit(model.state_dict(), eps=EPS, input_ids=IDS, weights=weights).score[0])
    missing = score - biases - float(mean.sum())
    torch.testing.assert_close(found.relevance[0].double(), mean, rtol=1e-4, atol=1e-5)
    assert float(found.conservation.gap[0]) == pytest.approx(missing, abs=1e-5)
    assert (abs(missing) > 1e-3) == (keep < 1)
    assert float(found.conservation.biases[0]) == pytest.approx(biases, abs=1e-5)
    assert float(found.score[0]) == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("samples", [1, 4])
def test_with_every_token_kept_it_is_mambalrp(model, samples):
    ids, mask = padded_batch([6, 1, 4], side="right")
    found = model.explain(ids, attention_mask=mask, method="expected_mambalrp", keep=1, samples=samples)
    plain = model.explain(ids, attention_mask=mask)
    torch.testing.assert_close(found.relevance, plain.relevance, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.conservation.biases, plain.conservation.biases, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [1, 6, 7])
def test_in_a_pair_of_coalitions_of_half_of_the_tokens_is_every_token(length):
    mask = torch.ones(1, length + 2)
    mask[:, length:] = 0
    problem = Problem(None, torch.randn(1, length + 2, 8), mask, torch.tensor([[0]]), None)
    kept = _coalitions(problem, 4, 0.5, 0)
    assert kept[:2].any(0).tolist() == kept[2:].any(0).tolist() == [[True] * length + [False] * 2]
    assert kept[:, 0, 0].all()
    assert kept.sum(-1).max() <= (length + 1) // 2 + 1


def test_what_stands_in_a_tokens_place(model):
    options = {"target": 8, "method": "expected_mambalrp"}
    x = model.backbone.embeddings(IDS).detach()
    by_token = model.explain(IDS, baseline=4, **options).relevance
    as_tensor = model.explain(IDS, baseline=model.backbone.embeddings.weight[4].detach(), **options).relevance
    torch.testing.assert_close(by_token, as_tensor)
    mean = model.explain(IDS, baseline=x.mean(1, keepdim=True), **options).relevance
    torch.testing.assert_close(model.explain(IDS, baseline="mean", **options).relevance, mean)
    end = model.explain(IDS, baseline=int(model.config.eos_token_id), **options).relevance
    torch.testing.assert_close(model.explain(IDS, **options).relevance, end)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 1.5}, r"keep=1\.5"),
        ({"keep": 0}, "keep=0"),
        ({"keep": float("nan")}, "keep=nan"),
        ({"samples": 0}, "samples=0"),
        ({"baseline": "end"}, "baseline='end'"),
        ({"gamma": -1}, "gamma=-1"),
        ({"noise": 1}, "'noise'.*keep"),
    ],
)
def test_values_that_are_not_allowed_are_named(model, options, message):
    with pytest.raises(OptionError, match=message):
        model.explain(IDS, method="expected_mambalrp", **options)
