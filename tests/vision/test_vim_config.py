"""``VimConfig``: sizes that follow from others, values that are refused, the way through JSON."""

import json

import pytest
from small_vim import KINDS, SIZES
from transformers import AutoConfig

from hf_mambalrp import VimConfig, VimModel
from hf_mambalrp.errors import OptionError


def test_the_defaults_are_vim_tinys():
    config = VimConfig()
    assert (config.image_size, config.patch_size, config.stride, config.num_channels) == (224, 16, 16, 3)
    assert (config.hidden_size, config.num_hidden_layers, config.state_size, config.intermediate_size) == (
        192,
        24,
        16,
        384,
    )
    assert (config.time_step_rank, config.conv_kernel, config.class_token, config.divide_out) == (12, 4, "middle", True)
    assert (config.num_patches, config.sequence_length, config.class_token_positions) == (196, 197, (98,))
    fine = VimConfig(stride=8)
    assert (fine.grid_size, fine.sequence_length, fine.class_token_positions) == (27, 730, (364,))
    assert VimConfig(hidden_size=100).time_step_rank == 7  # ceil(D / 16)


def test_spread_class_tokens_stand_as_in_mamba_r():
    config = VimConfig(class_token="spread", num_class_tokens=12, neck_reduction=2, hidden_size=384)
    assert config.class_token_positions == tuple(range(15, 196, 16))  # each behind 15 of 196 patches, and 16 remain
    assert (config.sequence_length, config.pooled_size) == (208, 12 * 192)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"image_size": 0}, "image_size=0.*from 1 on"),
        ({"hidden_size": "wide"}, "hidden_size='wide'"),
        ({"num_hidden_layers": 2.0}, r"num_hidden_layers=2\.0"),
        ({"state_size": True}, "state_size=True"),
        ({"time_step_rank": "many"}, "time_step_rank='many'.*or \"auto\""),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon=0"),
        ({"divide_out": 1}, "divide_out=1.*True or False"),
        ({"patch_size": 300}, "patch_size=300 and image_size=224"),
        ({"stride": 17}, "stride=17, patch_size=16.*stride <= patch_size"),
        ({"class_token": "last"}, "class_token='last'.*middle.*first.*spread"),
        ({"num_class_tokens": 2}, "num_class_tokens=2.*class_token='middle'.*'spread'"),
        ({"class_token": "first", "neck_reduction": 2}, "neck_reduction=2.*class_token='first'"),
        ({"class_token": "spread", "num_class_tokens": 197}, "num_class_tokens=197 among 196"),
        ({"class_token": "spread", "num_class_tokens": 3, "neck_reduction": 2}, "neck_reduction=2, which does not"),
    ],
)
def test_what_describes_no_model_is_refused(wrong, said):
    with pytest.raises(OptionError, match=said):
        VimConfig(**wrong)


def test_a_value_that_was_set_later_is_refused_by_the_model():
    config = VimConfig(**SIZES)
    config.stride = 9
    with pytest.raises(OptionError, match="stride=9"):
        VimModel(config)


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_is_read_back_from_json(kind, tmp_path):
    config = VimConfig(**{**SIZES, **KINDS[kind], "num_labels": 3, "id2label": {0: "a", 1: "b", 2: "c"}})
    config.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["model_type"] == "vim"
    assert {name: content[name] for name in KINDS[kind]} == KINDS[kind]
    for read in (VimConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(read) is VimConfig
        assert read.to_dict() | {"_name_or_path": ""} == config.to_dict()
        assert read.id2label == {0: "a", 1: "b", 2: "c"}
