"""What a user does with a hybrid: load, explain, generate, adapt, share; every number is the model's own."""

import copy
import json
import pickle

import pytest
import torch
import transformers
from hybrid_models import (
    IN_FILES,
    ONE_EACH,
    classifier,
    classifier_class,
    language_model,
    logits,
    padded,
    prefix,
    saved,
    shared_model,
)
from hybrid_models import rows as texts_of_ids
from safetensors.torch import load_file, save_file
from small import WORDS, word_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, pipeline

import hf_mambalrp
from hf_mambalrp import (
    AutoMambaLRPForCausalLM,
    AutoMambaLRPForSequenceClassification,
    evaluate_faithfulness,
    explain_dataset,
    load_explanations,
    make_explainable,
)
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.cli.main import main
from hf_mambalrp.evaluation.outputs import ModelOutput
from hf_mambalrp.evaluation.perturbation import ZERO
from hf_mambalrp.families import FAMILIES
from hf_mambalrp.models.releases import has_family

every_model = pytest.mark.parametrize("name", IN_FILES)
every_family = pytest.mark.parametrize("name", ONE_EACH)
IDS, MASK = padded()


def same(found, expected, tolerance=1e-5):
    """Within a share of the largest number, and of 1, which is about the size of a logit here."""
    size = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * size)


def text_of(ids):
    return " ".join(WORDS[i] for i in ids)


@every_model
def test_a_language_model_goes_through_files_in_both_directions(tmp_path, name):
    model = language_model(name)
    model.save_pretrained(tmp_path / "stock")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "stock")
    ours = AutoMambaLRPForCausalLM.from_pretrained(tmp_path / "stock")
    assert type(ours) is getattr(hf_mambalrp, f"{prefix(name)}LRPForCausalLM")
    assert torch.equal(logits(ours, IDS, MASK), logits(stock, IDS, MASK))
    same(logits(ours, IDS, MASK)[0], logits(model, IDS, MASK)[0])  # buffers that are in no file too
    for setting in ("_attn_implementation", "_experts_implementation"):
        assert getattr(ours.config, setting, None) == getattr(stock.config, setting, None)
    ours.explain(IDS, attention_mask=MASK)
    ours.save_pretrained(tmp_path / "ours")
    configs = [json.loads((tmp_path / who / "config.json").read_text()) for who in ("stock", "ours")]
    assert configs[1] == configs[0]
    assert configs[1]["architectures"] == [type(model).__name__]
    weights = [load_file(tmp_path / who / "model.safetensors") for who in ("stock", "ours")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[1][key], value) for key, value in weights[0].items())


