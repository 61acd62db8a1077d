"""Random relevance, integrated gradients, SmoothGrad and occlusion: against captum on Hugging Face's own model, against
slow loops over the definitions, and in batches."""

import copy

import numpy as np
import pytest
import torch
from oracles import HFFloat64
from random_models import padded_batch, random_model
from results import explanation
from small import KINDS, word_tokenizer
from transformers import MambaConfig

from hf_mambalrp import Explanation, make_explainable
from hf_mambalrp.errors import OptionError
from hf_mambalrp.methods import Problem, method_named
from hf_mambalrp.methods.random_relevance import row_generators, standard_normal
from hf_mambalrp.models.explainable import MambaLRPForSequenceClassification

IDS = torch.tensor([[5, 3, 11, 7, 2, 9]])
ROWS, MASK = padded_batch([6, 1, 4], side="right")
OPTIONS = {
    "random": {},
    "integrated_gradients": {"steps": 5, "baseline": 1},
    "smoothgrad": {"samples": 3},
    "occlusion": {"window": 2, "baseline": 4},
    "expected_mambalrp": {"samples": 3, "baseline": 4},
}


@pytest.fixture
def captum():
    """Imported where it is used: of several processes that run tests one may be spared it."""
    import captum.attr

    return captum.attr


@pytest.fixture(scope="module", params=["mamba", "mamba2"])
def model(request):
    return make_explainable(random_model(**KINDS[request.param]))


def logit(model, target):
    """The target's logit at the last position as a function of embeddings, by Hugging Face's model in float64."""
    double = copy.deepcopy(model).double()

    def score(embeddings):
        with HFFloat64():
            return double(inputs_embeds=embeddings, use_cache=False).logits[:, -1, target]

    return score


def embedded(model, ids=IDS):
    return model.backbone.embeddings(ids).detach().double()


def close(found, expected):
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("baseline", ["zero", 4, "tensor"])
def test_integrated_gradients_are_captums(model, baseline, captum):
    x = embedded(model)
    own = {"zero": torch.zeros_like(x), 4: embedded(model, torch.full_like(IDS, 4)), "tensor": 0.3 * x.flip(1)}
    given = own["tensor"] if baseline == "tensor" else baseline
    found = model.explain(IDS, target=8, method="integrated_gradients", steps=12, baseline=given)
    method = captum.IntegratedGradients(logit(model, 8))
    expected, delta = method.attribute(x, own[baseline], n_steps=12, return_convergence_delta=True)
    close(found.relevance, expected.sum(-1))
    close(found.convergence_delta, delta)


def test_integrated_gradients_sum_to_the_score_s_difference(model):
    start = embedded(model, torch.full_like(IDS, 4))
    found = model.explain(IDS, target=8, contrast=3, method="integrated_gradients", baseline=4, steps=200)
    score, other = logit(model, 8), logit(model, 3)
    difference = [score(x) - other(x) for x in (embedded(model), start)]
    left = found.relevance.sum(1) - (difference[0] - difference[1])
    assert left.abs() < 0.01
    torch.testing.assert_close(found.convergence_delta.double(), left, rtol=0, atol=1e-5)
    assert (
        model.explain(IDS, target=8, method="integrated_gradients", baseline=4, steps=1).convergence_delta.abs() > 0.01
    )


def test_smoothgrad_is_the_mean_of_captums_noisy_gradients_times_the_input(model, monkeypatch, captum):
    x = embedded(model)
    problem = Problem(None, x, torch.ones_like(IDS), None, None)
    generators = row_generators(problem, 7)
    noise = [standard_normal(generators, problem.mask, x.shape[-1]).double() for _ in range(5)]
    draws = iter(noise)
    deviation = 0.2 * (x.max() - x.min())
    monkeypatch.setattr(torch, "normal", lambda mean, std: std * next(draws))
    tunnel = captum.NoiseTunnel(captum.Saliency(logit(model, 8)))
    options = {"nt_type": "smoothgrad", "nt_samples": 5, "nt_samples_batch_size": 1, "abs": False}
    expected = tunnel.attribute(x, stdevs=float(deviation), **options)
    monkeypatch.undo()
    found = model.explain(IDS, target=8, method="smoothgrad", samples=5, noise=0.2, seed=7)
    close(found.relevance, (x * expected).sum(-1))


def test_smoothgrad_without_noise_is_gradient_x_input(model):
    found = model.explain(ROWS, attention_mask=MASK, method="smoothgrad", noise=0, samples=2)
    close(found.relevance, model.explain(ROWS, attention_mask=MASK, method="gradient_x_input").relevance)


