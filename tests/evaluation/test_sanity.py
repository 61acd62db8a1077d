"""Sanity checks: against slow loops, on methods that fail them, and with the user's model untouched."""

import copy
import json

import pytest
import torch
from oracles import HFFloat64
from random_models import padded_batch, random_model

from hf_mambalrp import make_explainable
from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.evaluation import sanity
from hf_mambalrp.evaluation.sanity import determinism, input_invariance, randomisation_test, randomised
from hf_mambalrp.methods import METHODS, Method, Relevance

IDS, MASK = padded_batch([6, 9, 4], side="left")
BATCH = {"input_ids": IDS, "attention_mask": MASK}


def small(**options):
    return make_explainable(random_model(dtype=torch.float32, **options))


@pytest.fixture(scope="module", params=["mamba", "mamba2"])
def model(request):
    return small(model_type=request.param)


def slow_spearman(a, b):
    """Pearson correlation of midranks, each counted by comparing with every other."""
    ranks = [[sum((y < x) + 0.5 * (y == x) for y in values) for x in values] for values in (a, b)]
    centred = [[x - sum(row) / len(row) for x in row] for row in ranks]
    dot = sum(x * y for x, y in zip(*centred, strict=True))
    return dot / (sum(x * x for x in centred[0]) * sum(y * y for y in centred[1])) ** 0.5


@pytest.fixture
def copies(monkeypatch):
    """The copies of models that are made, with what they were."""
    made, deepcopy = [], copy.deepcopy

    def kept(value, *rest):
        found = deepcopy(value, *rest)
        if isinstance(value, torch.nn.Module):
            made.append(found)
        return found

    monkeypatch.setattr(sanity.copy, "deepcopy", kept)
    return made


