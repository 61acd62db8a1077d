"""MambaLRP on Vision Mamba: against the oracle at every layer, conservation, every method, and what is refused."""

import copy
from itertools import pairwise

import pytest
import torch
from oracle_vim import vim_forward
from oracle_vim_lrp import vim_relevance
from small_vim import KINDS, pixels_for, released, small_vim

from hf_mambalrp import AutoMambaLRPForImageClassification, VimLRPForImageClassification, make_explainable
from hf_mambalrp.errors import ForwardMismatchError, InputError, OptionError, TargetError
from hf_mambalrp.methods import METHODS

every_kind = pytest.mark.parametrize("kind", KINDS)
GAMMAS = [(0.0, ()), (0.25, ("conv1d",)), (0.25, ("linear",)), (2.0, ("conv1d", "linear"))]


def explainable(kind="vim", **options):
    return make_explainable(small_vim(kind, **options))


def error(found, oracle):
    return float((found.double() - oracle).norm() / oracle.norm())


@every_kind
@pytest.mark.parametrize(("gamma", "gamma_on"), GAMMAS)
def test_relevance_at_every_layer_and_pixel_agrees_with_the_oracle(kind, gamma, gamma_on):
    model = explainable(kind)
    pixels, config = pixels_for(model), model.config
    found = model.explain(pixel_values=pixels, target=3, gamma=gamma, gamma_on=gamma_on, per_layer=True)
    score, layers, of_pixels, read = vim_relevance(
        released(model), pixels, 3, config.stride, config.class_token, config.divide_out,
        *(gamma if name in gamma_on else 0.0 for name in ("conv1d", "linear")),
    )  # fmt: skip
    rest = [position for position in range(layers.shape[-1]) if position not in read]
    torch.testing.assert_close(found.score.double(), score, rtol=1e-5, atol=1e-5)
    assert error(found.layer_relevance.flatten(2), layers[..., rest]) < 1e-5
    assert error(found.layer_class_relevance, layers[..., read]) < 1e-5
    assert error(found.pixel_relevance, of_pixels) < 1e-5
    assert torch.equal(found.relevance, found.layer_relevance[0])
    assert torch.equal(found.class_relevance, found.layer_class_relevance[0])
    assert found.conservation.gap.abs().max() < 1e-5 * found.score.abs().max() + 1e-5


@every_kind
def test_the_explained_score_is_the_models_own_logit(kind):
    model = explainable(kind)
    pixels, config = pixels_for(model), model.config
    oracle = vim_forward(released(model), pixels, config.stride, config.class_token, config.divide_out).logits
    found = model.explain(pixel_values=pixels, target=[1, 4], contrast=[0, 2])
    torch.testing.assert_close(
        found.score.double(), oracle[[0, 1], [1, 4]] - oracle[[0, 1], [0, 2]], rtol=1e-4, atol=1e-4
    )
    predicted = model.explain(pixel_values=pixels)
    assert predicted.target == oracle.argmax(-1).tolist()
    torch.testing.assert_close(predicted.probability.double(), oracle.softmax(-1).amax(-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "gamma", "gamma_on"), [(kind, *GAMMAS[n % 4]) for n, kind in enumerate(KINDS)])
def test_without_biases_relevance_sums_to_the_score(kind, gamma, gamma_on):
    model = explainable(kind)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("conv1d.bias", "conv1d_b.bias", "head.bias")):
                parameter.zero_()
    found = model.explain(pixel_values=pixels_for(model), target=2, gamma=gamma, gamma_on=gamma_on)
    total = found.relevance.sum((1, 2)) + found.class_relevance.sum(1)
    torch.testing.assert_close(total, found.score, rtol=1e-4, atol=1e-4)
    assert not found.conservation.biases.any()


def test_gamma_to_zero_tends_to_lrp_0():
    """Far below 1 the distance is proportional to gamma, whatever the weights are."""
    model = explainable().double()
    pixels = pixels_for(model)
    plain = model.explain(pixel_values=pixels, target=1, gamma=0)
    distances = []
    for gamma in (1e-4, 1e-5, 1e-6):
        found = model.explain(pixel_values=pixels, target=1, gamma=gamma, gamma_on=("conv1d", "linear"))
        distances.append(error(found.relevance, plain.relevance))
    assert distances[0] < 1e-2
    assert [low / high for high, low in pairwise(distances)] == pytest.approx([0.1, 0.1], rel=0.1)


@pytest.mark.parametrize("backend", ["reference", "chunked", "compiled", "triton"])
def test_every_backend_gives_the_same(backend):
    model = explainable(num_hidden_layers=1)  # the interpreter of kernels takes seconds for each
    pixels = pixels_for(model)
    wanted = model.explain(pixel_values=pixels, target=1, gamma_on=("conv1d", "linear"))
    found = model.explain(pixel_values=pixels, target=1, gamma_on=("conv1d", "linear"), backend=backend)
    assert error(found.relevance, wanted.relevance.double()) < 1e-5


