"""Released checkpoints: what they hold is read with the oracle's logits, asked for, or refused by name.

Nothing can be downloaded here, so files are written with the names, the nesting and the settings of the released ones.
"""

import argparse
import os
from pathlib import Path

import pytest
import torch
from oracle_vim import vim_forward
from small_vim import pixels_for, released, small_vim
from tolerances import RELATIVE

from hf_mambalrp import VimForImageClassification, VimModel
from hf_mambalrp.errors import CheckpointError, OptionError, UnknownArchitectureError

NAME = "vim_tiny_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2"
"""What Vim's training calls the released model."""
STRIDED = NAME.replace("patch16", "patch16_stride8")


def checkpoint(weights, ema=None, **settings):
    """The dictionary that Vim's training saves: weights four times over, schedule, epoch, settings."""
    state = {i: {"step": torch.tensor(9.0), "exp_avg": value} for i, value in enumerate(weights.values())}
    return {
        "model": weights,
        "optimizer": {"state": state, "param_groups": [{"lr": 1e-5, "betas": (0.9, 0.999), "params": list(state)}]},
        "lr_scheduler": {"base_values": [1e-5], "metric": None, "noise_range_t": None},
        "epoch": 299,
        "model_ema": ema,
        "scaler": "none",
        "args": argparse.Namespace(**{"model": NAME, "input_size": 16, "lr": 1e-3, "drop": 0.0, **settings}),
    }


def written(path, content):
    torch.save(content, path)
    return path


