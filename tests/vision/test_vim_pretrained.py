"""Vision Mamba among transformers' models: loading and saving, Auto classes, losses, Trainer, pipeline, bad input."""

import copy
import subprocess
import sys

import numpy
import pytest
import torch
from PIL import Image
from small_vim import KINDS, pixels_for, small_vim
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    BitImageProcessor,
    Trainer,
    TrainingArguments,
    pipeline,
)

from hf_mambalrp import VimConfig, VimForImageClassification, VimModel
from hf_mambalrp.errors import InputError
from hf_mambalrp.models.vim.processor import image_processor


def logits(model, pixels):
    with torch.no_grad():
        return model(pixels).logits


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_read_back_bit_for_bit(kind, tmp_path):
    model = small_vim(kind)
    pixels = pixels_for(model)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    for loader in (VimForImageClassification, AutoModelForImageClassification):
        read, info = loader.from_pretrained(tmp_path, output_loading_info=True)
        assert type(read) is VimForImageClassification
        assert not any(info[keys] for keys in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert torch.equal(logits(read, pixels), logits(model, pixels))
    for loader in (VimModel, AutoModel):
        backbone = loader.from_pretrained(tmp_path)
        assert type(backbone) is VimModel
        with torch.no_grad():
            assert torch.equal(backbone(pixels).pooler_output, model.vim(pixels).pooler_output)


def test_names_are_the_released_ones_behind_vim():
    per_layer = ["norm.weight", *(f"mixer.{name}" for name in ("in_proj.weight", "out_proj.weight"))]
    for suffix in ("", "_b"):
        per_layer += [f"mixer.A{suffix}_log", f"mixer.D{suffix}", f"mixer.x_proj{suffix}.weight"]
        per_layer += [f"mixer.{name}{suffix}.{leaf}" for name in ("conv1d", "dt_proj") for leaf in ("weight", "bias")]
    released = ["cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm_f.weight"]
    released += [f"layers.{i}.{name}" for i in range(24) for name in per_layer]
    with torch.device("meta"):
        model = VimForImageClassification(VimConfig(num_labels=1000))
    assert set(model.state_dict()) == {f"vim.{name}" for name in released} | {"head.weight", "head.bias"}
    assert len(model.state_dict()) == 415
    sizes = {192: 7_148_008, 384: 25_796_584, 768: 97_598_440}  # of Ti, S and B as released
    for hidden, weights in sizes.items():
        with torch.device("meta"):
            model = VimForImageClassification(VimConfig(hidden_size=hidden, num_labels=1000))
        assert sum(parameter.numel() for parameter in model.parameters()) == weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_loading_in_a_dtype_on_a_device(dtype, tmp_path):
    model = small_vim()
    model.save_pretrained(tmp_path)
    for options in ({"device_map": {"": "cpu"}}, {"device_map": "cpu"}, {}):
        read = VimForImageClassification.from_pretrained(tmp_path, dtype=dtype, **options)
        assert {parameter.dtype for parameter in read.parameters()} == {dtype}
        assert torch.equal(logits(read, pixels_for(model)), logits(model.to(dtype), pixels_for(model)))


def test_layers_on_disk(tmp_path):
    model = small_vim()
    model.save_pretrained(tmp_path / "model")
    places = {"vim.cls_token": "cpu", "vim.pos_embed": "cpu", "vim.patch_embed": "cpu", "vim.norm_f": "cpu"}
    places |= {"vim.layers.0": "cpu", "vim.layers.1": "disk", "head": "cpu"}
    read = VimForImageClassification.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "offload"
    )
    assert read.vim.layers[1].mixer.A_log.is_meta
    assert torch.equal(logits(read, pixels_for(model)), logits(model, pixels_for(model)))


def test_a_new_model_is_drawn_as_released():
    torch.manual_seed(0)
    config = VimConfig(hidden_size=64, num_hidden_layers=4, image_size=64, num_labels=50)
    model = VimForImageClassification(config)
    assert_new(model, config)


def test_what_a_checkpoint_lacks_is_drawn_and_the_rest_stays(tmp_path):
    model = small_vim(num_channels=3)
    model.save_pretrained(tmp_path)
    other = VimForImageClassification.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert other.head.weight.shape == (7, 12)
    assert 0 < other.head.weight.std() < 0.05
    assert not other.head.bias.any()
    for name, parameter in model.vim.named_parameters():
        assert torch.equal(parameter, other.vim.get_parameter(name)), name
    weights = model.state_dict()
    del weights["vim.layers.0.mixer.dt_proj.bias"], weights["vim.cls_token"]
    kept = set(weights)
    model.save_pretrained(tmp_path, state_dict=weights)
    partly = VimForImageClassification.from_pretrained(tmp_path)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, partly.get_parameter(name)) == (name in kept), name
    assert F.softplus(partly.vim.layers[0].mixer.dt_proj.bias).min() >= 1e-4
    assert F.softplus(partly.vim.layers[0].mixer.dt_proj.bias).max() <= 0.1 + 1e-6


