"""The language model that the package ships: its files, its card, and what it carries over a few sentences."""

import json
import sys
from pathlib import Path
from random import Random

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


def test_it_copies_names_as_often_as_its_card_says(model, tokenizer):
    """On some of the card's cases, by the stock forward: within the interval of so few, and well above chance."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        import stories
    finally:
        sys.path.remove(str(EXAMPLE))
    for names, found in REPORT["copying"].items():
        rng, right = Random(names), 0
        for _ in range(40):
            case = stories.copy_case(rng, names)
            scores = []
            for name in (case.answer, case.other):
                prompt = tokenizer(case.text)["input_ids"]
                ids = torch.tensor([prompt + tokenizer(f" {name}")["input_ids"]])
                with torch.no_grad():
                    log_p = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
                scores.append(log_p.gather(1, ids[0, len(prompt) :, None]).sum().item())
            right += scores[0] > scores[1]
        share, *_ = found["name rather than the other"]
        assert abs(right / 40 - share) < 0.2, names
    sys.modules.pop("stories")


def test_the_card_has_the_numbers_of_the_run():
    numbers = [*REPORT["test bits per byte"].values(), *REPORT["5-gram bits per byte"].values()]
    assert all(f"{number:.3f}" in CARD for number in numbers)
    assert REPORT["test bits per byte"]["synthetic"] < REPORT["5-gram bits per byte"]["synthetic"]
    for found in REPORT["copying"].values():
        share, low, high = (f"{100 * value:.1f}" for value in found["name rather than the other"])
        assert f"{share} % ({low} to {high})" in CARD
    assert f"{REPORT['parameters']:,}".replace(",", " ") in CARD