@every_family
def test_a_classifier_goes_through_files_auto_model_and_pipeline(tmp_path, name):
    model = classifier(name)
    names = set(model.state_dict())
    assert {key for key in names if not key.startswith("model.")} == {"score.weight"}
    saved(model, tmp_path / "stock")
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "stock")
    assert type(stock) is classifier_class(name)
    ours = AutoMambaLRPForSequenceClassification.from_pretrained(tmp_path / "stock")
    assert type(ours) is getattr(hf_mambalrp, f"{prefix(name)}LRPForSequenceClassification")
    assert torch.equal(logits(ours, IDS, MASK), logits(stock, IDS, MASK))
    own, kept = model.state_dict(), ours.state_dict()
    assert all(torch.equal(kept[key], own[key]) for key in names)
    same(logits(ours, IDS, MASK), logits(model, IDS, MASK), 1e-4)  # equal weights in memory laid out otherwise
    (answer,) = pipeline("text-classification", model=str(tmp_path / "stock"), device="cpu")("a b c")
    explanation = ours.explain("a b c")
    assert explanation.target_text == [answer["label"]]
    assert float(explanation.probability[0]) == pytest.approx(answer["score"], abs=1e-5)
    saved(ours, tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["architectures"] == [type(model).__name__]
    again, info = type(model).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(logits(again, IDS, MASK), logits(stock, IDS, MASK))


@pytest.mark.parametrize("name", [name for name in IN_FILES if name.startswith("nemotron_h")])
def test_a_checkpoint_with_the_names_of_released_files_loads_as_it_does_in_transformers(tmp_path, name):
    """NVIDIA's files call the backbone ``backbone``, and have the weights of every expert by themselves."""
    language_model(name).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert any(".experts.0." in key for key in weights) == ("moe" in name or "latent" in name)
    released = {key.replace("model.", "backbone."): value for key, value in weights.items()}
    save_file(released, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ours = AutoMambaLRPForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(ours, IDS, MASK), logits(AutoModelForCausalLM.from_pretrained(tmp_path), IDS, MASK))


@pytest.mark.skipif(not has_family("qwen3_5_text"), reason="the installed transformers lacks the family")
@pytest.mark.parametrize("family", ["Qwen3_5", "Qwen3_5Moe"])
def test_of_a_vision_checkpoint_the_text_side_loads_and_is_explained(tmp_path, family):
    text = language_model("qwen3_5" if family == "Qwen3_5" else "qwen3_5-moe")
    sizes = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    config = getattr(transformers, f"{family}Config")(text_config=text.config.to_dict(), vision_config=sizes)
    whole = getattr(transformers, f"{family}ForConditionalGeneration")(config).eval()
    whole.save_pretrained(tmp_path)
    ours = AutoMambaLRPForCausalLM.from_pretrained(tmp_path)
    assert type(ours) is getattr(hf_mambalrp, f"{family}LRPForCausalLM")
    same(logits(ours, IDS, MASK)[MASK == 1], logits(whole, IDS, MASK)[MASK == 1])
    found = ours.explain(IDS, attention_mask=MASK, target=3)
    same(found.score, logits(whole, IDS, MASK)[[0, 1], MASK.sum(-1) - 1, 3])
    assert type(AutoMambaLRPForCausalLM.from_config(config)) is type(ours)


@every_family
def test_a_row_in_a_batch_is_explained_as_alone_and_its_score_is_the_models_logit(tmp_path, name):
    model = AutoMambaLRPForCausalLM.from_pretrained(saved(language_model(name), tmp_path))
    lengths, targets = (9, 5, 1), [3, 8, 20]
    batches = [padded(side, lengths) for side in ("left", "right")]
    both = [model.explain(ids, attention_mask=mask, target=targets, per_layer=True) for ids, mask in batches]
    for number, row in enumerate(texts_of_ids(lengths)):
        alone = model.explain(row[None], target=targets[number], per_layer=True)
        own = logits(model, row[None])[0, -1, targets[number]]
        same(alone.score[0], own)
        same(alone.relevance.sum() + alone.conservation.biases[0], own, 1e-4)
        for found, (_, mask) in zip(both, batches, strict=True):
            kept = mask[number] != 0
            same(found.relevance[number, kept], alone.relevance[0], 1e-4)
            same(found.layer_relevance[:, number, kept], alone.layer_relevance[:, 0], 1e-4)
            assert found.relevance[number, ~kept].count_nonzero() == 0
            same(found.score[number], own)


@every_family
def test_a_target_of_several_tokens_against_another_is_the_difference_of_the_models_own_logits(name):
    model, words = shared_model(name), word_tokenizer()
    row = texts_of_ids((6,))[0]
    own = []
    for text in (" b h", " d c f"):
        continued = words(text)["input_ids"]
        read = logits(model, torch.cat([row, torch.tensor(continued)])[None])[0]
        own.append(sum(read[len(row) - 1 + place, word] for place, word in enumerate(continued)))
    found = model.explain(text_of(row), target=" b h", contrast=" d c f", tokenizer=words)
    same(found.score[0], own[0] - own[1], 1e-4)
    same(found.relevance.sum() + found.conservation.biases[0], found.score[0], 1e-4)


@every_family
def test_modes_contexts_and_copies_change_nothing(name):
    model = make_explainable(language_model(name))
    expected = model.explain(IDS, attention_mask=MASK, target=3)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.explain(IDS, attention_mask=MASK, target=3).relevance, expected.relevance)
    model.train()
    assert torch.equal(model.explain(IDS, attention_mask=MASK, target=3).relevance, expected.relevance)
    assert all(module.training for module in model.modules())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.explain(IDS, attention_mask=MASK, target=3).relevance, expected.relevance)


