"""Places of tokens: fed-back tokens, ids that no text gives back, rows that do not depend on their partners."""

import pytest
import torch
from oracles import random_model
from small import WORDS, byte_level_tokenizer, word_tokenizer
from tokenizers.processors import TemplateProcessing

from hf_mambalrp import make_explainable
from hf_mambalrp.parallel.arrow import to_explanation, to_records
from hf_mambalrp.tokens import describe

SENTENCE = "The capital of France is Paris and it is wonderful. "


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level_tokenizer(SENTENCE)


@pytest.fixture(scope="module")
def model(tokenizer):
    return make_explainable(random_model(num_layers=1, vocab_size=len(tokenizer)))


def by_letters(tokenizer, text):
    """Ids that spell ``text`` and that the tokenizer would not give for it."""
    ids = tokenizer.convert_tokens_to_ids(list(text))
    assert tokenizer(text)["input_ids"] != ids
    return ids


def one(ids, tokenizer):
    found = describe(torch.tensor([ids]), torch.ones(1, len(ids)), None, tokenizer)
    return found.texts[0], found.offsets[0]


@pytest.mark.parametrize(
    ("text", "sides", "words", "whole"),
    [
        ("The capital of", {"target": " France is it"}, ["The", "capital", "of", "France", "is"], None),
        (
            "The capital of",
            {"target": " it is", "contrast": " France and"},
            ["The", "capital", "of", "it", "France"],
            None,
        ),
        ("法国 的", {"target": "首都 is"}, ["法", "国", "的", "首", "都"], "法国 的首都"),
        ("The capital", {"target": " 🙂 is"}, ["The", "capital", "🙂"], None),
    ],
)
def test_fed_back_tokens_have_a_place_behind_the_input(model, tokenizer, text, sides, words, whole):
    found = model.explain(text, **sides, tokenizer=tokenizer)
    assert [word.text for word in found.words()] == words
    assert found.texts == [whole or " ".join(words)]
    given = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    assert found.offsets[0][: len(given)] == given, "the input keeps its own places"
    assert sum(word.relevance for word in found.words()) == pytest.approx(found.relevance[0].sum().item(), abs=1e-6)
    body = found.to_text(width=400).splitlines()[3]
    separated = " ".join(part.split("(")[0] for part in body.replace(")", ") ").split())
    assert separated == " ".join(words), "every word carries its number"
    assert ") " in body


def test_rows_with_and_without_fed_back_tokens(model, tokenizer):
    found = model.explain(["The capital of", "it is"], target=[" France is", " Paris"], tokenizer=tokenizer)
    assert found.texts == ["The capital of France", "it is"]
    assert [[word.text for word in found.words(row)] for row in (0, 1)] == [
        ["The", "capital", "of", "France"],
        ["it", "is"],
    ]


def test_a_row_does_not_depend_on_its_batch_partners(model, tokenizer):
    good, bad = tokenizer("The 法国 capital")["input_ids"], by_letters(tokenizer, "capital")
    length = max(len(good), len(bad))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in (good, bad)])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in (good, bad)])
    both = model.explain(ids, attention_mask=mask, tokenizer=tokenizer)
    for row, expected in enumerate((["The", "法", "国", "capital"], ["capital"])):
        alone = model.explain(ids[row : row + 1], attention_mask=mask[row : row + 1], tokenizer=tokenizer)
        assert [word.text for word in both.words(row)] == [word.text for word in alone.words()] == expected
        assert (both[row].texts, both[row].offsets) == (alone.texts, alone.offsets)


def test_ids_that_no_text_gives_back_are_placed_by_what_they_spell(tokenizer):
    ids = by_letters(tokenizer, "capital") + tokenizer(" 法🙂")["input_ids"]
    text, spans = one(ids, tokenizer)
    assert text == "capital 法🙂" == tokenizer.decode(ids)
    assert [text[start:end] for start, end in spans[:7]] == list("capital")
    assert {text[start:end].strip() for start, end in spans[7:]} <= {"", "法", "🙂"}


def test_parts_of_characters_stay_parts(tokenizer):
    smile = tokenizer("🙂")["input_ids"]
    ids = [*smile[:-1], *by_letters(tokenizer, "capital")]
    text, spans = one(ids, tokenizer)
    assert text.endswith("capital")
    assert set(text[: -len("capital")]) == {"\N{REPLACEMENT CHARACTER}"}
    assert [text[start:end] for start, end in spans[-6:]] == list("apital")
    assert spans[-1][1] == len(text)


def test_the_space_before_a_word_comes_from_the_tokens_before_it():
    """A word of this tokenizer decodes alone without a space; and a text gives an end token, which these ids lack."""
    tokenizer, end = word_tokenizer(), WORDS.index("<eos>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", end)])
    text, spans = one([WORDS.index(word) for word in ("b", "<unk>", "c")], tokenizer)
    assert text == "b <unk> c"
    assert [text[start:end].strip() for start, end in spans] == ["b", "<unk>", "c"]


def test_dataset_rows_of_several_target_tokens(model, tokenizer):
    """A record's text is the dataset's, without what was fed back."""
    found = model.explain("The capital of", target=" France is it", tokenizer=tokenizer)
    (record,) = to_records(found)
    loaded = to_explanation({"index": 0, "id": "0", "text": "The capital of", "columns": None, **record})
    assert [word.text for word in loaded.words()] == ["The", "capital", "of", "France", "is"]
    assert "of(" in loaded.to_text()
    assert ")capital" not in loaded.to_text()
    assert "“France is”" in loaded.to_text(width=200)
