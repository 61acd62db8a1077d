"""Names and places of tokens: fed-back tokens, ids that no text gives back or that the tokenizer does not know, parts
of characters, rows that do not depend on their partners."""

import re
from typing import ClassVar

import pytest
import torch
from random_models import random_model
from small import WORDS, byte_level_tokenizer, word_tokenizer
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import ByT5Tokenizer, PerceiverTokenizer, PreTrainedTokenizer, PreTrainedTokenizerFast

from hf_mambalrp import make_explainable
from hf_mambalrp.calls.tokens import describe
from hf_mambalrp.calls.vocabulary import Vocabulary
from hf_mambalrp.results.records import to_explanation, to_records

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
    found = describe(torch.tensor([ids]), torch.ones(1, len(ids)), None, Vocabulary(tokenizer))
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


@pytest.fixture(scope="module")
def wide():
    """A model whose vocabulary is padded: larger than any tokenizer's here."""
    return make_explainable(random_model(num_layers=1, vocab_size=400))


def slow_tokenizer(words):
    """A tokenizer in Python, that tells no places of tokens and knows no other ids."""
    return SlowTokenizer(words, unk_token="<unk>", pad_token="<pad>")


class SlowTokenizer(PreTrainedTokenizer):
    """Words and their punctuation, a token each, with ``▁`` for the space before one."""

    model_input_names: ClassVar[list[str]] = ["input_ids", "attention_mask"]

    def __init__(self, words, **options):
        self.words = list(words)
        super().__init__(**options)

    vocab_size = property(lambda self: len(self.words))

    def get_vocab(self):
        return {word: i for i, word in enumerate(self.words)}

    def _tokenize(self, text, **options):
        return re.findall(r"▁?\w+|\S", re.sub(r"(?<!\S)(?=\w)", "▁", text))

    def _convert_token_to_id(self, token):
        return self.words.index(token) if token in self.words else 1

    def _convert_id_to_token(self, index):
        return self.words[index]

    def convert_tokens_to_string(self, tokens):
        return "".join(tokens).replace("▁", " ").strip()


@pytest.mark.parametrize("kind", ["slow", "fast", "bytes"])
def test_ids_beyond_the_tokenizer_are_named_by_their_number(wide, kind):
    tokenizer = {
        "slow": lambda: slow_tokenizer(["<pad>", "<unk>", "▁a", "▁film", "."]),
        "fast": lambda: byte_level_tokenizer(SENTENCE, vocabulary=270),
        "bytes": ByT5Tokenizer,
    }[kind]()
    known = 4 if kind == "slow" else tokenizer(" a", add_special_tokens=False)["input_ids"][-1]
    found = wide.explain(torch.tensor([[known, 391, 399, known]]), tokenizer=tokenizer)
    assert found.tokens[0][1:3] == ["#391", "#399"]
    words = [word.text for word in found.words()]
    assert words[1:3] == ["#391", "#399"]
    assert sum(word.relevance for word in found.words()) == pytest.approx(found.relevance[0].sum().item(), abs=1e-6)
    assert "#391" in found.to_text()
    assert "#399" in found.to_html()
    aimed = wide.explain(torch.tensor([[known, known]]), target=391, contrast=399, tokenizer=tokenizer)
    assert (aimed.target_text, aimed.contrast_text) == (["#391"], ["#399"])
    assert "“#391” rather than “#399”" in aimed.to_text()


@pytest.mark.parametrize("kind", [ByT5Tokenizer, PerceiverTokenizer])
def test_a_tokenizer_of_bytes_without_places(wide, kind):
    """Its tokens are found in the text; a token that is a part of a character is named by its byte."""
    tokenizer = kind()
    text = "é 좋다, naïve 🙂!"
    found = wide.explain(text, tokenizer=tokenizer)
    special = set(tokenizer.all_special_tokens)
    words = found.words()
    assert [word.text for word in words if word.text not in special] == ["é", "좋다", ",", "naïve", "🙂", "!"]
    assert found.texts == [text]
    assert all(text[word.start : word.end] == word.text for word in words if word.text not in special)
    names = [name for name in found.tokens[0] if name not in special]
    assert names[:3] == ["<0xC3>", "<0xA9>", " "]
    assert len(names) == len(text.encode())
    assert "⟨empty⟩" not in found.to_text(level="token") + found.to_html(level="token") + str(found)


def test_parts_of_characters_are_named_by_their_bytes(tokenizer):
    ids = torch.tensor([tokenizer("a 🙂")["input_ids"]])
    (found,) = describe(ids, torch.ones_like(ids), None, Vocabulary(tokenizer)).tokens
    assert found[0] == "a"
    assert "".join(found[1:]).replace(" ", "") == "<0xF0><0x9F><0x99><0x82>"


def test_a_slow_tokenizer_s_tokens_are_found_in_the_text(wide):
    tokenizer = slow_tokenizer(["<pad>", "<unk>", "▁a", "▁dull", "▁film", "."])
    found = wide.explain(["a dull  film.", "a dark film."], tokenizer=tokenizer)
    assert [found.texts[0][start:end] for start, end in found.offsets[0]] == ["a", "dull", "film", "."]
    assert [word.text for word in found.words(0)] == ["a", "dull", "film", "."]
    assert re.search(r"^a\S* dull\S*  film\S*\)\.\(", found[0].to_text(), re.MULTILINE)
    assert found.offsets[1] == [(0, 0)] * 4, "<unk> is not what the text says there, so nothing has a place"
    assert [word.text for word in found.words(1)] == ["a", "<unk>", "film", "."]
    assert re.search(r"^a\S*<unk>\S* film\S*\)\.\(", found[1].to_text(), re.MULTILINE)


def test_a_row_of_one_letter_tokens_shows_its_letters(wide):
    """DNA by a tokenizer of single bases."""
    letters = Tokenizer(models.WordLevel({token: i for i, token in enumerate(["<unk>", "<cls>", *"ACGTN"])}, "<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    letters.post_processor = TemplateProcessing(single="<cls> $A", special_tokens=[("<cls>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, unk_token="<unk>", cls_token="<cls>")
    found = wide.explain("ACGTNACGT", tokenizer=tokenizer)
    assert [word.text for word in found.words()] == ["<cls>", *"ACGTNACGT"]
    read = wide.explain(torch.tensor([tokenizer("ACGTNACGT")["input_ids"]]), tokenizer=tokenizer)
    assert [word.text for word in read.words()] == ["<cls>", *"ACGTNACGT"]
