"""The language model that the package ships: its files, its card, and what it carries over a few sentences."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer

from hf_mambalrp import DEMO_LANGUAGE_MODEL, AutoMambaLRPForCausalLM, Mamba2LRPForCausalLM

FOLDER = Path(DEMO_LANGUAGE_MODEL)
EXAMPLE = Path(__file__).parents[1] / "examples" / "training" / "language"
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")
REPORT = json.loads((EXAMPLE / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model():
    return AutoMambaLRPForCausalLM.from_pretrained(DEMO_LANGUAGE_MODEL)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(DEMO_LANGUAGE_MODEL)


def test_its_files_are_small_and_plain():
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert sum(files.values()) < 8_000_000
    assert set(files) == {
        *("README.md", "config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    with safe_open(FOLDER / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float16}  # noqa: SIM118
    assert "auto_map" not in (FOLDER / "config.json").read_text(encoding="utf-8")


def test_it_loads_in_float32_with_tied_embeddings(model, tokenizer):
    assert isinstance(model, Mamba2LRPForCausalLM)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert sum(parameter.numel() for parameter in model.parameters()) == REPORT["parameters"]
    assert len(tokenizer) == model.config.vocab_size
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (model.config.pad_token_id, model.config.eos_token_id)


@pytest.mark.parametrize("text", ["Anna's dog, “Rex” — it's 3.5 km\n\nNo?", "naïve 😀 中文"])
def test_its_tokenizer_reads_any_text_back(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        ("The capital of France is", " Paris"),
        ("Today is Monday. Tomorrow is", " Tuesday"),
        ("My name is Priya. I live in Lisbon and work as a baker. Nice to meet you,", " Priya"),
    ],
)
def test_next_words_of_a_person_s_prompts(model, prompt, word):
    assert model.explain(prompt).target_text == [word]


def test_a_name_that_is_copied_gets_the_most_relevance(model):
    ex = model.explain("My name is Priya. I live in Lisbon and work as a baker. Nice to meet you,", contrast=" Anna")
    assert ex.target_text == [" Priya"]
    assert "Priya" in [word.text for word in ex.top(2, by="positive")]
    assert ex.conservation.gap.abs().max() < 1e-4


def test_it_copies_a_name_of_the_text_and_unseen_ones_too(model, tokenizer):
    """The wording of the training, by the stock forward in one batch; names of several tokens among them."""
    names = ["Anna", "Priya", "Martha", "Edgar", "Zorbin", "Melthax", "Nadia", "Hector"]
    prompts = [
        f"My name is {name}. I live in Oslo and work as a baker. A bell rang. Nice to meet you," for name in names
    ]
    rows = [
        (tokenizer(prompt)["input_ids"], tokenizer(f" {name}")["input_ids"])
        for prompt, name in zip(prompts, names, strict=True)
    ]
    assert max(len(name) for _, name in rows) > 1
    ids = torch.ones(len(rows), max(len(prompt) + len(name) for prompt, name in rows), dtype=torch.long)
    for row, (prompt, name) in enumerate(rows):
        ids[row, : len(prompt) + len(name)] = torch.tensor(prompt + name)
    with torch.no_grad():
        found = model(ids, use_cache=False).logits.argmax(-1)  # causal: what pads the right changes nothing before it
    right = [
        found[row, len(prompt) - 1 : len(prompt) + len(name) - 1].tolist() == name
        for row, (prompt, name) in enumerate(rows)
    ]
    assert sum(right) >= 7


def test_the_card_has_the_numbers_of_the_run():
    numbers = [*REPORT["test bits per byte"].values(), *REPORT["5-gram bits per byte"].values()]
    assert all(f"{number:.3f}" in CARD for number in numbers)
    assert REPORT["test bits per byte"]["synthetic"] < REPORT["5-gram bits per byte"]["synthetic"]
    assert REPORT["test bits per byte"]["read"] < REPORT["5-gram bits per byte"]["read"]
    for found in (*REPORT["copying"].values(), *REPORT["introductions"].values()):
        share, low, high = (f"{100 * value:.1f}" for value in found["name rather than the other"])
        assert f"{share} % ({low} to {high})" in CARD
    assert f"{REPORT['parameters']:,}".replace(",", " ") in CARD