def assert_the_oracles_logits(model, weights, pixels=None):
    pixels = pixels_for(model) if pixels is None else pixels
    config = model.config
    oracle = vim_forward(weights, pixels, config.stride, config.class_token, config.divide_out).logits
    with torch.no_grad():
        found = model(pixels).logits
    assert float((found - oracle).norm() / oracle.norm()) < RELATIVE[torch.float32]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("vim", NAME), ("vim, stride 2", STRIDED), ("vim, odd grid", NAME), ("vim, not halved", NAME[:-5])],
)
def test_sizes_are_read_off_the_weights(kind, name, tmp_path):
    original = small_vim(kind, time_step_rank=2, conv_kernel=3)
    weights = released(original)
    assert not any(key.startswith("vim.") for key in weights)
    file = written(tmp_path / "best.pth", checkpoint(weights, model=name, input_size=original.config.image_size))
    for source in (file, str(file), tmp_path):
        model, info = VimForImageClassification.from_pretrained(source, output_loading_info=True)
        assert not any(info[keys] for keys in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert not model.training
        assert model.config.name_or_path == str(source)
        for size in ("image_size", "patch_size", "stride", "num_channels", "hidden_size", "num_hidden_layers"):
            assert getattr(model.config, size) == getattr(original.config, size)
        for size in ("state_size", "conv_kernel", "expand", "time_step_rank", "class_token", "divide_out"):
            assert getattr(model.config, size) == getattr(original.config, size)
        assert model.config.num_labels == 5
        assert_the_oracles_logits(model, weights)


def test_both_released_grids():
    """224 pixels in patches of 16 at strides 16 and 8, with the released widths; only the depth is not."""
    from hf_mambalrp.models.vim.released import vim_config

    base = "vim_base_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_with_middle_cls_token_div2"
    for stride, name, grid, place in [(16, NAME, 14, 98), (16, base, 14, 98), (8, STRIDED, 27, 364)]:
        with torch.device("meta"):
            weights = released(
                small_vim(image_size=224, patch_size=16, stride=stride, hidden_size=192, state_size=16, num_labels=1000)
            )
        config = vim_config(weights, argparse.Namespace(model=name, input_size=224), "best.pth")
        assert (config.stride, config.image_size, config.grid_size) == (stride, 224, grid)
        assert (config.class_token_positions, config.time_step_rank, config.divide_out) == ((place,), 12, True)


def test_the_moving_average_is_offered(tmp_path):
    weights, average = released(small_vim()), released(small_vim())
    file = written(tmp_path / "vim_b_midclstok_81p9acc.pth", checkpoint(weights, ema=average))
    assert_the_oracles_logits(VimForImageClassification.from_pretrained(file), weights)
    assert_the_oracles_logits(VimForImageClassification.from_pretrained(file, weights="model_ema"), average)
    with pytest.raises(OptionError, match=r"weights='best'.*\['model', 'model_ema'\]"):
        VimForImageClassification.from_pretrained(file, weights="best")
    written(file, checkpoint(weights))
    with pytest.raises(OptionError, match=r"weights='model_ema'.*\['model'\]"):
        VimForImageClassification.from_pretrained(file, weights="model_ema")


@pytest.mark.parametrize("kind", ["mamba-r", "mamba-r, no neck"])
def test_mamba_r(kind, tmp_path):
    original = small_vim(kind)
    settings = {"model": "mambar_small_patch16_224"}
    file = written(tmp_path / "mambar_small_patch16_224.pth", checkpoint(released(original), **settings))
    bare = written(tmp_path / "bare.pth", released(original))
    for source in (file, bare):
        model = VimForImageClassification.from_pretrained(source)
        for size in ("class_token", "num_class_tokens", "neck_reduction", "divide_out", "stride", "image_size"):
            assert getattr(model.config, size) == getattr(original.config, size)
        assert_the_oracles_logits(model, released(original))


def test_videomamba(tmp_path):
    weights = released(small_vim("videomamba"))
    named = written(tmp_path / "videomamba_t16_in1k_res224.pth", {"model": weights})
    settings = written(tmp_path / "best.pth", checkpoint(weights, model="videomamba_tiny"))
    for file, options in [(named, {"stride": 4}), (settings, {})]:
        model = VimForImageClassification.from_pretrained(file, **options)
        assert (model.config.class_token, model.config.divide_out) == ("first", False)
        assert_the_oracles_logits(model, weights)


def test_what_weights_cannot_say_is_asked_for(tmp_path):
    weights = released(small_vim("vim, stride 2"))
    file = written(tmp_path / "weights.pth", weights)
    with pytest.raises(OptionError, match=r"stride of .*weights.pth is said nowhere: 7 x 7 patches of 4 pixels"):
        VimForImageClassification.from_pretrained(file)
    with pytest.raises(OptionError, match=r"class_token='middle', divide_out=True for Vim.*VideoMamba"):
        VimForImageClassification.from_pretrained(file, stride=2)
    with pytest.raises(OptionError, match="halved"):
        VimForImageClassification.from_pretrained(file, stride=2, class_token="middle")
    for layout in ({"class_token": "middle", "divide_out": True}, {"class_token": "first", "divide_out": False}):
        model = VimForImageClassification.from_pretrained(file, stride=2, **layout)
        assert model.config.image_size == 16
        assert_the_oracles_logits(model, weights)
    named = written(tmp_path / "vim_t_midclstok_ft_78p3acc.pth", weights)
    model = VimForImageClassification.from_pretrained(named, stride=2)
    assert (model.config.class_token, model.config.divide_out) == ("middle", True)


def test_a_stride_that_contradicts_the_training_is_refused(tmp_path):
    file = written(tmp_path / "best.pth", checkpoint(released(small_vim("vim, stride 2")), model=STRIDED))
    with pytest.raises(OptionError, match=r"stride=4 does not fit .*16 pixels and has 7 x 7 positions"):
        VimForImageClassification.from_pretrained(file, stride=4)


def test_an_image_with_pixels_behind_the_last_patch(tmp_path):
    whole = written(tmp_path / "whole.pth", checkpoint(released(small_vim(image_size=18)), input_size=18))
    model = VimForImageClassification.from_pretrained(whole)
    assert (model.config.image_size, model.config.stride) == (18, 4)
    fine = written(tmp_path / "fine.pth", checkpoint(released(small_vim(image_size=17, stride=2)), input_size=17))
    with pytest.raises(OptionError, match="said nowhere"):
        VimForImageClassification.from_pretrained(fine)
    model = VimForImageClassification.from_pretrained(fine, stride=2)
    assert (model.config.image_size, model.config.stride) == (17, 2)


@pytest.mark.parametrize("kind", ["vim", "videomamba", "mamba-r"])
def test_another_image_size_interpolates_positions_as_the_forward_does(kind, tmp_path):
    original = small_vim(kind)
    name = {"vim": NAME, "videomamba": "videomamba_tiny", "mamba-r": "mambar_small_patch16_224"}[kind]
    file = written(tmp_path / "best.pth", checkpoint(released(original), model=name))
    model = VimForImageClassification.from_pretrained(file, image_size=24)
    assert model.config.image_size == 24
    pixels = pixels_for(model)
    with torch.no_grad():
        expected = original(pixels, interpolate_pos_encoding=True).logits
        torch.testing.assert_close(model(pixels).logits, expected)
    model.save_pretrained(tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(
            VimForImageClassification.from_pretrained(tmp_path / "saved")(pixels).logits, model(pixels).logits
        )


def test_settings_of_the_configuration_and_of_loading(tmp_path):
    weights = released(small_vim())
    file = written(tmp_path / "best.pth", checkpoint(weights))
    names = dict(enumerate("abcde"))
    options = {"id2label": names, "problem_type": "single_label_classification", "dtype": torch.float64}
    model = VimForImageClassification.from_pretrained(file, **options, device_map={"": "cpu"})
    assert (model.config.id2label, model.config.problem_type, model.dtype) == (
        names,
        "single_label_classification",
        torch.float64,
    )
    assert_the_oracles_logits(VimForImageClassification.from_pretrained(file, config=model.config), weights)
    backbone, info = VimModel.from_pretrained(file, output_loading_info=True)
    assert not any(info[keys] for keys in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    oracle = vim_forward(weights, pixels_for(model), 4)
    with torch.no_grad():
        torch.testing.assert_close(backbone(pixels_for(model)).pooler_output.double(), oracle.pooled, atol=1e-5, rtol=0)


def without(weights, *names):
    return {name: value for name, value in weights.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w | {"rope.freqs_cos": torch.ones(4, 12)}, r"rotary positions, \['rope.freqs_cos'\]"),
        (lambda w: without(w, "cls_token"), r"no Vision Mamba .*lacks \['cls_token'\]"),
        (lambda w: without(w, "layers.0.mixer.A_b_log"), r"of two directions.*lacks \['layers.0.mixer.A_b_log'\]"),
        (lambda w: w | {"cls_token_tail": torch.ones(1, 1, 12)}, r"1 unexpected.*cls_token_tail.*two class tokens"),
        (lambda w: w | {"layers.1.mixer.gamma": torch.ones(12)}, r"1 unexpected.*mixer\.gamma.*Layer scale"),
        (lambda w: w | {"norm_f.bias": torch.ones(12)}, r"1 unexpected.*norm_f\.bias"),
        (lambda w: without(w, "layers.1.mixer.conv1d_b.bias"), r"1 missing.*layers\.1\.mixer\.conv1d_b\.bias"),
        (lambda w: without(w, "head.weight", "head.bias"), r"2 missing.*head\.bias"),
        (lambda w: w | {"layers.1.mixer.D": torch.ones(9)}, r"1 of another shape.*layers\.1\.mixer\.D"),
        (lambda w: w | {"patch_embed.proj.weight": torch.ones(12, 3, 1, 4, 4)}, r"\(1, 4, 4\), as a model of videos"),
        (lambda w: w | {"pos_embed": torch.ones(1, 16, 12)}, "15 patches, which are no square"),
    ],
)
def test_another_network_is_refused_by_what_does_not_fit(change, said, tmp_path):
    file = written(tmp_path / "best.pth", checkpoint(change(released(small_vim()))))
    with pytest.raises(UnknownArchitectureError, match=said):
        VimForImageClassification.from_pretrained(file)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("made_by_the_checkpoint",)


def test_a_file_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = released(small_vim())
    for content in (checkpoint(weights, hook=Harmful()), {"model": weights, "extra": Harmful()}, Harmful()):
        file = written(tmp_path / "best.pth", content)
        with pytest.raises(CheckpointError, match=r"best\.pth is damaged or holds more than weights"):
            VimForImageClassification.from_pretrained(file)
    assert not Path("made_by_the_checkpoint").exists()
    with pytest.raises(Exception, match="argparse"):  # allowed for the file alone
        torch.load(written(file, checkpoint(weights)), weights_only=True)


@pytest.mark.parametrize("content", [["a list"], {"model": {"a": 1}}, {"model": [torch.ones(1)]}])
def test_a_file_of_something_else(content, tmp_path):
    with pytest.raises(CheckpointError, match="something else than a dictionary of weights"):
        VimForImageClassification.from_pretrained(written(tmp_path / "best.pth", content))


def test_damaged_missing_and_several_files(tmp_path):
    weights = released(small_vim())
    file = written(tmp_path / "best.pth", checkpoint(weights))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        VimForImageClassification.from_pretrained(file)
    for missing in (tmp_path / "none.pth", "none.pth", "hustvl/Vim-tiny-midclstok/vim_t_midclstok_76p1acc.pth"):
        with pytest.raises(CheckpointError, match=r"is no file here.*owner/name/file\.pth"):
            VimForImageClassification.from_pretrained(missing, local_files_only=True)
    written(tmp_path / "last.pth", checkpoint(weights))
    with pytest.raises(CheckpointError, match=r"several checkpoints, \['best.pth', 'last.pth'\]"):
        VimForImageClassification.from_pretrained(tmp_path)
    small_vim().save_pretrained(tmp_path)  # whose own files then come first
    assert VimForImageClassification.from_pretrained(tmp_path).config.num_labels == 5


def test_a_file_of_a_repository_in_the_hubs_cache(tmp_path):
    repository = tmp_path / "models--hustvl--Vim-tiny-midclstok"
    folder = repository / "snapshots" / ("0" * 40) / "inner"
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    weights = released(small_vim())
    written(folder / "vim_t_midclstok_76p1acc.pth", {"model": weights})
    source = "hustvl/Vim-tiny-midclstok/inner/vim_t_midclstok_76p1acc.pth"
    model = VimForImageClassification.from_pretrained(source, cache_dir=tmp_path, local_files_only=True, stride=4)
    assert model.config.name_or_path == source
    assert_the_oracles_logits(model, weights)
