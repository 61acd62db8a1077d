"""The training script of the vision model on a made-up data set: its forward, its scan, what a run writes."""

import json

import pytest
import torch
from mini_fashion import example_modules, write_mini_fashion
from transformers import AutoImageProcessor

from hf_mambalrp import VimForImageClassification

modules = pytest.fixture(scope="module", autouse=True)(example_modules)
SMALL = ["--hidden-size", "16", "--num-hidden-layers", "2", "--batch-size", "4", "--samples", "6"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_mini_fashion(tmp_path_factory.mktemp("mini"))


def small_model(**options):
    """Its norms, skips, biases and decays are not those of a new model, so that each of them is seen."""
    import train

    model = train.build_model(train.Settings(hidden_size=16, num_hidden_layers=2, **options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("stride", [8, 4])
def test_the_fast_forward_and_its_gradients_are_the_model_s(stride):
    from fast_forward import logits, scan_plain

    model, images = small_model(stride=stride), torch.randn(2, 3, 64, 64)
    fast, own = logits(model, images, scan_plain), model(images).logits
    torch.testing.assert_close(fast, own, rtol=1e-4, atol=1e-5)
    weights = list(model.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(fast.sin().sum(), weights), torch.autograd.grad(own.sin().sum(), weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("channels", "states"), [(12, 8), (80, 4)])
def test_the_kernels_compute_the_scan_and_its_gradients(channels, states):
    from fast_forward import scan_plain
    from scan_triton import scan_triton

    device = "cuda" if torch.cuda.is_available() else "cpu"  # the interpreter runs them on the CPU
    shapes = [(2, 3, 9, channels)] * 2 + [(2, channels, states)] + [(2, 3, 9, states)] * 2
    u, dt, A, B, C = (torch.randn(shape, device=device) for shape in shapes)
    arguments = [x.requires_grad_() for x in (u, dt.abs(), -A.abs(), B, C)]
    grad = torch.randn_like(u)
    found, expected = scan_triton(*arguments), scan_plain(*arguments)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(
        torch.autograd.grad(found, arguments, grad), torch.autograd.grad(expected, arguments, grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_what_the_model_is_told_is_which_classes_there_are():
    from train import named

    assert named(torch.tensor([[3, -1], [0, 9]])).tolist() == [
        [0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    ]


def test_scenes_become_harder_and_end_as_they_are_tested():
    from train import Progress, Settings

    settings = Settings()
    start, middle, end = (Progress.at(share, settings) for share in (0.0, 0.5, 1.0))
    assert start == (0.0, 0.0, 1.0, 0.0)
    assert middle[1:] == (1.0, 0.0, 1.0)
    assert end[1:] == (1.0, 0.0, 0.0)
    rates = [Progress.at(share, settings).lr for share in (0.01, 0.02, settings.warm_up)]
    assert rates == sorted(rates)
    assert 0 < end.lr < middle.lr < rates[-1] <= settings.lr


def test_some_steps_on_one_batch_learn_it(data):
    from fast_forward import scan_plain
    from train import Progress, Run, Settings, gradients, load_garments

    settings = Settings(hidden_size=16, num_hidden_layers=1, batch_size=6, lr=1e-2)
    run = Run(settings, load_garments(data, "train"), device="cpu", scan=scan_plain, graph=False)
    images, targets = run.draw(Progress.at(0, settings))
    losses = []
    for _ in range(60):
        run.model.zero_grad()
        losses.append(gradients(run.model, scan_plain, images, targets).item())
        run.optimizer.step()
    assert losses[-1] < losses[0] / 3


def test_accuracies_count_the_first_guess_and_the_first_two(data):
    """Of a predictor that always says T-shirt and, second, trouser."""
    from train import accuracies, load_garments

    always = torch.tensor([9.0, 8, 0, 0, 0, 0, 0, 0, 0, 0])
    found = accuracies(lambda images: always.expand(len(images), -1), load_garments(data, "test")["test"], 400, seed=0)
    by_class = found["one, by class"]
    assert by_class.pop("T-shirt") == 1
    assert set(by_class.values()) == {0}
    assert 0.06 < found["one"] < 0.14  # one class in ten
    assert 0.005 < found["two"] < 0.05  # one pair in forty-five


def test_a_run_writes_a_model_that_loads_and_goes_on_where_it_was(data, tmp_path):
    import train

    def run(seconds, *more):
        train.main(["--data", str(data), "--output", str(tmp_path), "--seconds", str(seconds), *SMALL, *more])
        return json.loads((tmp_path / "training.json").read_text())

    first = run(1)
    assert first["steps"] >= 1
    assert first["scenes"] == 4 * first["steps"]
    assert {"one", "two", "one, by class"} <= set(first["test"])
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["steps"] == first["steps"]
    model = VimForImageClassification.from_pretrained(tmp_path / "model").eval()
    assert model.config.id2label[9] == "ankle boot"
    assert model.config.problem_type == "multi_label_classification"
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, kept["average"][name].cpu())

    again = run(first["seconds"] + 1)
    assert again["validation"][: len(first["validation"])] == first["validation"]
    assert again["steps"] > first["steps"]
    assert again["seconds"] >= first["seconds"] + 1
    with pytest.raises(SystemExit, match="same settings"):
        run(3, "--lr", "0.5")


def test_the_image_processor_is_what_training_did(tmp_path):
    from train import Settings, build_model, pixel_values, processor_of

    processor_of(build_model(Settings(num_hidden_layers=1)).config).save_pretrained(tmp_path)
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    found = processor([image.permute(1, 2, 0).numpy() for image in images], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(found, pixel_values(images))
