"""Checkpoints are interchangeable with transformers' own, in both directions; the Auto classes; make_explainable."""

import copy
import gc
import json
import pickle

import pytest
import torch
from random_models import padded_batch, random_model
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, MambaConfig, MambaForCausalLM

from hf_mambalrp import (
    AutoMambaLRPForCausalLM,
    AutoMambaLRPForSequenceClassification,
    MambaForSequenceClassification,
    MambaLRPForCausalLM,
    MambaLRPForSequenceClassification,
    MambaLRPMixin,
    make_explainable,
)
from hf_mambalrp.errors import MambaLRPError, MissingHeadError, OptionError, UnknownArchitectureError

IDS, MASK = padded_batch([7, 4])


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS, attention_mask=MASK).logits


@pytest.fixture
def language_model():
    return random_model(num_layers=2, dtype=torch.float32)


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    config = random_model(num_layers=2).config
    config.num_labels = 3
    return MambaForSequenceClassification(config)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("auto", [False, True])
def test_a_stock_checkpoint_loads_here_bit_for_bit(tmp_path, tied, auto):
    stock = random_model(num_layers=2, dtype=torch.float32, tie_word_embeddings=tied)
    stock.save_pretrained(tmp_path)
    ours = (AutoMambaLRPForCausalLM if auto else MambaLRPForCausalLM).from_pretrained(tmp_path)
    assert type(ours) is MambaLRPForCausalLM
    assert torch.equal(logits(ours), logits(stock))
    assert ours.explain(IDS, attention_mask=MASK).relevance.shape == IDS.shape


@pytest.mark.parametrize("tied", [False, True])
def test_our_checkpoint_is_a_stock_checkpoint(tmp_path, tied):
    stock = random_model(num_layers=2, dtype=torch.float32, tie_word_embeddings=tied)
    stock.save_pretrained(tmp_path / "stock")
    ours = MambaLRPForCausalLM.from_pretrained(tmp_path / "stock")
    before = copy.deepcopy(ours.config.to_dict())
    ours.explain(IDS, attention_mask=MASK)
    ours.save_pretrained(tmp_path / "ours")
    assert ours.config.to_dict() == before
    configs = [json.loads((tmp_path / who / "config.json").read_text()) for who in ("stock", "ours")]
    assert configs[1]["architectures"] == ["MambaForCausalLM"]
    assert configs[0] == configs[1]
    weights = [load_file(tmp_path / who / "model.safetensors") for who in ("stock", "ours")]
    assert weights[0].keys() == weights[1].keys()
    for who in (MambaForCausalLM, AutoModelForCausalLM):
        loaded = who.from_pretrained(tmp_path / "ours")
        assert type(loaded) is MambaForCausalLM
        assert torch.equal(logits(loaded), logits(stock))


def test_a_remote_code_reference_is_not_saved_without_its_code(tmp_path, language_model):
    ours = make_ours(language_model)
    ours.config.auto_map = {"AutoModelForCausalLM": "modeling_other.Other"}
    ours.save_pretrained(tmp_path)
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())
    assert ours.config.auto_map == {"AutoModelForCausalLM": "modeling_other.Other"}


def make_ours(stock):
    ours = MambaLRPForCausalLM(stock.config)
    ours.load_state_dict(stock.state_dict())
    return ours


def test_classifier_round_trip(tmp_path, classifier):
    classifier.save_pretrained(tmp_path / "stock")
    ours = AutoMambaLRPForSequenceClassification.from_pretrained(tmp_path / "stock")
    assert type(ours) is MambaLRPForSequenceClassification
    ours.save_pretrained(tmp_path / "ours")
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["architectures"] == ["MambaForSequenceClassification"]
    again = MambaForSequenceClassification.from_pretrained(tmp_path / "ours")
    assert torch.equal(logits(again), logits(classifier))


