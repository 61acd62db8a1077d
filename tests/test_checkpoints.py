"""What a checkpoint holds is what is explained: trained biases of a head, weights left over, sizes that do not fit."""

import copy
import json
import logging
import pickle
import warnings

import pytest
import torch
from random_models import random_model
from safetensors.torch import load_file, save_file
from small import KINDS, word_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, Trainer, TrainingArguments, pipeline

from hf_mambalrp import (
    AutoMambaLRPForCausalLM,
    AutoMambaLRPForSequenceClassification,
    MambaForSequenceClassification,
    MambaLRPForCausalLM,
    MambaLRPForSequenceClassification,
    make_explainable,
)
from hf_mambalrp.errors import MissingHeadError, UnexpectedWeightsError
from hf_mambalrp.models.classification import CLASSIFIERS

IDS = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 2]])
BIAS = torch.tensor([1.0, -2.0, 3.0])
FAMILIES = [kind for kind in KINDS if "," not in kind]
UNTRAINED = r"score\.weight.*random"


def classifier(kind="mamba"):
    config = random_model(num_layers=2, **KINDS[kind]).config
    config.num_labels = 3
    (model_class,) = (found for found in CLASSIFIERS if found.config_class is type(config))
    torch.manual_seed(0)
    return model_class(config).eval()


def language_model(**options):
    return random_model(num_layers=2, dtype=torch.float32, **options)


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def save(model, folder, change=lambda weights: weights, to_bin=False):
    """Save, with other names or more weights than the model has."""
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    weights = change(load_file(path))
    if to_bin:
        path.unlink()
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, path, metadata={"format": "pt"})


def with_head(name, **more):
    """The head under another name, and beside it what ``more`` holds."""

    def change(weights):
        named = {key.replace("score.", f"{name}."): value for key, value in weights.items()}
        return {**named, **{f"{name}.{leaf}": value.clone() for leaf, value in more.items()}}

    return change