def test_randomisation_goes_from_the_head_to_the_embeddings_in_a_copy(model, copies):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = randomisation_test(model, BATCH, methods=("mambalrp", "occlusion"), seed=3)
    assert list(found.signed["mambalrp"]) == ["head", "layer 1", "layer 0", "embeddings"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    (altered,) = (each for each in copies if type(each) is type(model))
    for name, value in altered.state_dict().items():
        assert not (value == before[name]).any(), name
        if value.numel() > 100:  # of how many the mean and the deviation can be told
            deviation = before[name].std()
            assert abs(value.mean() - before[name].mean()) < 4 * deviation / value.numel() ** 0.5
            assert abs(value.std() / deviation - 1) < 0.3
    for method, measured in found.signed.items():
        target = model.explain(BATCH, method=method).target
        pairs = [(m.explain(BATCH, method=method, target=target).relevance) for m in (model, altered)]
        rows = [(a[m == 1].tolist(), b[m == 1].tolist()) for a, b, m in zip(*pairs, MASK, strict=True)]
        sizes = [([abs(x) for x in a], [abs(x) for x in b]) for a, b in rows]
        assert measured["embeddings"] == pytest.approx([slow_spearman(a, b) for a, b in rows], abs=1e-6)
        absolute = found.absolute[method]["embeddings"]
        assert absolute == pytest.approx([slow_spearman(a, b) for a, b in sizes], abs=1e-6)
        stat = found.to_dict()["absolute"][method]["embeddings"]
        assert stat["mean"] == pytest.approx(sum(absolute) / 3)
        assert min(absolute) - 1e-9 <= stat["low"] <= stat["mean"] <= stat["high"] <= max(absolute) + 1e-9


def test_one_copy_becomes_random_layer_by_layer_and_stays_so(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parts = {
        "head": ("lm_head.", "backbone.norm_f."),
        "layer 1": ("backbone.layers.1.",),
        "layer 0": ("backbone.layers.0.",),
        "embeddings": ("backbone.embeddings.",),
    }
    copies, done, last = [], (), before
    for depth, altered in randomised(model, seed=1):
        now = {name: value.clone() for name, value in altered.state_dict().items()}
        changed = {name for name, value in now.items() if not torch.equal(value, last[name])}
        assert changed == {name for name in before if name.startswith(parts[depth])}
        copies.append(altered)
        done, last = (*done, depth), now
    assert done == tuple(parts)
    assert all(each is copies[0] for each in copies)
    assert copies[0] is not model
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again, other = ([altered for _, altered in randomised(model, seed)][-1].state_dict() for seed in (1, 2))
    assert all(torch.equal(again[name], value) for name, value in last.items())
    assert not any(torch.equal(other[name], value) for name, value in last.items())


@pytest.mark.parametrize("tied", [False, True])
def test_what_does_not_read_the_weights_stays_the_same_and_what_does_changes(tied):
    found = randomisation_test(small(tie_word_embeddings=tied), BATCH, methods=("random", "mambalrp"))
    # Random relevance reads the embeddings alone, which are made random last, also where the head shares them.
    for depth in ("head", "layer 1", "layer 0"):
        assert found.signed["random"][depth] == pytest.approx([1, 1, 1])
    assert abs(sum(found.signed["random"]["embeddings"])) / 3 < 0.9
    assert max(sum(rows) / 3 for rows in found.signed["mambalrp"].values()) < 0.95


def test_randomisation_repeats_with_its_seed_only(model):
    first, second, third = (randomisation_test(model, BATCH, seed=seed) for seed in (0, 0, 1))
    assert first == second
    assert first.signed != third.signed


def test_rows_without_two_tokens_have_no_correlation(model):
    found = randomisation_test(model, torch.tensor([[5], [7]]))
    assert all(rows == [None, None] for rows in found.signed["mambalrp"].values())
    assert json.loads(json.dumps(found.to_dict()))["absolute"]["mambalrp"]["head"]["mean"] is None


def test_the_shift_times_the_gradient_is_what_changes_gradient_x_input(model):
    weight = model.backbone.embeddings.weight.detach().double()
    shift = weight.std() * torch.randn(weight.shape[1], generator=torch.Generator().manual_seed(2)).double()
    double, changes = copy.deepcopy(model).double(), []
    for ids, mask in zip(IDS, MASK, strict=True):
        x = weight[ids[mask == 1]][None].requires_grad_()
        with HFFloat64():
            logits = double(inputs_embeds=x, use_cache=False).logits[0, -1]
        (gradient,) = torch.autograd.grad(logits.max(), x)
        changes.append(float((gradient @ shift).norm() / (gradient * x.detach()).sum(-1).norm()))
    found = input_invariance(model, BATCH, methods=["gradient_x_input"], seed=2)
    assert found.change["gradient_x_input"] == pytest.approx(changes, rel=1e-3)
    assert found.to_dict()["change"]["gradient_x_input"]["mean"] == pytest.approx(sum(changes) / 3, rel=1e-3)
    assert min(changes) > 0.05


@pytest.mark.parametrize("method", ["mambalrp", "lrp_ln"])
def test_what_is_subtracted_again_is_a_bias_of_the_moved_network(model, method):
    """It takes its share of the score, as every bias does, so that relevance of the moved network is not lost."""
    assert input_invariance(model, BATCH, methods=[method]).to_dict()["change"][method]["mean"] > 0.01


def test_methods_whose_reference_moves_along_are_invariant(model):
    options = {"occlusion": {"baseline": 4}, "integrated_gradients": {"baseline": 4, "steps": 5}}
    found = input_invariance(model, BATCH, methods=list(options), method_options=options)
    assert max(max(rows) for rows in found.change.values()) < 1e-3
    zero = input_invariance(model, BATCH, methods=["occlusion"])
    assert zero.to_dict()["change"]["occlusion"]["mean"] > 0.01


def test_methods_of_the_package_are_deterministic(model):
    names = ["mambalrp", "integrated_gradients", "smoothgrad", "occlusion", "random"]
    found = determinism(
        model, BATCH, methods=names, method_options={"integrated_gradients": {"steps": 3, "baseline": 4}}
    )
    assert found.passed == dict.fromkeys(names, True)
    assert json.loads(json.dumps(found.to_dict()))["passed"] == found.passed


def method(tokens):
    def explain(problem):
        zero = torch.zeros(len(problem.mask))
        return Relevance(tokens(problem.mask).float() * problem.mask, zero, zero, None, torch.zeros(len(zero), 1, 19))

    return Method("fake", "", explain, None)


@pytest.mark.parametrize(
    ("tokens", "fails"),
    [
        (lambda mask: torch.rand(mask.shape), {"repeated", "alone", "padded_left", "padded_right"}),
        (lambda mask: torch.full(mask.shape, len(mask)), {"alone"}),
        # Rows are explained from their first token on: who counts from it does not see how a batch is padded.
        (lambda mask: torch.arange(mask.shape[1]).expand(mask.shape) + 1, set()),
        (
            lambda mask: torch.arange(mask.shape[1]).flip(0).expand(mask.shape) + 1,
            {"alone", "padded_left", "padded_right"},
        ),
        (lambda mask: torch.ones(mask.shape), set()),
        (lambda mask: torch.zeros(mask.shape), set()),
    ],
)
def test_methods_that_depend_on_chance_partners_or_padding_are_found(monkeypatch, tokens, fails):
    monkeypatch.setitem(METHODS, "fake", method(tokens))
    found = determinism(small(), BATCH, methods=["fake"])
    failed = {name for name in ("alone", "padded_left", "padded_right") if getattr(found, name)["fake"] > 1e-4}
    assert failed | (set() if found.repeated["fake"] else {"repeated"}) == fails
    assert found.passed == {"fake": not fails}


@pytest.mark.parametrize("check", [randomisation_test, input_invariance, determinism])
def test_unknown_methods_and_embeddings_are_refused(check):
    with pytest.raises(OptionError, match="'nonsense'"):
        check(small(), BATCH, methods=["nonsense"])
    with pytest.raises(OptionError, match="'wondow'"):
        check(small(), BATCH, methods=["occlusion"], method_options={"occlusion": {"wondow": 2}})
    with pytest.raises(InputError, match="Floats"):
        check(small(), torch.randn(1, 4, 8))
