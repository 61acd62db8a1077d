"""mamba_ssm's own format is read with equal logits, or refused; its live models are explained through a twin.

Expected logits are those of the stand-in's own forward.
"""

import copy
import json
import shutil

import pytest
import torch
from mamba_ssm_stand_in import MambaConfig, MambaLMHeadModel
from safetensors.torch import save_file
from small import word_tokenizer
from transformers import AutoModelForCausalLM, Mamba2ForCausalLM, MambaForCausalLM, PreTrainedModel

from hf_mambalrp import (
    AutoMambaLRPForCausalLM,
    AutoMambaLRPForSequenceClassification,
    Mamba2LRPForCausalLM,
    MambaLRPForCausalLM,
    MambaLRPForSequenceClassification,
    make_explainable,
)
from hf_mambalrp.errors import (
    CheckpointError,
    MambaLRPError,
    MissingHeadError,
    MissingTokenizerError,
    UnknownArchitectureError,
)
from hf_mambalrp.models.state_spaces import (
    _norm_is_grouped,
    transformers_config,
    transformers_state_dict,
    twin,
)

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])
MAMBA = {"d_state": 3}
MAMBA2 = {"layer": "Mamba2", "d_state": 4, "headdim": 4, "chunk_size": 4}
GROUPS = pytest.mark.skipif(not _norm_is_grouped(), reason="this transformers has no norm of groups")
CASES = [
    pytest.param(MAMBA, True, id="mamba"),
    pytest.param(MAMBA, False, id="mamba-untied"),
    pytest.param({"layer": "Mamba1", "dt_rank": 2, "d_conv": 3, "expand": 3, "bias": True}, True, id="mamba-settings"),
    pytest.param({"conv_bias": False, "dt_min": 0.01, "use_fast_path": False}, True, id="mamba-no-bias"),
    pytest.param(MAMBA2, True, id="mamba2"),
    pytest.param(MAMBA2, False, id="mamba2-untied"),
    pytest.param(
        {"layer": "Mamba2", "headdim": 8, "dt_limit": [0.2, 0.9], "bias": True, "chunk_size": 8},
        True,
        id="mamba2-settings",
    ),
    pytest.param({**MAMBA2, "d_conv": 3, "expand": 4, "conv_bias": False, "d_ssm": None}, True, id="mamba2-no-bias"),
    pytest.param({**MAMBA2, "ngroups": 2}, True, id="mamba2-groups", marks=GROUPS),
]
every_case = pytest.mark.parametrize(("mixer", "tied"), CASES)
PUBLISHED = {
    "d_model": 768,
    "n_layer": 24,
    "vocab_size": 50277,
    "ssm_cfg": {},
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": 8,
}
"""config.json of state-spaces/mamba-130m."""
PUBLISHED2 = {
    **PUBLISHED,
    "d_intermediate": 0,
    "ssm_cfg": {"layer": "Mamba2"},
    "attn_layer_idx": [],
    "attn_cfg": {},
    "pad_vocab_size_multiple": 16,
    "tie_embeddings": True,
}
"""config.json of state-spaces/mamba2-130m."""


def live_model(mixer=MAMBA, dtype=None, seed=0, **config):
    torch.manual_seed(seed)
    known = {name: value for name, value in mixer.items() if name not in {"dt_min", "use_fast_path", "d_ssm"}}
    model = MambaLMHeadModel(MambaConfig(ssm_cfg=known, **config), dtype=dtype)
    model.config.ssm_cfg = mixer
    return model


def saved(folder, mixer=MAMBA, **options):
    model = live_model(mixer, **options)
    model.save_pretrained(folder)
    return model


def logits(model):
    with torch.no_grad():
        return copy.deepcopy(model).float()(IDS).logits