@every_family
def test_a_model_in_bfloat16_is_explained_at_its_own_logits(name):
    model = language_model(name).to(torch.bfloat16)
    wide = copy.deepcopy(model).float()
    row = texts_of_ids((9,))[0][None]
    found = make_explainable(model).explain(row, target=3)
    same(found.score[0], logits(wide, row)[0, -1, 3], 1e-2)
    assert float((found.score[0] - logits(model, row)[0, -1, 3].float()).abs()) < 0.1
    same(found.relevance.sum() + found.conservation.biases[0], found.score[0], 1e-4)


@every_family
def test_embeddings_are_read_as_the_model_reads_them(name):
    model = shared_model(name)
    generator = torch.Generator().manual_seed(5)
    embeddings = torch.randn(2, 6, model.config.hidden_size, generator=generator)
    with torch.no_grad():
        own = model(inputs_embeds=embeddings).logits[:, -1]
    found = model.explain(inputs_embeds=embeddings, target=[3, 4])
    same(found.score, own[[0, 1], [3, 4]])


@every_family
def test_generation_is_the_models_own_and_explained_token_by_token(name):
    model = shared_model(name)
    found = model.explain_generation(IDS, attention_mask=MASK, max_new_tokens=3, eos_token_id=None)
    length = found.prompt_length
    row = texts_of_ids()[0][None]
    own = model.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=3, eos_token_id=None, do_sample=False)
    assert found.input_ids[0, length:].tolist() == own[0, -3:].tolist()
    for step in range(3):
        ids, mask = found.input_ids[:, : length + step], found.attention_mask[:, : length + step]
        alone = model.explain(ids, attention_mask=mask, target=found.input_ids[:, length + step])
        same(found.relevance[:, step, : length + step], alone.relevance, 1e-4)
        same(found.score[:, step], alone.score, 1e-4)


LINEAR = {"in_proj", "x_proj", "out_proj", "q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj"}
LINEAR |= {"input_linear", "output_linear", "gate_up_proj", "w1", "w2", "w3"}
LINEAR |= {f"in_proj_{letters}" for letters in ("qkvz", "ba", "qkv", "z", "b", "a")}
LINEAR |= {f"{letters}_proj" for letters in ("a", "b", "g", "f_a", "f_b", "g_a", "g_b", "q_a", "q_b", "kv_b")}
LINEAR |= {"kv_a_proj_with_mqa"}


def adaptable(model):
    """Names of the linear layers in mixers, attention and MLPs that PEFT puts adapters into."""
    found = {path.rpartition(".")[2] for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    refused = {"falcon_h1": {"out_proj"}, "nemotron_h": {"out_proj"}}  # by PEFT itself
    refused["qwen3_next"] = {"gate_proj", "up_proj", "down_proj"}  # which it puts into experts too, without dropout
    return sorted((found & LINEAR) - refused.get(model.config.model_type, set()))


@every_family
def test_adapters_of_peft_are_part_of_what_is_explained(name):
    import peft

    stock = language_model(name)
    config = peft.LoraConfig(r=2, lora_dropout=0.3, target_modules=adaptable(stock), init_lora_weights=False)
    torch.manual_seed(1)
    model = peft.get_peft_model(copy.deepcopy(stock), config)
    own = logits(model, IDS, MASK)[[0, 1], MASK.sum(-1) - 1, 3]
    assert not torch.allclose(own, logits(stock, IDS, MASK)[[0, 1], MASK.sum(-1) - 1, 3], atol=1e-2)
    merged = make_explainable(copy.deepcopy(model).eval().merge_and_unload())
    expected = merged.explain(IDS, attention_mask=MASK, target=3).relevance
    for training in (False, True):
        found = make_explainable(model.train(training)).explain(IDS, attention_mask=MASK, target=3)
        same(found.score, own, 1e-4)
        same(found.relevance, expected, 1e-3)


def test_an_adapter_of_peft_that_the_model_does_not_read_is_not_explained():
    """Jamba reads the weight of dt_proj past the adapter, so that merged into the weight it makes another network."""
    import peft

    stock = language_model("jamba-dense")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=2, target_modules=["dt_proj"], init_lora_weights=False)
    model = peft.get_peft_model(copy.deepcopy(stock), config)
    merged = copy.deepcopy(model).merge_and_unload()
    same(logits(model, IDS, MASK), logits(stock, IDS, MASK))
    assert not torch.allclose(logits(merged, IDS, MASK), logits(stock, IDS, MASK), atol=1e-2)
    for one, wanted in ((model, stock), (merged, merged)):
        found = make_explainable(one).explain(IDS, attention_mask=MASK, target=3)
        same(found.score, logits(wanted, IDS, MASK)[[0, 1], MASK.sum(-1) - 1, 3], 1e-4)