@torch.no_grad()
def assert_new(model, config):
    def spread(parameter, std, cut):
        assert parameter.std() == pytest.approx(std, rel=0.1)
        assert parameter.abs().max() <= cut

    vim, D, E = model.vim, config.hidden_size, config.intermediate_size
    spread(model.head.weight, 0.02, 2)
    spread(vim.pos_embed, 0.02, 2)
    assert vim.cls_token.any()
    fan_in = vim.patch_embed.proj.weight[0].numel()
    spread(vim.patch_embed.proj.weight, fan_in**-0.5, 2.3 * fan_in**-0.5)
    for zeros in (model.head.bias, vim.patch_embed.proj.bias):
        assert not zeros.any()
    for layer in vim.layers:
        mixer = layer.mixer
        assert torch.equal(layer.norm.weight, torch.ones(D))
        spread(mixer.in_proj.weight, (3 * D) ** -0.5, D**-0.5)
        spread(mixer.out_proj.weight, (3 * E * 4) ** -0.5, (E * 4) ** -0.5)
        for suffix in ("", "_b"):
            spread(mixer.get_parameter(f"x_proj{suffix}.weight"), (3 * E) ** -0.5, E**-0.5)
            spread(mixer.get_parameter(f"dt_proj{suffix}.weight"), (3 * 4) ** -0.5, 4**-0.5)
            spread(mixer.get_parameter(f"conv1d{suffix}.weight"), (3 * 4) ** -0.5, 4**-0.5)
            A = -torch.exp(mixer.get_parameter(f"A{suffix}_log"))
            torch.testing.assert_close(A, -torch.arange(1.0, 17).expand(E, 16))
            assert torch.equal(mixer.get_parameter(f"D{suffix}"), torch.ones(E))
            dt = F.softplus(mixer.get_parameter(f"dt_proj{suffix}.bias"))
            assert dt.min() >= 1e-3 - 1e-6
            assert dt.max() <= 0.1 + 1e-6
            assert dt.log().std() == pytest.approx(numpy.log(100) / 12**0.5, rel=0.2)


@pytest.mark.parametrize(
    ("options", "labels", "loss"),
    [
        ({}, torch.tensor([4, 0]), F.cross_entropy),
        (
            {},
            torch.tensor([[1.0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]),
            F.binary_cross_entropy_with_logits,
        ),
        ({"num_labels": 1}, torch.tensor([0.5, 2.0]), lambda found, labels: F.mse_loss(found[:, 0], labels)),
        (
            {"problem_type": "regression"},
            torch.rand(2, 5),
            F.mse_loss,
        ),
    ],
)
def test_the_loss_is_that_of_the_problem_type(options, labels, loss):
    model = small_vim(**options)
    pixels = pixels_for(model)
    outputs = model(pixels, labels=labels)
    torch.testing.assert_close(outputs.loss, loss(outputs.logits, labels))
    as_tuple = model(pixels, labels=labels, return_dict=False, output_hidden_states=True)
    assert [type(part) for part in as_tuple] == [torch.Tensor, torch.Tensor, tuple]
    assert torch.equal(as_tuple[1], outputs.logits)
    assert outputs.hidden_states is None


def test_no_labels_no_head():
    model = small_vim(num_labels=0)
    assert type(model.head) is nn.Identity
    assert torch.equal(model(pixels_for(model)).logits, model.vim(pixels_for(model)).pooler_output)


def test_checkpointing_has_the_same_gradients():
    gradients = []
    plain = small_vim().train()
    for reentrant in (None, False, True):
        model = copy.deepcopy(plain)
        if reentrant is not None:
            enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
            enable({"use_reentrant": reentrant})  # its name before transformers 6 and after
        seen = []
        model.vim.layers[0].mixer.in_proj.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        model(pixels_for(model), labels=torch.tensor([1, 2])).loss.backward()
        assert len(seen) == (1 if reentrant is None else 2)
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for others in gradients[1:]:
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(others[name], gradient)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (None, "without pixel_values.*image processor"),
        (torch.zeros(3, 16, 16), r"shape \(3, 16, 16\).*images, 3 channels"),
        (torch.zeros(1, 1, 16, 16), r"shape \(1, 1, 16, 16\).*3 channels"),
        (torch.zeros(0, 3, 16, 16), r"shape \(0, 3, 16, 16\)"),
        (torch.zeros(1, 3, 16, 20), "16 x 20 pixels.*16 x 16.*interpolate_pos_encoding=True"),
    ],
)
def test_pixels_of_another_shape_are_refused(pixels, said):
    model = small_vim()
    for call in (model, model.vim):
        with pytest.raises(InputError, match=said):
            call(pixels)