def assert_same_logits(model, expected):
    torch.testing.assert_close(logits(model), logits(expected), rtol=1e-4, atol=1e-5)


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_a_config_leaves_out_has_mamba_ssms_default():
    config = transformers_config(PUBLISHED)
    found = {name: getattr(config, name) for name in ("hidden_size", "num_hidden_layers", "vocab_size", "state_size")}
    assert found == {"hidden_size": 768, "num_hidden_layers": 24, "vocab_size": 50280, "state_size": 16}
    assert (config.expand, config.conv_kernel, config.time_step_rank, config.layer_norm_epsilon) == (2, 4, 48, 1e-5)
    assert (config.use_conv_bias, config.use_bias, config.residual_in_fp32) == (True, False, True)
    assert (config.model_type, config.tie_word_embeddings, config.eos_token_id) == ("mamba", True, 0)

    config = transformers_config(PUBLISHED2)
    assert (config.model_type, config.vocab_size, config.hidden_size) == ("mamba2", 50288, 768)
    assert (config.num_heads, config.head_dim, config.n_groups, config.state_size) == (24, 64, 1, 128)
    assert (config.expand, config.conv_kernel, config.chunk_size, config.layer_norm_epsilon) == (2, 4, 256, 1e-5)
    assert tuple(config.time_step_limit) == (0.0, float("inf"))
    assert (config.tie_word_embeddings, config.eos_token_id, config.pad_token_id) == (True, 0, 0)


def test_translating_changes_nothing_that_was_given():
    before = copy.deepcopy(PUBLISHED2)
    transformers_config(PUBLISHED2)
    assert before == PUBLISHED2
    weights = live_model().state_dict()
    names, translated = list(weights), transformers_state_dict(weights)
    assert list(weights) == names
    assert all(found is given for found, given in zip(translated.values(), weights.values(), strict=True))


@every_case
def test_a_checkpoint_has_equal_logits_here_and_saved_in_stock_transformers(tmp_path, mixer, tied):
    live = saved(tmp_path / "live", mixer, tie_embeddings=tied)
    model = AutoMambaLRPForCausalLM.from_pretrained(tmp_path / "live")
    assert type(model) is (Mamba2LRPForCausalLM if mixer.get("layer") == "Mamba2" else MambaLRPForCausalLM)
    assert not model.training
    assert_same_logits(model, live)

    model.save_pretrained(tmp_path / "saved")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert type(stock) is (Mamba2ForCausalLM if mixer.get("layer") == "Mamba2" else MambaForCausalLM)
    assert torch.equal(logits(stock), logits(model))
    assert torch.equal(logits(AutoMambaLRPForCausalLM.from_pretrained(tmp_path / "saved")), logits(model))


@pytest.mark.parametrize("mixer", [MAMBA, MAMBA2])
def test_an_explanation_explains_the_checkpoints_own_logit(tmp_path, mixer):
    live = saved(tmp_path, mixer)
    explanation = AutoMambaLRPForCausalLM.from_pretrained(tmp_path).explain(IDS)
    expected = logits(live)[:, -1]
    assert list(explanation.target) == expected.argmax(-1).tolist()
    torch.testing.assert_close(explanation.score, expected.max(-1).values, rtol=1e-4, atol=1e-5)
    assert explanation.model_id == tmp_path.name


@pytest.mark.parametrize("multiple", [1, 8, 16])
def test_padded_rows_of_the_vocabulary_come_from_the_weights(tmp_path, multiple):
    live = saved(tmp_path, pad_vocab_size_multiple=multiple)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["pad_vocab_size_multiple"], config["tie_embeddings"], config["attn_layer_idx"]  # as in older files
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = MambaLRPForCausalLM.from_pretrained(tmp_path)
    assert model.config.vocab_size == {1: 19, 8: 24, 16: 32}[multiple]
    assert_same_logits(model, live)


