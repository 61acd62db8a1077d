"""Expected MambaLRP: a slow loop over coalitions with the oracle's MambaLRP, its limits, and what it sums to.

Its determinism, padding, batch partners, chunks and refusals are with the other methods that change the input.
"""

import pytest
import torch
from oracles import mambalrp_explicit, padded_batch, random_model

from hf_mambalrp import make_explainable
from hf_mambalrp.errors import OptionError
from hf_mambalrp.methods import Problem
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


@pytest.mark.parametrize(("keep", "in_coalition"), [(0.5, 4), (0.3, 2)])
def test_it_is_the_slow_mean_over_coalitions_shared_out_to_the_score(model, keep, in_coalition):
    embeds = model.backbone.embeddings(IDS).detach()
    found = model.explain(
        IDS, target=8, method="expected_mambalrp", samples=4, keep=keep, seed=3, baseline=0.5 * embeds
    )  # x * gradient of a replaced token is then twice its own relevance
    weights = torch.nn.functional.one_hot(torch.tensor([8]), 19).double()
    total, biases = torch.zeros(7).double(), 0.0
    for order in orders(embeds, 2, 3):
        for kept in (order[:in_coalition], order[::-1][:in_coalition]):
            share = torch.full((1, 7, 1), 0.5)
            share[0, kept] = 1
            one = mambalrp_explicit(model.state_dict(), eps=EPS, inputs_embeds=share * embeds, weights=weights)
            total += one.relevance[0] / share[0, :, 0].double() / 4
            biases += float(one.biases[0]) / 4
    whole = mambalrp_explicit(model.state_dict(), eps=EPS, inputs_embeds=embeds, weights=weights)
    missing = float(whole.score[0]) - biases - float(total.sum())
    expected = total + total.abs() * missing / total.abs().sum()
    torch.testing.assert_close(found.relevance[0].double(), expected, rtol=1e-4, atol=1e-5)
    assert abs(missing) > 1e-3
    assert float(found.conservation.biases[0]) == pytest.approx(biases, abs=1e-5)
    assert float(found.score[0]) == pytest.approx(float(whole.score[0]), abs=1e-5)


@pytest.mark.parametrize("samples", [1, 4])
def test_with_every_token_kept_it_is_mambalrp(model, samples):
    ids, mask = padded_batch([6, 1, 4], side="right")
    found = model.explain(ids, attention_mask=mask, method="expected_mambalrp", keep=1, samples=samples)
    plain = model.explain(ids, attention_mask=mask)
    torch.testing.assert_close(found.relevance, plain.relevance, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.conservation.biases, plain.conservation.biases, rtol=1e-5, atol=1e-6)


def test_relevance_and_biases_sum_to_the_score_of_every_row(model):
    ids, mask = padded_batch([9, 1, 5], side="left")
    for options in ({}, {"baseline": "zero", "samples": 1}, {"keep": 0, "gamma": 0.25}):
        found = model.explain(ids, attention_mask=mask, method="expected_mambalrp", contrast=3, **options)
        assert found.conservation.gap.abs().max() < 1e-4, options


def test_a_token_is_as_often_kept_as_any_other(model):
    """Of a pair of coalitions of half of the tokens each token is in one; another pair differs."""
    embeds = model.backbone.embeddings(IDS[:, :6]).detach()
    for order in orders(embeds, 3, 0):
        assert sorted(order[:3] + order[::-1][:3]) == list(range(6))
    pair, many = (
        model.explain(IDS[:, :6], target=8, method="expected_mambalrp", samples=samples, baseline="zero").relevance
        for samples in (2, 3)
    )
    assert not torch.allclose(pair, many)


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