def test_an_image_below_a_patch_is_refused():
    with pytest.raises(InputError, match="16 x 3 pixels, less than a patch of 4 x 4"):
        small_vim()(torch.zeros(1, 3, 16, 3), interpolate_pos_encoding=True)


class Colours(torch.utils.data.Dataset):
    """Images of one of three colours, with noise."""

    def __len__(self):
        return 48

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        pixels = 0.1 * torch.randn(3, 16, 16, generator=generator)
        pixels[index % 3] += 1
        return {"pixel_values": pixels, "labels": index % 3}


def test_trainer_learns_colours(tmp_path):
    sizes = {"image_size": 16, "patch_size": 4, "hidden_size": 16, "state_size": 4}
    model = VimForImageClassification(VimConfig(**sizes, num_hidden_layers=2, num_labels=3))
    arguments = TrainingArguments(
        output_dir=tmp_path,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        num_train_epochs=10,
        learning_rate=1e-2,
        report_to=[],
        logging_strategy="no",
        use_cpu=True,
        save_strategy="epoch",
        save_total_limit=1,
    )
    correct = lambda found: {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}  # noqa: E731
    trainer = Trainer(model, arguments, train_dataset=Colours(), eval_dataset=Colours(), compute_metrics=correct)
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] == 1
    (saved,) = tmp_path.glob("checkpoint-*")
    read = VimForImageClassification.from_pretrained(saved)
    pixels = torch.stack([Colours()[i]["pixel_values"] for i in range(3)])
    assert logits(read, pixels).argmax(-1).tolist() == [0, 1, 2]


def photo(height, width, seed=0):
    return Image.fromarray(numpy.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=numpy.uint8))


@pytest.mark.parametrize(("height", "width"), [(300, 400), (500, 260)])
def test_the_processor_does_what_the_released_evaluation_does(height, width):
    image = photo(height, width)
    scale = 256 / min(height, width)
    resized = image.resize((int(width * scale), int(height * scale)), Image.BICUBIC)
    left, top = (resized.width - 224) / 2, (resized.height - 224) / 2
    # torchvision's crop rounds its corner, halves to even
    crop = resized.crop((round(left), round(top), round(left) + 224, round(top) + 224))
    expected = (numpy.asarray(crop) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    found = image_processor(VimConfig())(image, return_tensors="pt").pixel_values
    assert found.shape == (1, 3, 224, 224)
    assert numpy.abs(found[0].permute(1, 2, 0).numpy() - expected).max() < 1e-5


def test_the_pipeline_of_a_folder(tmp_path):
    names = dict(enumerate(["cat", "dog", "hat", "cup", "map"]))
    model = small_vim(id2label=names, label2id={name: i for i, name in names.items()})
    model.save_pretrained(tmp_path)
    process = image_processor(model.config, size={"shortest_edge": 16})
    process.save_pretrained(tmp_path)
    found = pipeline("image-classification", str(tmp_path))(photo(30, 40), top_k=5)
    shares = logits(model, process(photo(30, 40), return_tensors="pt").pixel_values)[0].softmax(-1)
    assert {entry["label"] for entry in found} == set(names.values())
    for entry in found:
        assert entry["score"] == pytest.approx(float(shares[model.config.label2id[entry["label"]]]), abs=1e-5)
    assert type(BitImageProcessor.from_pretrained(tmp_path)) is type(process)


def test_auto_classes_find_it_where_transformers_was_there_before_the_package(tmp_path):
    """In the other order: test_structure.py."""
    small_vim().save_pretrained(tmp_path)
    code = (
        "import sys, transformers.models.auto.modeling_auto, hf_mambalrp\n"
        "early = [name for name in sys.modules if name.startswith('hf_mambalrp.models.vim')]\n"
        "from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, MambaConfig\n"
        "from transformers import AutoModelForSequenceClassification\n"
        f"folder = {str(tmp_path)!r}\n"
        "found = [AutoConfig.from_pretrained(folder), AutoModel.from_pretrained(folder)]\n"
        "found.append(AutoModelForImageClassification.from_pretrained(folder))\n"
        "mamba = MambaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1)\n"
        "found.append(AutoModelForSequenceClassification.from_config(mamba))\n"
        "print('found', early, [type(thing).__name__ for thing in found])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        result.stdout.splitlines()[-1] == "found [] ['VimConfig', 'VimModel', 'VimForImageClassification', "
        "'MambaForSequenceClassification']"
    )
