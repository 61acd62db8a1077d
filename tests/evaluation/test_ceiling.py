"""The order that a search on the model finds: against all orders of four tokens, and a greedy search by hand."""

import itertools
import random

import pytest

from hf_mambalrp import DEMO_MODEL, MambaLRPForSequenceClassification, evaluate_faithfulness
from hf_mambalrp.evaluation.ceiling import SEARCHED, best_order, best_orders
from hf_mambalrp.evaluation.perturbation import ZERO, Perturbation, counts_of
from hf_mambalrp.evaluation.report import to_markdown


class Jumbled(dict):
    """An output without any structure: every input has a number of its own."""

    def __init__(self, seed):
        super().__init__()
        self.seed = seed

    def __missing__(self, row):
        return random.Random(f"{self.seed} {row}").random()

    def __call__(self, rows):
        return {row: self[row] for row in rows}


def ordered(order, insertion="remove"):
    n = len(order)
    return Perturbation(tuple(range(10, 10 + n)), tuple(order), counts_of(n, 1), ZERO, insertion)


@pytest.mark.parametrize("insertion", ["remove", "replace"])
@pytest.mark.parametrize("seed", range(3))
def test_a_search_that_leaves_nothing_out_finds_the_best_of_all_orders(seed, insertion):
    output, n = Jumbled(seed), 4
    areas = {order: ordered(order, insertion).areas(output) for order in itertools.permutations(range(n))}
    given = ordered(range(n), insertion)
    found = best_orders(given, output, width=6)  # C(4, 2) sets of two tokens
    for metric in SEARCHED:
        best = max(each[metric] for each in areas.values())
        assert areas[found[metric]][metric] == pytest.approx(best, abs=1e-12)
        assert best > areas[best_orders(given, output)[metric]][metric] - 1e-12


def test_the_greedy_search_takes_the_token_that_adds_most():
    worth = {(0,): 1, (1,): 2, (2,): 2, (0, 1): 7, (1, 2): 6, (0, 2): 9}
    assert best_order((0, 1, 2), lambda sets: [worth[chosen] for chosen in sets]) == (1, 0, 2)
    assert best_order((0, 1, 2), lambda sets: [worth[chosen] for chosen in sets], 3) == (2, 0, 1)
    assert best_order((5,), lambda sets: []) == (5,)


def test_of_an_additive_output_the_greedy_order_is_that_of_its_terms():
    worth = [0.5, -1.0, 3.0, 0.25, 2.0]

    def output(rows):
        return {row: sum(worth[token - 10] for token in row if token != ZERO) for row in rows}

    assert best_orders(ordered(range(5)), output) == dict.fromkeys(SEARCHED, (2, 4, 0, 3, 1))


def test_an_evaluation_gives_every_methods_share_of_it():
    model = MambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
    texts = ["A dull film.", "Fine acting, no plot."]
    options = {"methods": ["mambalrp", "random"], "progress": False, "resamples": 50}
    results = evaluate_faithfulness(model, texts, ceiling=1, **options).results
    found, methods = results["ceiling"], results["methods"]
    assert found["examples"] == results["settings"]["ceiling"] == 1
    for metric in SEARCHED:
        own = methods["mambalrp"][metric]["values"][0]
        assert found["shares"]["mambalrp"][metric]["mean"] == pytest.approx(own / found["mean"][metric])
        assert found["mean"][metric] > methods["random"][metric]["values"][0]
    assert "## Share of what a search finds" in to_markdown(results)
    assert "ceiling" not in evaluate_faithfulness(model, texts[:1], **options).results