@pytest.mark.parametrize("window", [1, 3, 6])
@pytest.mark.parametrize("baseline", ["zero", 4])
def test_occlusion_is_captums(model, window, baseline, captum):
    x = embedded(model)
    start = torch.zeros_like(x) if baseline == "zero" else embedded(model, torch.full_like(IDS, 4))
    found = model.explain(IDS, target=8, method="occlusion", window=window, baseline=baseline)
    method = captum.Occlusion(logit(model, 8))
    expected = method.attribute(x, (window, x.shape[-1]), strides=(1, x.shape[-1]), baselines=start)
    close(found.relevance, expected.mean(-1))


def test_a_row_shorter_than_the_window_is_one_window(model):
    found = model.explain(IDS, target=8, method="occlusion", window=50)
    score, x = logit(model, 8), embedded(model)
    close(found.relevance, (score(x) - score(torch.zeros_like(x))).expand(1, 6))


def test_random_relevance_is_standard_normal_and_its_seed_s():
    model = make_explainable(random_model(hidden_size=4, num_layers=1))
    ids = torch.arange(4000).remainder(19)[None]
    found = [model.explain(ids, method="random", seed=seed).relevance for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert abs(float(np.corrcoef(found[0], found[2])[0, 1])) < 0.05
    for one in found:
        assert abs(one.mean()) < 0.05
        assert abs(one.std() - 1) < 0.05
        assert abs((one.abs() < 1).float().mean() - 0.6827) < 0.03


def test_rows_of_one_length_do_not_share_their_noise(model):
    ids = torch.stack([IDS[0], IDS[0].flip(0)])
    found = model.explain(ids, method="random").relevance
    assert not torch.isclose(found[0], found[1]).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_row_s_relevance_does_not_depend_on_partners_padding_batches_or_chunks(name, kind):
    model = make_explainable(random_model(**KINDS[kind], dtype=torch.float32))
    options = {"method": name, **OPTIONS[name]}
    alone = [model.explain(ids[mask == 1][None], **options).relevance[0] for ids, mask in zip(ROWS, MASK, strict=True)]
    left = padded_batch([6, 1, 4], side="left")
    calls = [{}, {"chunk_size": 2}] + ([] if name == "random" else [{"internal_batch_size": 7}])
    for ids, mask in ((ROWS, MASK), left):
        for call in calls:
            found = model.explain(ids, attention_mask=mask, **options, **call)
            assert (found.relevance[mask == 0] == 0).all()
            for row, expected in enumerate(alone):
                torch.testing.assert_close(found.relevance[row, mask[row] == 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_what_stands_in_padding_is_not_read(model, name):
    embeds = embedded(model, ROWS).float()
    filled = embeds.masked_fill(MASK[:, :, None] == 0, 100.0)
    options = {"attention_mask": MASK, "target": 8, "method": name, **OPTIONS[name]}
    plain, other = (model.explain(inputs_embeds=each, **options).relevance for each in (embeds, filled))
    torch.testing.assert_close(plain, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIONS)
def test_two_calls_are_equal_and_leave_the_global_generator_alone(model, name):
    before = torch.random.get_rng_state()
    first, second = (model.explain(ROWS, attention_mask=MASK, method=name, **OPTIONS[name]) for _ in range(2))
    assert first == second
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", ["integrated_gradients", "smoothgrad", "occlusion", "expected_mambalrp"])
def test_the_prediction_that_is_explained_is_the_input_s_own(model, name):
    """At changed inputs the model predicts other tokens; those are not what is explained."""
    predicted = model.explain(ROWS, attention_mask=MASK, method=name, **OPTIONS[name])
    named = model.explain(ROWS, attention_mask=MASK, method=name, target=predicted.target, **OPTIONS[name])
    assert torch.equal(predicted.relevance, named.relevance)
    with torch.no_grad():
        logits = model(ROWS[:1]).logits[0, -1]
    assert predicted.target[0] == int(logits.argmax())
    assert float(predicted.score[0]) == pytest.approx(float(logits.max()), rel=1e-5)


def test_a_target_of_several_tokens_sums_their_logits(model):
    tokenizer = word_tokenizer()
    words = "a b c"
    found = model.explain(words, target="d e", contrast="f", tokenizer=tokenizer, method="occlusion")
    ids, (d, e, f) = torch.tensor([tokenizer(words + " d")["input_ids"]]), tokenizer("d e f")["input_ids"]
    score_d, score_e, score_f = (logit(model, token) for token in (d, e, f))

    def score(x):
        return score_d(x[:, :3]) + score_e(x) - score_f(x[:, :3])

    expected = []
    for i in range(4):
        occluded = embedded(model, ids)
        occluded[:, i] = 0
        expected.append(score(embedded(model, ids)) - score(occluded))
    close(found.relevance, torch.stack(expected, 1))


def test_a_several_token_contrast_has_one_convergence_delta(model):
    found = model.explain(
        ["a b c", "g"],
        target="d",
        contrast="e f",
        tokenizer=word_tokenizer(),
        method="integrated_gradients",
        baseline=4,
    )
    assert found.convergence_delta.shape == (2,)
    difference = found.relevance.sum(1) - found.convergence_delta
    assert (found.score - difference).abs().min() > 0.01  # what the score is at the baseline
    assert found.convergence_delta.abs().max() < 0.01


@pytest.mark.parametrize("name", OPTIONS)
def test_a_classifier_of_one_token_and_embeddings_as_input(name):
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=19, hidden_size=8, num_hidden_layers=1, state_size=4, num_labels=3)
    model = MambaLRPForSequenceClassification(config)
    by_ids = model.explain(IDS[:, :1], target=1, method=name, **OPTIONS[name])
    with torch.no_grad():
        embeds = model.backbone.embeddings(IDS[:, :1])
    by_embeddings = model.explain(inputs_embeds=embeds, target=1, method=name, **OPTIONS[name])
    assert by_ids.relevance.shape == (1, 1)
    assert torch.equal(by_ids.relevance, by_embeddings.relevance)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_function_of_the_logits_can_be_the_target(model, name):
    found = model.explain(IDS, target=lambda logits: 2 * logits[:, 8], method=name, **OPTIONS[name])
    single = model.explain(IDS, target=8, method=name, **OPTIONS[name])
    close(found.score, 2 * single.score)
    close(found.relevance, single.relevance * (1 if name == "random" else 2))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("integrated_gradients", {"steps": 0}, "steps=0"),
        ("integrated_gradients", {"steps": 2.5}, r"steps=2\.5"),
        ("integrated_gradients", {"baseline": "mean"}, "baseline='mean'"),
        ("integrated_gradients", {"baseline": 19}, "baseline=19.*0 to 18"),
        ("integrated_gradients", {"baseline": True}, "baseline=True"),
        ("integrated_gradients", {"baseline": torch.zeros(3)}, r"shape \(3,\).*\(1, 6, 8\)"),
        ("integrated_gradients", {"internal_batch_size": 0}, "internal_batch_size=0"),
        ("smoothgrad", {"samples": True}, "samples=True"),
        ("smoothgrad", {"noise": -0.1}, r"noise=-0\.1"),
        ("smoothgrad", {"noise": float("nan")}, "noise=nan"),
        ("smoothgrad", {"seed": -1}, "seed=-1"),
        ("occlusion", {"window": 0}, "window=0"),
        ("occlusion", {"steps": 3}, "'steps'.*window"),
        ("random", {"seed": "x"}, "seed='x'"),
    ],
)
def test_values_that_are_not_allowed_are_named(model, name, options, message):
    with pytest.raises(OptionError, match=message):
        model.explain(IDS, method=name, **options)


@pytest.mark.parametrize("name", OPTIONS)
def test_layers_are_refused_and_the_methods_that_have_them_named(model, name):
    with pytest.raises(OptionError, match=rf"{name}.*gradient_x_input.*mambalrp"):
        model.explain(IDS, method=name, per_layer=True)


def test_the_convergence_delta_is_stored_and_shown(tmp_path):
    shown = explanation("A fine film", "dull", convergence_delta=torch.tensor([0.25, -0.5]))
    shown.save(tmp_path)
    assert Explanation.load(tmp_path) == shown == Explanation.from_dict(shown.to_dict())
    assert shown[1].convergence_delta.tolist() == [-0.5]
    for text in (repr(shown), shown.to_text(width=300), shown.to_html()):
        assert "convergence delta +0.250" in text
        assert "convergence delta -0.500" in text
    figure = shown.plot(1)
    assert "convergence delta -0.500" in " ".join(
        text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text"))
    )
    without = explanation("A fine film")
    assert "convergence" not in repr(without) + without.to_text() + without.to_html()
    assert "convergence_delta" not in without.to_dict()


def test_only_the_random_method_does_not_read_the_score():
    assert not method_named("random").reads_score
    assert all(method_named(name).reads_score for name in OPTIONS if name != "random")