def test_a_language_models_checkpoint_has_no_classification_head(tmp_path, language_model):
    language_model.save_pretrained(tmp_path)
    with pytest.raises(MissingHeadError, match=r"score\.weight.*MambaForSequenceClassification"):
        MambaLRPForSequenceClassification.from_pretrained(tmp_path)
    assert MambaForSequenceClassification.from_pretrained(tmp_path).score.weight.shape == (2, 8)  # to be trained


def test_loading_info_is_returned_when_asked_for(tmp_path, language_model):
    language_model.save_pretrained(tmp_path)
    model, info = MambaLRPForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(model, MambaLRPForCausalLM)
    assert not info["missing_keys"]


def test_auto_classes_say_which_families_they_know(tmp_path):
    AutoConfig.for_model("gpt2", n_layer=1, n_embd=8, n_head=1).save_pretrained(tmp_path)
    with pytest.raises(UnknownArchitectureError, match=r"gpt2.*mamba"):
        AutoMambaLRPForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="from_pretrained"):
        AutoMambaLRPForCausalLM()
    config = MambaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_labels=4)
    assert type(AutoMambaLRPForCausalLM.from_config(config)) is MambaLRPForCausalLM
    assert AutoMambaLRPForSequenceClassification.from_config(config).score.weight.shape == (4, 8)


def test_the_mixin_adds_no_weights_and_no_init():
    assert "__init__" not in vars(MambaLRPMixin)
    config = MambaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1)
    assert MambaLRPForCausalLM(config).state_dict().keys() == MambaForCausalLM(config).state_dict().keys()


def test_make_explainable_keeps_class_forward_and_copies(language_model):
    before = logits(language_model)
    model = make_explainable(language_model)
    assert model is language_model
    assert type(model) is MambaForCausalLM
    assert torch.equal(logits(model), before)
    expected = model.explain(IDS, attention_mask=MASK).relevance
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.backbone.norm_f.weight.mul_(2)
    assert not torch.allclose(twin.explain(IDS, attention_mask=MASK).relevance, expected)
    assert torch.equal(model.explain(IDS, attention_mask=MASK).relevance, expected)
    assert torch.equal(pickle.loads(pickle.dumps(model)).explain(IDS, attention_mask=MASK).relevance, expected)


def test_make_explainable_of_an_explainable_model_is_the_model(language_model):
    ours = make_ours(language_model)
    assert make_explainable(ours) is ours
    assert "explain" not in vars(ours)


@pytest.mark.parametrize("which", ["language_model", "classifier"])
def test_what_torch_compile_returned_is_explained_and_the_model_inside_untouched(request, which):
    stock = request.getfixturevalue(which).eval()
    expected = make_explainable(copy.deepcopy(stock)).explain(IDS, attention_mask=MASK)
    compiled = torch.compile(stock)
    before = dict(vars(stock))
    assert make_explainable(compiled) is compiled
    assert vars(stock) == before
    found = compiled.explain(IDS, attention_mask=MASK)
    assert torch.equal(found.relevance, expected.relevance)
    assert vars(stock) == before
    assert torch.equal(make_explainable(stock).explain(IDS, attention_mask=MASK).relevance, expected.relevance)


def test_a_compiled_model_with_adapters(language_model):
    import peft

    config = peft.LoraConfig(r=2, target_modules=["in_proj"], init_lora_weights=False)
    model = peft.get_peft_model(language_model, config)
    expected = make_explainable(copy.deepcopy(model)).explain(IDS, attention_mask=MASK)
    found = make_explainable(torch.compile(model)).explain(IDS, attention_mask=MASK)
    assert torch.equal(found.relevance, expected.relevance)
    assert "explain" not in vars(model)


@pytest.mark.parametrize("training", [False, True])
def test_a_peft_wrapped_model_is_explained_with_its_adapters(language_model, training):
    import peft

    config = peft.LoraConfig(r=2, lora_dropout=0.5, target_modules=["in_proj", "x_proj"], init_lora_weights=False)
    torch.manual_seed(1)
    model = make_explainable(peft.get_peft_model(copy.deepcopy(language_model), config)).train(training)
    found = model.explain(IDS, attention_mask=MASK, target=3)
    assert all(module.training == training for module in model.modules())
    merged = make_explainable(copy.deepcopy(model).merge_and_unload()).eval()
    expected = merged.explain(IDS, attention_mask=MASK, target=3)
    plain = make_explainable(language_model).explain(IDS, attention_mask=MASK, target=3)
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found.relevance, plain.relevance, atol=1e-3)


