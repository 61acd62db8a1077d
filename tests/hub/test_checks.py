"""A card shows what was measured and explained on the model that is pushed, and nothing of another."""

import copy

import pytest
import torch
from random_models import random_model
from small import byte_level_tokenizer
from test_card import results

from hf_mambalrp import Evaluation, MambaForSequenceClassification, evaluate_faithfulness, make_explainable
from hf_mambalrp.errors import InputError
from hf_mambalrp.models.card_checks import check_explanations
from hf_mambalrp.models.fingerprint import fingerprint
from hf_mambalrp.results.card import rows

TEXT = "The capital of France is"
TOKENIZER = byte_level_tokenizer(TEXT + " Paris. England London.")


def model_of(seed):
    return make_explainable(random_model(num_layers=1, vocab_size=len(TOKENIZER), dtype=torch.float32, seed=seed))


@pytest.fixture(scope="module")
def ours():
    return model_of(1)


@pytest.fixture(scope="module")
def other():
    return model_of(2)


@pytest.fixture(scope="module")
def evaluation(other):
    options = {"tokenizer": TOKENIZER, "methods": ["mambalrp"], "resamples": 9, "progress": False}
    return evaluate_faithfulness(other, [TEXT], **options)


@pytest.mark.parametrize("form", ["evaluation", "results", "file", "without a fingerprint"])
def test_figures_of_other_weights_are_refused_and_nothing_is_written(ours, evaluation, tmp_path, form):
    evaluation.save(tmp_path / "results.json")
    given = {
        "evaluation": evaluation,
        "results": evaluation.results,
        "file": Evaluation.load(tmp_path / "results.json"),
        "without a fingerprint": results(),
    }[form]
    with pytest.raises(InputError, match="figures of its own model only"):
        ours.save_pretrained(tmp_path / "out", evaluation=given)
    assert not list((tmp_path / "out").glob("*"))


def test_a_push_of_other_figures_creates_nothing(hub, ours, evaluation, explanation):
    for wrong in ({"evaluation": evaluation}, {"explanations": explanation}):
        with pytest.raises(InputError, match=r"(own model only|another model)"):
            ours.push_to_hub("me/x", **wrong)
    assert not hub.repositories


def test_figures_of_the_same_weights_are_shown(other, evaluation, tmp_path):
    """Of a copy and of a compiled model too: what counts is the weights."""
    same = make_explainable(copy.deepcopy(other))
    same.save_pretrained(tmp_path, evaluation=evaluation)
    assert "### Faithfulness" in (tmp_path / "README.md").read_text()
    assert fingerprint(torch.compile(other)) == evaluation.results["weights"]


def test_explanations_of_the_pushed_model_are_known_by_their_scores(ours, other):
    """Every form of target, and of half the precision; those of another model by the first row that differs."""
    cases = [
        {}, {"target": " Paris", "contrast": " London"}, {"target": 3}, {"target": " Paris. London"},
        {"position": 1}, {"method": "random"},
    ]  # fmt: skip
    for options in cases:
        found = ours.explain([TEXT, "England"], tokenizer=TOKENIZER, **options)
        check_explanations(rows(found), ours)
        with pytest.raises(InputError, match="Row 0 of the explanations has the score"):
            check_explanations(rows(found), other)
    generated = ours.explain_generation([TEXT, "England"], tokenizer=TOKENIZER, max_new_tokens=2)
    check_explanations(rows(generated), ours)
    with pytest.raises(InputError, match="another model"):
        check_explanations(rows(generated), other)
    half = make_explainable(copy.deepcopy(ours).bfloat16())
    check_explanations(rows(half.explain(TEXT, tokenizer=TOKENIZER)), half)
    check_explanations(rows(ours.explain(TEXT, tokenizer=TOKENIZER, target=lambda logits: logits[:, 1])), other)
    embeds = torch.ones(1, 2, ours.config.hidden_size)
    check_explanations(rows(ours.explain(inputs_embeds=embeds)), other)


def test_explanations_of_a_regression_are_checked_too(ours):
    config = copy.deepcopy(ours.config)
    config.num_labels = 1
    regression = make_explainable(MambaForSequenceClassification(config))
    found = regression.explain(input_ids=torch.tensor([[1, 2, 3]]))
    check_explanations(rows(found), regression)
    with torch.no_grad():
        regression.score.weight.mul_(1 + 9 / found.score.abs().item())
    with pytest.raises(InputError, match="another model"):
        check_explanations(rows(found), regression)


class Quantised(torch.Tensor):
    """A weight that is made of two plain tensors, as torchao's are."""

    @staticmethod
    def __new__(cls, values, scale):
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=scale.dtype)

    def __init__(self, values, scale):
        self.values_, self.scale = values, scale

    def __tensor_flatten__(self):
        return ["values_", "scale"], None

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return cls(args[0].values_, args[0].scale)
        raise NotImplementedError(func)


def test_a_weight_of_a_tensor_subclass_has_a_fingerprint():
    def found(*values):
        layer = torch.nn.Linear(2, 1, bias=False)
        inner = Quantised(torch.tensor([values], dtype=torch.int8), torch.ones(1))
        layer.weight = torch.nn.Parameter(inner, requires_grad=False)
        return fingerprint(layer)

    assert found(1, 2) == found(1, 2) != found(1, 3)