@pytest.mark.parametrize("name", ["score", "classifier"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_trained_bias_of_the_head_is_loaded_explained_and_saved(tmp_path, kind, name):
    model = classifier(kind)
    save(model, tmp_path / "theirs", with_head(name, bias=BIAS))
    expected = logits(model) + BIAS
    for who in (AutoModelForSequenceClassification, AutoMambaLRPForSequenceClassification):
        loaded = who.from_pretrained(tmp_path / "theirs")
        torch.testing.assert_close(logits(loaded), expected)
        assert loaded.score.bias.requires_grad
        loaded.save_pretrained(tmp_path / "again")
        head = {key for key in load_file(tmp_path / "again" / "model.safetensors") if not key.startswith("backbone.")}
        assert head == {"score.weight", "score.bias"}
        assert torch.equal(logits(who.from_pretrained(tmp_path / "again")), logits(loaded))
    explanation = loaded.explain(IDS, target=1)
    torch.testing.assert_close(explanation.score, expected[:, 1], rtol=1e-4, atol=1e-5)
    without = make_explainable(model).explain(IDS, target=1)
    torch.testing.assert_close(explanation.relevance, without.relevance, rtol=1e-4, atol=1e-6)
    absorbed = explanation.conservation.biases - without.conservation.biases
    torch.testing.assert_close(absorbed, torch.full((2,), -2.0), rtol=1e-4, atol=1e-5)


def test_a_bias_in_every_format_of_a_checkpoint(tmp_path):
    model = classifier()
    expected = logits(model) + BIAS
    biased = with_head("score", bias=BIAS)
    save(model, tmp_path / "bin", biased, to_bin=True)
    save(model, tmp_path / "one", biased)
    loaded = MambaForSequenceClassification.from_pretrained(tmp_path / "one")
    loaded.save_pretrained(tmp_path / "shards", max_shard_size="2KB")
    assert "score.bias" in json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())["weight_map"]
    loaded.save_pretrained(tmp_path / "variant", variant="fp16")
    for name, options in (
        ("bin", {}),
        ("shards", {}),
        ("variant", {"variant": "fp16"}),
        ("one", {"device_map": "cpu"}),
    ):
        found = MambaLRPForSequenceClassification.from_pretrained(tmp_path / name, **options)
        torch.testing.assert_close(logits(found), expected)
    half = MambaLRPForSequenceClassification.from_pretrained(tmp_path / "one", dtype=torch.bfloat16)
    assert half.score.bias.dtype == torch.bfloat16
    given = MambaLRPForSequenceClassification.from_pretrained(None, config=model.config, state_dict=loaded.state_dict())
    torch.testing.assert_close(logits(given), expected)
    word_tokenizer().save_pretrained(tmp_path / "one")
    (answer,) = pipeline("text-classification", model=str(tmp_path / "one"), device="cpu")("b c d e")
    with torch.no_grad():
        probability = loaded(IDS[:1]).logits.softmax(-1)
    assert answer["score"] == pytest.approx(float(probability.max()), abs=1e-5)


def test_a_head_of_another_name_is_mapped_with_its_bias(tmp_path):
    model = classifier()
    save(model, tmp_path / "theirs", with_head("classifier.1", bias=BIAS))
    with pytest.raises(MissingHeadError, match=r"score\.weight.*classifier\.1\.bias.*key_mapping"):
        MambaLRPForSequenceClassification.from_pretrained(tmp_path / "theirs")
    for who in (MambaLRPForSequenceClassification, MambaForSequenceClassification):
        loaded = who.from_pretrained(tmp_path / "theirs", key_mapping={r"^classifier\.1\.": "score."})
        torch.testing.assert_close(logits(loaded), logits(model) + BIAS)
        loaded.save_pretrained(tmp_path / "again")
        torch.testing.assert_close(logits(who.from_pretrained(tmp_path / "again")), logits(loaded))


def test_a_head_without_a_bias_gets_none(tmp_path):
    save(classifier(), tmp_path)
    loaded, info = MambaLRPForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert loaded.score.bias is None
    assert not info["missing_keys"]


@pytest.mark.parametrize(
    "more",
    [
        {"classifier.dense.weight": torch.ones(8, 8), "classifier.dense.bias": torch.ones(8)},
        {"score.dense.bias": torch.ones(8)},
        {"classifier.out_proj.weight": torch.ones(3, 8)},
        {"backbone.layers.0.mixer.adapter.weight": torch.ones(8)},
    ],
)
def test_weights_that_a_classifier_has_no_place_for_are_refused(tmp_path, more):
    save(classifier(), tmp_path, lambda weights: {**weights, **more})
    with pytest.raises(UnexpectedWeightsError) as raised:
        AutoMambaLRPForSequenceClassification.from_pretrained(tmp_path)
    assert all(name in str(raised.value) for name in more)


def test_two_heads_are_refused_until_one_is_left_out(tmp_path):
    model = classifier()
    save(model, tmp_path, lambda weights: {**weights, "classifier.weight": torch.ones(3, 8)})
    for who in (MambaForSequenceClassification, MambaLRPForSequenceClassification):
        with pytest.raises(UnexpectedWeightsError, match=r"classifier\.weight.*score\.weight.*unused"):
            who.from_pretrained(tmp_path)
        loaded = who.from_pretrained(tmp_path, key_mapping={r"^classifier\.": "unused."})
        assert torch.equal(logits(loaded), logits(model))


def test_the_language_models_head_beside_a_classifiers_is_not_read(tmp_path):
    model = classifier()
    more = {"lm_head.weight": torch.ones(19, 8), "lm_head.bias": torch.ones(19)}
    save(model, tmp_path, lambda weights: {**weights, **more})
    assert torch.equal(logits(MambaLRPForSequenceClassification.from_pretrained(tmp_path)), logits(model))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", ["lm_head.bias", "v_head.summary.weight"])
def test_weights_that_a_language_model_has_no_place_for_are_refused(tmp_path, name, tied):
    model = language_model(tie_word_embeddings=tied)
    save(model, tmp_path, lambda weights: {**weights, name: torch.ones(19)})
    for who in (MambaLRPForCausalLM, AutoMambaLRPForCausalLM):
        with pytest.raises(UnexpectedWeightsError, match=rf"{name}.*unused"):
            who.from_pretrained(tmp_path)
    without = MambaLRPForCausalLM.from_pretrained(tmp_path, key_mapping={rf"^{name}$": "unused.weight"})
    assert torch.equal(logits(without), logits(model))


def test_a_tied_head_that_is_in_the_file_too_is_no_surplus(tmp_path):
    model = language_model(tie_word_embeddings=True)
    save(model, tmp_path, lambda w: {**w, "lm_head.weight": w["backbone.embeddings.weight"].clone()})
    assert torch.equal(logits(MambaLRPForCausalLM.from_pretrained(tmp_path)), logits(model))


def untrained(folder, **options):
    with pytest.warns(UserWarning, match=UNTRAINED):
        return MambaLRPForSequenceClassification.from_pretrained(
            folder, num_labels=5, ignore_mismatched_sizes=True, **options
        )


def test_a_head_of_another_size_is_random_by_choice_and_said_so_once(tmp_path):
    save(classifier(), tmp_path)
    with pytest.raises(RuntimeError, match="size"):
        MambaLRPForSequenceClassification.from_pretrained(tmp_path, num_labels=5)
    model = untrained(tmp_path)
    assert model.score.weight.shape == (5, 8)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model):
        with pytest.warns(UserWarning, match=UNTRAINED) as said:
            copied.explain(IDS)
        assert len(said) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            copied.explain(IDS)


