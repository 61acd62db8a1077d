"""The hybrid oracle's forward is transformers' own, and its relevance conserves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracle_hybrids import explain
from small_hybrids import VOCABULARY, available, one_each, shared
from torch import Tensor
from torch.overrides import TorchFunctionMode

LENGTH = 10


class Float64(TorchFunctionMode):
    """Context in which whatever transformers does in float32 (norms, softmax, scans, rotations) is done in float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        args = [torch.float64 if arg is torch.float32 else arg for arg in args]
        if not kwargs:
            return func(*args)
        return func(*args, **{name: torch.float64 if arg is torch.float32 else arg for name, arg in kwargs.items()})


def ids(seed: int = 0) -> Tensor:
    """(LENGTH,) random tokens, none of them the padding token."""
    return torch.randint(1, VOCABULARY, (LENGTH,), generator=torch.Generator().manual_seed(seed))


def own_logits(model: Any, row: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """transformers' logits (L, V) and hidden states in float64."""
    with torch.no_grad(), Float64():
        output = model(input_ids=row[None], use_cache=False, output_hidden_states=True)
    return output.logits[0], output.hidden_states


def same(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


MODELS_AND_RULES = [("cp", name) for name in one_each()] + [("attnlrp", name) for name in available()]
"""By the rule that keeps the softmax constant one of each family: the other one reads all that it reads, and more."""


@pytest.mark.parametrize("name", available())
def test_logits_and_streams_are_transformers_own(name):
    model, row = shared(name), ids()
    logits, hidden_states = own_logits(model, row)
    assert logits.dtype == torch.float64
    assert 0.3 < logits.std() < 5
    for position in (-1, 3):
        result = explain(model, row, position=position)
        same(result.logits, logits[position])
    layers = len(model.model.layers)
    assert len(result.hidden_states) == layers + 1
    same(result.hidden_states[:layers], torch.stack([state[0] for state in hidden_states[:layers]]))  # the last: normed


@pytest.mark.parametrize(("attention", "name"), MODELS_AND_RULES)
def test_relevance_biases_and_softmax_add_up_to_the_score(attention, name):
    model, row = shared(name), ids(1)
    result = explain(model, row, attention=attention)
    same(result.relevance.sum() + result.biases + result.softmax, result.score)
    for i in range(len(model.model.layers) + 1):
        later = result.around[i:].sum() + result.biases_by_layer[i:].sum() + result.softmax_by_layer[i:].sum()
        same(result.layer_relevance[i].sum() + later, result.score)
    same(result.layer_relevance[0] + result.around.sum(0), result.relevance)
    same(sum(result.biases_by_name.values(), torch.zeros((), dtype=torch.float64)), result.biases)
    assert (result.softmax.abs() > 1e-3) == (attention == "attnlrp")


@pytest.mark.parametrize("attention", ["cp", "attnlrp"])
def test_a_contrast_is_the_difference_of_two_logits(attention):
    model, row = shared("jamba-moe"), ids(2)
    target, contrast = torch.eye(VOCABULARY)[[3, 7]]
    both = [explain(model, row, weights=weights, attention=attention) for weights in (target, contrast)]
    result = explain(model, row, weights=target - contrast, attention=attention)
    same(result.score, result.logits[3] - result.logits[7])
    same(result.relevance, both[0].relevance - both[1].relevance)
    same(result.biases + result.softmax, result.score - result.relevance.sum())
