"""A target's text is the token, or the tokens, by which the input's text is continued, whatever the tokenizer."""

import pytest
import torch
from random_models import random_model
from small import word_tokenizer
from tokenizers_of_all_kinds import KINDS, tokenizer_of
from transformers import PreTrainedTokenizer

from hf_mambalrp import make_explainable
from hf_mambalrp.calls.subject import Subject
from hf_mambalrp.calls.tokenizing import continuation, neutral_prefixes, spelt
from hf_mambalrp.errors import OptionError, TargetError
from hf_mambalrp.evaluation.settings import resolve_replacement

TEXT = "The capital of France is"
MODEL = random_model(num_layers=1, vocab_size=310, dtype=torch.float32)
"""With a token for every tokenizer's, which all are smaller."""


@pytest.fixture(scope="module")
def model():
    return make_explainable(MODEL)


@pytest.fixture(params=KINDS)
def tokenizer(request):
    return tokenizer_of(request.param)


def read(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def behind(tokenizer, text):
    """What the tokenizer itself has for ``TEXT + text`` behind its tokens for ``TEXT``, which it keeps."""
    both, first = read(tokenizer, TEXT + text), read(tokenizer, TEXT)
    assert both[: len(first)] == first
    return both[len(first) :]


def own_score(model, input_ids, target):
    """Sum of the logits of the target's tokens in transformers' own forward, each fed back before the next."""
    with torch.no_grad():
        logits = model(torch.cat([input_ids, torch.tensor([target[:-1]], dtype=torch.long)], 1)).logits[0]
    start = input_ids.shape[1] - 1
    return sum(logits[start + step, token] for step, token in enumerate(target))


@pytest.mark.parametrize("given", ["text", "ids"])
def test_the_score_is_the_models_own_logit_of_what_the_tokenizer_has_next(model, tokenizer, given):
    encoded = tokenizer(TEXT, return_tensors="pt")
    paris, london = behind(tokenizer, " Paris"), behind(tokenizer, " London")
    inputs = TEXT if given == "text" else encoded["input_ids"]
    found = model.explain(inputs, target=" Paris", tokenizer=tokenizer)
    assert found.target == [paris[0] if len(paris) == 1 else tuple(paris)]
    assert found.score[0] == pytest.approx(float(own_score(model, encoded["input_ids"], paris)), abs=1e-4)
    both = model.explain(inputs, target=" Paris", contrast=" London", tokenizer=tokenizer)
    expected = own_score(model, encoded["input_ids"], paris) - own_score(model, encoded["input_ids"], london)
    assert both.score[0] == pytest.approx(float(expected), abs=1e-4)
    named = model.explain(inputs, target=found.target_text[0], contrast=both.contrast_text[0], tokenizer=tokenizer)
    assert (named.target, named.contrast) == (both.target, both.contrast)  # what a result calls it names the same


ONE_TOKEN = [kind for kind in KINDS if kind != "characters"]


@pytest.mark.parametrize("kind", ONE_TOKEN)
def test_a_word_with_its_space_is_one_token(kind):
    tokenizer = tokenizer_of(kind)
    (paris,) = behind(tokenizer, " Paris")
    assert tokenizer.convert_ids_to_tokens(paris).strip("Ġ▁").lower() == "paris"
    for text in (TEXT, TEXT + " ", "", "The"):
        assert continuation(tokenizer, text, " Paris") == (paris,), text


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"words"}))  # which knows no parts of words
def test_a_text_without_a_space_continues_the_last_word(kind):
    tokenizer = tokenizer_of(kind)
    ids = continuation(tokenizer, TEXT, "Paris")
    assert list(ids) == behind(tokenizer, "Paris")
    assert spelt(tokenizer, ids, neutral_prefixes(tokenizer)).lower() == "paris"
    assert ids != continuation(tokenizer, TEXT, " Paris")


@pytest.mark.parametrize("kind", ["GPT-NeoX", "add_prefix_space", "Llama, legacy", "Metaspace always"])
def test_where_the_tokenizer_joins_both_the_text_continues_all_the_same(kind):
    tokenizer = tokenizer_of(kind)
    assert len(read(tokenizer, TEXT + "land")) == len(read(tokenizer, TEXT))  # "island"
    (land,) = continuation(tokenizer, TEXT, "land")
    assert tokenizer.convert_ids_to_tokens(land) == "land"
    (after,) = continuation(tokenizer, TEXT, " land")
    assert tokenizer.convert_ids_to_tokens(after).strip("Ġ▁") == "land"
    assert after != land