@pytest.mark.parametrize("mixer", [MAMBA, MAMBA2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_checkpoints(tmp_path, mixer, dtype):
    live = saved(tmp_path / "live", mixer, dtype=dtype, tie_embeddings=False)
    assert len({weight.dtype for weight in live.parameters()}) == 2  # A_log and D in float32, or D
    exact = AutoMambaLRPForCausalLM.from_pretrained(tmp_path / "live", dtype=torch.float32)
    assert_same_logits(exact, live)
    twin(live).save_pretrained(tmp_path / "stock")  # the same weights in transformers' format, to compare with
    for options in ({}, {"dtype": "auto"}, {"torch_dtype": "auto"}, {"dtype": torch.float64}):
        found, expected = (
            AutoMambaLRPForCausalLM.from_pretrained(tmp_path / name, **options) for name in ("live", "stock")
        )
        assert found.dtype == expected.dtype
        for weight, same in zip(found.parameters(), expected.parameters(), strict=True):
            assert weight.dtype == same.dtype
            assert torch.equal(weight, same)


def test_safetensors_come_first(tmp_path):
    live = saved(tmp_path, seed=1)
    weights = {name: value for name, value in live.state_dict().items() if name != "lm_head.weight"}  # shared memory
    save_file(weights, tmp_path / "model.safetensors")
    other = saved(tmp_path, seed=2)
    assert_same_logits(MambaLRPForCausalLM.from_pretrained(tmp_path), live)
    assert_same_logits(MambaLRPForCausalLM.from_pretrained(tmp_path, use_safetensors=False), other)
    (tmp_path / "pytorch_model.bin").unlink()
    assert_same_logits(MambaLRPForCausalLM.from_pretrained(tmp_path, use_safetensors=True), live)


def test_a_file_of_torch_before_1_6(tmp_path):
    live = saved(tmp_path)
    torch.save(live.state_dict(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert_same_logits(MambaLRPForCausalLM.from_pretrained(tmp_path), live)


@pytest.mark.parametrize("mixer", [MAMBA, MAMBA2])
def test_other_arguments_of_from_pretrained(tmp_path, mixer):
    live = saved(tmp_path, mixer)
    model, info = AutoMambaLRPForCausalLM.from_pretrained(
        str(tmp_path), output_loading_info=True, device_map={"": "cpu"}, use_cache=False, eos_token_id=7
    )
    assert not any(info[keys] for keys in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (model.config.use_cache, model.config.eos_token_id, model.generation_config.eos_token_id) == (False, 7, 7)
    assert model.config._name_or_path == model.name_or_path == str(tmp_path)
    assert_same_logits(model, live)
    own = type(model).from_pretrained(tmp_path, config=model.config)
    assert own.config.eos_token_id == 7
    assert_same_logits(own, live)


def test_a_subfolder_and_the_hubs_cache(tmp_path):
    repository = tmp_path / "cache" / "models--state-spaces--mamba-tiny"
    live = saved(repository / "snapshots" / ("0" * 40) / "inner")
    (repository / "refs").mkdir()
    (repository / "refs" / "first").write_text("0" * 40)
    options = {"cache_dir": tmp_path / "cache", "revision": "first", "subfolder": "inner", "local_files_only": True}
    model = AutoMambaLRPForCausalLM.from_pretrained("state-spaces/mamba-tiny", **options)
    assert_same_logits(model, live)
    assert model.config._name_or_path == "state-spaces/mamba-tiny"
    with pytest.raises(OSError, match=r"connect|mamba-tiny"):
        AutoMambaLRPForCausalLM.from_pretrained("state-spaces/mamba-tiny", local_files_only=True)


def test_the_file_is_neither_changed_nor_needed_after_loading(tmp_path):
    live = saved(tmp_path)
    model = MambaLRPForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        model.backbone.embeddings.weight.mul_(2)
    again = MambaLRPForCausalLM.from_pretrained(tmp_path)
    shutil.rmtree(tmp_path)
    assert_same_logits(again, live)
    assert torch.equal(model.backbone.embeddings.weight, 2 * live.backbone.embedding.weight)


def test_a_tokenizer_is_looked_for_beside_the_model(tmp_path):
    saved(tmp_path / "bare")
    with pytest.raises(MissingTokenizerError, match="bare"):
        MambaLRPForCausalLM.from_pretrained(tmp_path / "bare").explain("a b")
    saved(tmp_path / "full")
    word_tokenizer().save_pretrained(tmp_path / "full")
    explanation = MambaLRPForCausalLM.from_pretrained(tmp_path / "full").explain("a b")
    assert explanation.tokens == [["a", "b"]]


def test_a_language_model_has_no_classification_head(tmp_path):
    saved(tmp_path)
    for cls in (MambaLRPForSequenceClassification, AutoMambaLRPForSequenceClassification):
        with pytest.raises(MissingHeadError, match=r"score\.weight"):
            cls.from_pretrained(tmp_path)


@pytest.mark.parametrize("mixer", [MAMBA, MAMBA2])
def test_the_class_of_the_other_layer_names_the_right_one(tmp_path, mixer):
    saved(tmp_path, mixer)
    wrong, right = (MambaLRPForCausalLM, Mamba2LRPForCausalLM)[:: 1 if mixer is MAMBA2 else -1]
    with pytest.raises(UnknownArchitectureError, match=f"with {right.__name__} or AutoMambaLRPForCausalLM"):
        wrong.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rms_norm": False}, "rms_norm=False"),
        ({"attn_layer_idx": [1]}, r"attn_layer_idx=\[1\]"),
        ({"d_intermediate": 64}, "d_intermediate=64"),
        ({"bidirectional": True}, "bidirectional=True"),
        ({"ssm_cfg": {"layer": "Mamba3"}}, "layer='Mamba3'.*Mamba1"),
        ({"ssm_cfg": {"layer": "Mamba1", "headdim": 4}}, "headdim=4"),
        ({"ssm_cfg": {**MAMBA2, "D_has_hdim": True}}, "D_has_hdim=True"),
        ({"ssm_cfg": {**MAMBA2, "rmsnorm": False}}, "rmsnorm=False"),
        ({"ssm_cfg": {**MAMBA2, "norm_before_gate": True}}, "norm_before_gate=True"),
        ({"ssm_cfg": {**MAMBA2, "d_ssm": 8}}, "d_ssm=8"),
        ({"ssm_cfg": {**MAMBA2, "headdim": 5}}, "describes no model"),
        ({"ssm_cfg": {**MAMBA2, "ssm_dtype": 5}}, "ssm_dtype=5"),
        ({"vocab_size": None}, "describes no model"),
        ({"n_layer": "two"}, "describes no model"),
        ({"ssm_cfg": "Mamba2"}, "ssm_cfg='Mamba2'"),
    ],
)
def test_what_transformers_cannot_express_is_an_error_that_names_it(tmp_path, changes, said):
    saved(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(UnknownArchitectureError, match=said):
        AutoMambaLRPForCausalLM.from_pretrained(tmp_path)


@pytest.mark.skipif(_norm_is_grouped(), reason="this transformers has a norm of groups")
def test_groups_without_norms_of_their_own_are_an_error(tmp_path):
    saved(tmp_path, {**MAMBA2, "ngroups": 2})
    with pytest.raises(UnknownArchitectureError, match=r"ngroups=2.*upgrade transformers"):
        AutoMambaLRPForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: weights.pop("backbone.layers.1.mixer.D"), "1 missing, 0 unexpected.*layers.1.mixer.D"),
        (lambda weights: weights.pop("backbone.embedding.weight"), "1 missing.*embeddings"),
        (lambda weights: weights.update({"backbone.norm_f.bias": torch.ones(8)}), r"1 unexpected.*norm_f\.bias"),
        (lambda weights: weights.update({"backbone.norm_f.weight": torch.ones(9)}), "1 of another shape.*norm_f"),
        (lambda weights: weights.update({"lm_head.weight": torch.ones(24, 8)}), "tie_embeddings=True.*lm_head"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_an_error(tmp_path, change, said):
    weights = saved(tmp_path).state_dict()
    change(weights)
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(UnknownArchitectureError, match=said):
        MambaLRPForCausalLM.from_pretrained(tmp_path)


class Malicious:
    def __reduce__(self):
        return pytest.fail, ("code in a checkpoint was run",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "code", "list"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_or_malicious_file_is_refused(tmp_path, name, damage, zipped):
    weights, path = saved(tmp_path).state_dict(), tmp_path / name
    content = {"code": {**weights, "backbone.extra": Malicious()}, "list": list(weights.values())}.get(damage, weights)
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"no weights\n"}.get(damage, data))
    with pytest.raises(CheckpointError, match=f"{name} (is damaged|holds)"):
        MambaLRPForCausalLM.from_pretrained(tmp_path, weights_only=False)


def test_no_weights(tmp_path):
    saved(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*pytorch_model\.bin"):
        MambaLRPForCausalLM.from_pretrained(tmp_path)
    assert issubclass(CheckpointError, MambaLRPError)


@pytest.mark.parametrize("config", ["{}", '{"d_model": 8}', "no json", '{"model_type": "gpt2", "d_model": 8}'])
def test_other_configs_are_left_to_transformers(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises((OSError, ValueError, UnknownArchitectureError)):
        AutoMambaLRPForCausalLM.from_pretrained(tmp_path)


@every_case
def test_a_live_model_is_explained_through_its_own_parameters(mixer, tied):
    live = live_model(mixer, tie_embeddings=tied)
    shared = twin(live)
    assert isinstance(shared, PreTrainedModel)
    assert {id(weight) for weight in shared.parameters()} == {id(weight) for weight in live.parameters()}
    assert not any(tensor.is_meta for tensor in [*shared.parameters(), *shared.buffers()])
    assert_same_logits(shared, live)

    before, forward = live.state_dict().keys(), logits(live)
    assert make_explainable(live) is live
    assert type(live) is MambaLMHeadModel
    assert live.state_dict().keys() == before
    assert torch.equal(logits(live), forward)
    explanation = live.explain(IDS)
    torch.testing.assert_close(explanation.score, forward[:, -1].max(-1).values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(explanation.relevance, make_explainable(twin(live)).explain(IDS).relevance)


def test_generation_of_a_live_model():
    live = make_explainable(live_model(MAMBA2))
    generated = live.explain_generation(IDS, max_new_tokens=3, eos_token_id=None)
    ids = IDS
    with torch.no_grad():
        for _ in range(3):
            ids = torch.cat([ids, live(ids).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(generated.input_ids, ids)


@pytest.mark.parametrize("mixer", [MAMBA, MAMBA2])
def test_what_happens_to_the_live_model_is_explained(mixer):
    live = make_explainable(live_model(mixer))

    def assert_current(model):
        expected = logits(model)[:, -1].max(-1).values
        torch.testing.assert_close(model.explain(IDS).score, expected, rtol=1e-4, atol=1e-5)

    assert_current(live)
    copied = copy.deepcopy(live)
    optimizer = torch.optim.SGD(live.parameters(), 0.1)
    live(IDS).logits.square().mean().backward()
    optimizer.step()
    assert_current(live)
    assert not torch.allclose(live.explain(IDS).score, copied.explain(IDS).score)
    live.load_state_dict(live_model(mixer, seed=5).state_dict(), assign=True)  # other Parameter objects
    assert_current(live)
    live.double()
    assert_current(live)
    assert_current(copied)


def test_a_live_model_in_half_precision():
    live = make_explainable(live_model(MAMBA2, dtype=torch.bfloat16))
    expected = logits(live)[:, -1].max(-1).values
    torch.testing.assert_close(live.explain(IDS).score, expected, rtol=1e-4, atol=1e-5)
    assert live.backbone.layers[0].mixer.D.dtype == torch.float32


def test_a_live_model_that_has_no_twin():
    live = make_explainable(live_model())
    live.backbone.layers[0].mixer.in_proj = torch.nn.Sequential(live.backbone.layers[0].mixer.in_proj)
    with pytest.raises(UnknownArchitectureError, match=r"in_proj\.0\.weight.*adapters"):
        live.explain(IDS)
    with pytest.raises(UnknownArchitectureError, match="rms_norm=False"):
        make_explainable(live_model(rms_norm=False))
    del live.config
    with pytest.raises(UnknownArchitectureError, match="no config"):
        make_explainable(live)
    other = type("MambaLMHeadModel", (MambaLMHeadModel,), {"__module__": "elsewhere.models"})(MambaConfig())
    with pytest.raises(UnknownArchitectureError, match="MambaLMHeadModel"):
        make_explainable(other)