@every_family
def test_a_classifier_is_adapted_by_peft(name):
    import peft

    plain = classifier(name)
    config = peft.LoraConfig(target_modules=adaptable(plain), task_type="SEQ_CLS", init_lora_weights=False)
    torch.manual_seed(1)
    model = peft.get_peft_model(plain, config).eval()
    own = logits(model, IDS, MASK)
    found = make_explainable(model).explain(IDS, attention_mask=MASK, target=[2, 1])
    same(found.score, own[[0, 1], [2, 1]], 1e-4)


@pytest.mark.parametrize(
    ("name", "task"), [*((name, "lm") for name in ONE_EACH), ("bamba-biases", "classifier"), ("zamba", "classifier")]
)
def test_datasets_evaluation_and_cards(tmp_path, name, task):
    model = (language_model if task == "lm" else classifier)(name)
    auto = AutoMambaLRPForCausalLM if task == "lm" else AutoMambaLRPForSequenceClassification
    ours = auto.from_pretrained(saved(model, tmp_path / "model"))
    texts = [text_of(row) for row in texts_of_ids((6, 3, 8))]
    explain_dataset(ours, texts, tmp_path / "explained", target=2)
    for text, one in zip(texts, load_explanations(tmp_path / "explained"), strict=True):
        same(one.relevance, ours.explain(text, target=2).relevance, 1e-4)
    replacement = ("zero", "auto")[ONE_EACH.index(name) % 2]
    methods = ["mambalrp", "random"]
    evaluation = evaluate_faithfulness(ours, texts[:2], methods=methods, replacement=replacement, resamples=20)
    assert set(evaluation.results["methods"]) == {*methods}
    shown = ours.explain(texts[0]) if task == "classifier" else None  # a picture, whatever the family
    ours.save_pretrained(tmp_path / "card", explanations=shown, evaluation=evaluation)
    card = (tmp_path / "card" / "README.md").read_text("utf-8")
    assert type(model).__name__.replace("For", "LRPFor") in card or "AutoMambaLRPFor" in card
    assert auto.from_pretrained(tmp_path / "card").explain(texts).relevance.shape == (3, 8)


@every_family
def test_a_token_without_embedding_is_one_among_embeddings_that_the_model_reads_as_it_reads_ids(name):
    model = shared_model(name)
    row = texts_of_ids((6,))[0].tolist()
    read = ModelOutput(subject_of(model), None)
    kept = torch.tensor([1.0] * 5 + [0.0])[:, None]
    hook = model.get_input_embeddings().register_forward_hook(lambda *call: call[2] * kept)
    expected = logits(model, torch.tensor([row]))[0, -1, 3]
    hook.remove()
    with_zero = (*row[:5], ZERO)
    same(torch.tensor(read([with_zero], 3)[0][with_zero]).float(), expected)


@every_family
def test_the_command_explains_a_folder(tmp_path, monkeypatch, capsys, name):
    saved(classifier(name), tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["hf-mambalrp", "explain", "a b c d", "--model", "model", "--json", "out.json"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "out.json").read_text())


@pytest.mark.skipif(not has_family("nemotron_h"), reason="the installed transformers lacks a family")
def test_this_is_about_every_hybrid():
    found = {shared_model(name).config.model_type for name in ONE_EACH}
    assert found == {name for name in FAMILIES if has_family(name)} - {"mamba", "falcon_mamba", "mamba2", "vim"}