def test_every_row_continues_its_own_text(model):
    tokenizer = tokenizer_of("WordPiece")
    found = model.explain(["The land", "of France is"], target=["Paris", " London"], tokenizer=tokenizer)
    assert all(token.startswith("##") for token in tokenizer.convert_ids_to_tokens(found.target[0]))
    assert [*found.target[0]] == read(tokenizer, "The landParis")[2:]
    assert found.target[1] == tokenizer.convert_tokens_to_ids("london")


def test_a_long_text_is_continued_at_its_end():
    tokenizer = tokenizer_of("Llama, legacy")
    assert list(continuation(tokenizer, TEXT * 500, " Paris")) == behind(tokenizer, " Paris")


def test_a_position_inside_the_text_is_continued_there(model):
    tokenizer = tokenizer_of("Metaspace first")
    (capital,) = read(tokenizer, "The capital")[1:]
    for inputs in (TEXT, tokenizer(TEXT, return_tensors="pt")["input_ids"]):
        found = model.explain(inputs, target=" capital", position=0, tokenizer=tokenizer)
        assert found.target == [capital]


def test_embeddings_and_special_tokens_alone_have_no_text_before(model):
    tokenizer = tokenizer_of("with <s> and </s>")
    (paris,) = behind(tokenizer, " Paris")
    start = torch.tensor([[tokenizer.bos_token_id]])
    assert model.explain(start, target=" Paris", tokenizer=tokenizer).target == [paris]
    embeds = torch.zeros(1, 2, 8)
    assert model.explain(inputs_embeds=embeds, target=" Paris", tokenizer=tokenizer).target == [paris]


def test_a_special_token_can_be_the_target(model, tokenizer):
    found = model.explain(TEXT, target="</s>", tokenizer=tokenizer)
    assert found.target == [tokenizer.eos_token_id]


def test_an_unknown_word_is_no_target(model):
    tokenizer = tokenizer_of("words")
    with pytest.raises(TargetError, match=r"target=' Rome' is not in the tokenizer's vocabulary.*token's id"):
        model.explain(TEXT, target=" Rome", tokenizer=tokenizer)
    assert model.explain(TEXT, target=" <unk>", tokenizer=tokenizer).target == [tokenizer.unk_token_id]
    # An unknown word stays the unknown token when it is continued; what continues it is not lost.
    paris, is_ = tokenizer.convert_tokens_to_ids(["Paris", "is"])
    assert continuation(tokenizer, "of Rome", "Paris is") == (paris, is_)


class SlowWords(PreTrainedTokenizer):
    """Words as a tokenizer written in Python reads them, without places."""

    def __init__(self, **options):
        self.words = ["<unk>", "The", "is", "Paris"]
        super().__init__(unk_token="<unk>", **options)

    vocab_size = property(lambda self: len(self.words))

    def get_vocab(self):
        return {word: i for i, word in enumerate(self.words)}

    def _tokenize(self, text, **_):
        return text.split()

    def _convert_token_to_id(self, token):
        return self.words.index(token) if token in self.words else 0

    def _convert_id_to_token(self, index):
        return self.words[index]


def test_a_tokenizer_without_places():
    tokenizer = SlowWords()
    assert continuation(tokenizer, "The", " Paris") == (3,)
    assert continuation(tokenizer, "of Rome", "Paris is") == (3, 2)


@pytest.mark.parametrize(("text", "words"), [("", ["no tokens", "' Paris'"]), ("a\ud800", ["Unicode", "'a\\ud800'"])])
def test_texts_that_are_no_target(model, text, words):
    with pytest.raises(TargetError) as raised:
        model.explain(TEXT, target=text, tokenizer=tokenizer_of("GPT-NeoX"))
    for word in words:
        assert word in str(raised.value)


class TestReplacement:
    def of(self, value, tokenizer):
        return resolve_replacement(value, Subject(MODEL).begin("explain", tokenizer).tokenizers, 310)

    @pytest.mark.parametrize("kind", ONE_TOKEN)
    def test_a_word_is_the_token_inside_a_text(self, kind):
        tokenizer = tokenizer_of(kind)
        (paris,) = behind(tokenizer, " Paris")
        found, called = self.of(" Paris", tokenizer)
        assert found == paris
        assert called.endswith(f"(id {paris})")

    def test_several_tokens_are_refused_with_advice_for_every_tokenizer(self):
        with pytest.raises(OptionError, match=r"2 tokens.*the space in front"):
            self.of("Paris", tokenizer_of("Llama, legacy"))

    def test_how_it_is_called_shows_its_space(self):
        assert self.of(" Paris", tokenizer_of("Llama, legacy"))[1].startswith("' Paris'")
        assert self.of("d", word_tokenizer())[1].startswith("'d'")