@pytest.mark.parametrize("offload", ["cpu", "disk"])
def test_an_offloaded_model_gives_the_same_relevance(tmp_path, language_model, offload):
    expected = make_explainable(copy.deepcopy(language_model)).explain(IDS, attention_mask=MASK)
    language_model.save_pretrained(tmp_path / "model")
    device_map = {
        "backbone.embeddings": "cpu",
        "backbone.layers.0": "cpu",
        "backbone.layers.1": offload,
        "backbone.norm_f": "cpu",
        "lm_head": "cpu",
    }
    if offload == "cpu":
        from accelerate import cpu_offload

        model = cpu_offload(MambaLRPForCausalLM.from_pretrained(tmp_path / "model"), execution_device="cpu")
        assert model.backbone.layers[1].mixer.A_log.is_meta
    else:
        model = MambaLRPForCausalLM.from_pretrained(
            tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
        )
        assert model.backbone.layers[1].mixer.A_log.is_meta
    found = model.explain(IDS, attention_mask=MASK)
    assert model.backbone.layers[1].mixer.A_log.is_meta
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.score, expected.score, rtol=1e-5, atol=1e-6)


def test_weights_on_disk_are_in_memory_only_where_they_are_used(tmp_path):
    build = random_model.__wrapped__  # whose result is in no other test's memory
    stock = build(num_layers=6, hidden_size=24, dtype=torch.float32)
    stock.save_pretrained(tmp_path / "model")
    large = {stock.backbone.layers[0].mixer.in_proj.weight.shape, stock.backbone.layers[0].mixer.out_proj.weight.shape}
    device_map = dict.fromkeys(("backbone.embeddings", "backbone.norm_f", "lm_head"), "cpu")
    device_map |= {f"backbone.layers.{layer}": "disk" for layer in range(6)}
    model = MambaLRPForCausalLM.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    model.explain(IDS)  # what libraries keep
    del stock
    loaded = []

    def between_forward_and_backward(logits):
        gc.collect()
        alive = [value for value in gc.get_objects() if issubclass(type(value), torch.Tensor)]
        loaded.append(sum(not value.is_meta and value.shape in large for value in alive))
        return logits[:, 3]

    model.explain(IDS, target=between_forward_and_backward)
    assert loaded
    assert max(loaded) == 0


def test_every_error_is_a_mambalrp_error():
    from hf_mambalrp import errors

    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(classes) > 5
    assert all(issubclass(cls, MambaLRPError) for cls in classes)


def test_a_model_made_explainable_is_saved_with_its_explanations(tmp_path, language_model):
    model = make_explainable(language_model)
    explanation = model.explain(IDS, attention_mask=MASK)
    model.save_pretrained(tmp_path, explanations=explanation)
    card = (tmp_path / "README.md").read_text()
    assert str(explanation.conservation[0]) in card
    assert torch.equal(logits(MambaForCausalLM.from_pretrained(tmp_path)), logits(model))


def test_peft_saves_adapters_and_refuses_explanations(tmp_path, language_model):
    import peft

    model = make_explainable(peft.get_peft_model(language_model, peft.LoraConfig(r=2, target_modules=["in_proj"])))
    explanation = model.explain(IDS, attention_mask=MASK)
    with pytest.raises(OptionError, match=r"merge_and_unload\(\)\)\.save_pretrained"):
        model.save_pretrained(tmp_path, explanations=explanation)
    with pytest.raises(OptionError, match=r"merge_and_unload\(\)\)\.push_to_hub"):
        model.push_to_hub("me/adapters", explanations=explanation)
    assert not any(tmp_path.iterdir())
    model.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_config.json").is_file()
    assert not (tmp_path / "model.safetensors").exists()