@pytest.mark.parametrize("how", ["trained", "loaded", "replaced"])
def test_nothing_is_said_of_a_head_that_has_changed(tmp_path, how):
    save(classifier(), tmp_path)
    model = untrained(tmp_path)
    if how == "trained":
        optimizer = torch.optim.AdamW(model.score.parameters(), lr=1e-3)
        model(IDS, labels=torch.tensor([0, 4])).loss.backward()
        optimizer.step()
    elif how == "loaded":
        model.load_state_dict({**model.state_dict(), "score.weight": torch.ones(5, 8)})
    else:
        model.score = torch.nn.Linear(8, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.explain(IDS)


def test_a_choice_of_sizes_does_not_excuse_a_head_that_is_missing(tmp_path):
    save(language_model(), tmp_path)
    with pytest.raises(MissingHeadError, match=r"score\.weight"):
        MambaLRPForSequenceClassification.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)


def test_a_language_model_of_another_vocabulary_by_choice(tmp_path):
    save(language_model(tie_word_embeddings=False), tmp_path)
    with pytest.warns(UserWarning, match=r"backbone\.embeddings\.weight.*lm_head\.weight.*random"):
        model = MambaLRPForCausalLM.from_pretrained(tmp_path, vocab_size=32, ignore_mismatched_sizes=True)
    with pytest.warns(UserWarning, match=r"backbone\.embeddings\.weight.*random"):
        model.explain_generation(IDS, max_new_tokens=1)


def test_peft_adapters_are_loaded_into_a_classifier_with_a_bias(tmp_path):
    import peft

    save(classifier(), tmp_path / "model", with_head("score", bias=BIAS))
    config = peft.LoraConfig(r=2, target_modules=["in_proj"], init_lora_weights=False, modules_to_save=["score"])
    adapted = peft.get_peft_model(MambaLRPForSequenceClassification.from_pretrained(tmp_path / "model"), config)
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = MambaLRPForSequenceClassification.from_pretrained(tmp_path / "model")
    loaded.load_adapter(str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(loaded), logits(adapted))


class _Said(logging.Handler):
    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


@pytest.fixture
def said():
    """What transformers logs."""
    handler = _Said()
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    yield handler.texts
    logger.removeHandler(handler)


def test_pipelines_know_the_explainable_classes(said):
    model = MambaLRPForSequenceClassification(classifier().config)
    assert pipeline("text-classification", model=model, tokenizer=word_tokenizer(), device="cpu")("a b")[0]["label"]
    model = MambaLRPForCausalLM(language_model().config)
    generate = pipeline("text-generation", model=model, tokenizer=word_tokenizer(), device="cpu")
    assert generate("a b", max_new_tokens=1)[0]["generated_text"]
    assert not [text for text in said if "not supported" in text]


def test_auto_classes_of_transformers_keep_their_own_classes():
    for auto, model in ((AutoModelForCausalLM, language_model()), (AutoModelForSequenceClassification, classifier())):
        assert type(auto.from_config(model.config)) is type(model)


def test_label_smoothing_shifts_the_labels_of_an_explainable_language_model(tmp_path):
    """``Trainer`` looks the class's name up, and without it would train every token to predict itself."""
    stock = language_model()
    ours = MambaLRPForCausalLM(stock.config)
    ours.load_state_dict(stock.state_dict())
    arguments = TrainingArguments(output_dir=tmp_path, label_smoothing_factor=0.1, report_to=[], use_cpu=True)
    losses = []
    for model in (stock.eval(), ours.eval()):
        with torch.no_grad():
            inputs = {"input_ids": IDS, "labels": IDS}
            losses.append(Trainer(model=model, args=arguments).compute_loss(model, inputs))
    assert torch.equal(losses[0], losses[1])