def test_bfloat16_weights():
    model = explainable().bfloat16()
    pixels, config = pixels_for(model), model.config
    score, layers, *_ = vim_relevance(released(model), pixels, 3, config.stride, gamma_conv=0.25)
    found = model.explain(pixel_values=pixels, target=3)
    assert error(found.score, score) < 2e-2  # patches are embedded in bfloat16 by the model itself
    read = config.class_token_positions[0]
    assert error(found.class_relevance[:, 0], layers[0, :, read]) < 2e-2


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"latim"}))
def test_every_method_explains_every_picture_alone(method):
    model = explainable()
    pixels = pixels_for(model, batch=3)
    options = {"steps": 4} if method == "integrated_gradients" else {"samples": 3} if method == "smoothgrad" else {}
    together = model.explain(pixel_values=pixels, target=1, method=method, **options)
    again = model.explain(pixel_values=pixels, target=1, method=method, **options)
    assert torch.equal(together.relevance, again.relevance)
    assert together.method == method
    assert together.gamma == (0.25 if "gamma" in METHODS[method].options else 0)
    if method not in ("random", "smoothgrad", "expected_mambalrp"):  # whose numbers are drawn by the row
        alone = model.explain(pixel_values=pixels[1:2], target=1, method=method, **options)
        torch.testing.assert_close(together.relevance[1:2], alone.relevance, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
@pytest.mark.parametrize("baseline", ["mean", "black", "blur"])
def test_a_picture_that_is_its_own_baseline_has_no_relevance(method, baseline):
    """One colour is its own mean, and blurring keeps it; black is black."""
    model = explainable()
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (-mean / deviation).view(1, 3, 1, 1).expand(1, 3, 16, 16)  # black
    pixels = pixels if baseline == "black" else pixels + 0.7
    found = model.explain(pixel_values=pixels, target=1, method=method, baseline=baseline)
    assert found.relevance.abs().max() < 1e-4
    other = model.explain(pixel_values=pixels_for(model), target=1, method=method, baseline=baseline)
    assert other.relevance.abs().max() > 1e-3
    assert not other.class_relevance.any()


def test_train_mode_changes_nothing_and_stays():
    model = explainable()
    pixels = pixels_for(model)
    wanted = model.explain(pixel_values=pixels, target=1)
    before = copy.deepcopy(model.state_dict())
    model.train()
    assert torch.equal(model.explain(pixel_values=pixels, target=1).relevance, wanted.relevance)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_forward_that_does_something_else_is_found():
    model = explainable()
    model.vim.layers[0].mixer.forward = lambda hidden: hidden
    with pytest.raises(ForwardMismatchError, match="layer 0"):
        model.explain(pixel_values=pixels_for(model))


def test_checkpoints_are_the_stock_classs(tmp_path):
    model = small_vim()
    model.save_pretrained(tmp_path / "stock")
    ours = AutoMambaLRPForImageClassification.from_pretrained(tmp_path / "stock")
    assert type(ours) is VimLRPForImageClassification
    pixels = pixels_for(model)
    assert torch.equal(ours(pixels).logits, model(pixels).logits)
    wanted = make_explainable(model).explain(pixel_values=pixels)
    assert torch.equal(ours.explain(pixel_values=pixels).relevance, wanted.relevance)
    ours.save_pretrained(tmp_path / "ours")
    assert '"VimForImageClassification"' in (tmp_path / "ours" / "config.json").read_text()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"pixel_values": None}, InputError, r"explain\(\) got no input; give exactly one of a picture"),
        ({"pixel_values": torch.zeros(1, 3, 8, 16)}, InputError, r"shape \(1, 3, 8, 16\), and this model takes \(B, 3"),
        ({"pixel_values": torch.zeros(1, 3, 16, 16).long()}, InputError, "expected a float tensor"),
        ({"pixel_values": torch.full((1, 3, 16, 16), torch.nan)}, InputError, "NaN"),
        ({"target": 5}, TargetError, r"target=5 is out of range: this model's class ids are 0\.\.4"),
        ({"target": "tabby"}, TargetError, "'tabby' is no class of this model"),
        ({"method": "latim"}, OptionError, "reads in both"),
        ({"method": "smoothgrad", "gamma": 0.5}, OptionError, "'smoothgrad' has none"),
        ({"gamma": -1}, OptionError, "gamma=-1 is not allowed"),
        ({"gamma_on": "head"}, OptionError, "gamma_on='head' is not allowed"),
        ({"method": "occlusion", "baseline": "zero"}, OptionError, r"baseline='zero' is not allowed\. Give one of"),
        ({"method": "random", "contrast": 1}, OptionError, "contrast=1"),
        ({"chunk_size": 3}, OptionError, r"explain\(\) got \['chunk_size'\]"),
    ],
)
def test_what_cannot_be_explained_is_refused(options, error, match):
    model = explainable()
    with pytest.raises(error, match=match):
        model.explain(**{"pixel_values": pixels_for(model), **options})
