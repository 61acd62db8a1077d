"""The tokenizer beside a model is the one that is there; reading long texts says nothing of a longest one."""

import copy
import os
import pickle

import pytest
import torch
from random_models import random_model
from small import WORDS, word_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from hf_mambalrp import MambaLRPForCausalLM, explain_dataset, make_explainable
from hf_mambalrp.calls import tokenizing
from hf_mambalrp.calls.subject import Subject
from hf_mambalrp.errors import InputError, MissingTokenizerError
from hf_mambalrp.evaluation import evaluate_faithfulness
from hf_mambalrp.evaluation.settings import resolve_replacement

IDS = torch.tensor([[2, 3, 4]])


def shouted(**options):
    """The words of :func:`word_tokenizer`, in capitals."""
    words = {word.upper() if len(word) == 1 else word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", **options)


@pytest.fixture
def folder(tmp_path):
    """A checkpoint without a tokenizer."""
    random_model(num_layers=1, dtype=torch.float32).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def loads(monkeypatch):
    """Where tokenizers are loaded from."""
    seen, own = [], tokenizing.load_tokenizer

    def counted(path, revision=None):
        seen.append((path, revision))
        return own(path, revision)

    monkeypatch.setattr(tokenizing, "load_tokenizer", counted)
    return seen


def test_a_tokenizer_that_is_saved_again_is_read_again(folder):
    model = MambaLRPForCausalLM.from_pretrained(folder)
    assert model.explain(IDS).tokens == [["#2", "#3", "#4"]]
    with pytest.raises(MissingTokenizerError, match="none could be loaded"):
        model.explain("a b")
    word_tokenizer().save_pretrained(folder)  # a miss is not remembered
    assert model.explain(IDS).tokens == model.explain("a b c").tokens == [["a", "b", "c"]]
    shouted().save_pretrained(folder)
    assert model.explain(IDS).tokens == model.explain("A B C").tokens == [["A", "B", "C"]]
    for path in folder.glob("token*"):
        path.unlink()
    assert model.explain(IDS).tokens == [["#2", "#3", "#4"]]


def test_it_is_loaded_once(folder, loads):
    word_tokenizer().save_pretrained(folder)
    model = MambaLRPForCausalLM.from_pretrained(folder)
    for _ in range(3):
        model.explain("a b")
    model.explain_generation("a b", max_new_tokens=1)
    model.hidden_attention("a b")
    assert loads == [(str(folder), None)]
    MambaLRPForCausalLM.from_pretrained(folder).explain("a b")  # each model has its own
    assert len(loads) == 2


@pytest.mark.parametrize("load", [MambaLRPForCausalLM, AutoModelForCausalLM])
def test_a_relative_path_is_the_folder_that_the_model_was_loaded_from(tmp_path, monkeypatch, load):
    for name, tokenizer in (("first", word_tokenizer()), ("second", shouted())):
        random_model(num_layers=1, dtype=torch.float32).save_pretrained(tmp_path / name / "model")
        tokenizer.save_pretrained(tmp_path / name / "model")
    found = []
    for name in ("first", "second"):
        monkeypatch.chdir(tmp_path / name)
        found.append(make_explainable(load.from_pretrained("model")))
    names = [model.explain(IDS).tokens[0] for model in found]
    assert names == [["a", "b", "c"], ["A", "B", "C"]]
    monkeypatch.chdir(tmp_path)
    assert [model.explain(IDS).tokens[0] for model in found] == names


def test_a_link_to_the_newest_folder_is_followed_when_the_model_is_loaded(tmp_path):
    for name, tokenizer in (("first", word_tokenizer()), ("second", shouted())):
        random_model(num_layers=1, dtype=torch.float32).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    newest = tmp_path / "newest"
    os.symlink("first", newest)
    model = MambaLRPForCausalLM.from_pretrained(newest)
    newest.unlink()
    os.symlink("second", newest)
    (tmp_path / "first" / "dangling").symlink_to("nowhere")
    assert model.explain(IDS).tokens == [["a", "b", "c"]]


def test_the_model_carries_nothing_of_it(folder):
    word_tokenizer().save_pretrained(folder)
    model = MambaLRPForCausalLM.from_pretrained(folder)
    before, config, files = {*vars(model)}, model.config.to_dict(), None
    model.save_pretrained(folder / "before")
    model.explain("a b")
    assert {*vars(model)} == before
    assert model.config.to_dict() == config
    model.save_pretrained(folder / "after")
    files = [{path.name: path.read_bytes() for path in (folder / name).iterdir()} for name in ("before", "after")]
    assert files[0] == files[1]
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert copied.explain("a b").tokens == [["a", "b"]]


def test_on_the_hub_the_models_revision_is_asked_once_and_again_where_it_is_needed(monkeypatch):
    asked = []
    monkeypatch.setattr(tokenizing, "load_tokenizer", lambda *where: asked.append(where))
    model = make_explainable(random_model(num_layers=1, dtype=torch.float32))
    model.config._name_or_path, model.config._commit_hash = "nobody/nothing", "0" * 40
    for _ in range(3):
        model.explain(IDS)  # named by number; asking takes a second each time, or a minute without a network
    assert asked == [("nobody/nothing", "0" * 40)]
    with pytest.raises(MissingTokenizerError, match="nobody/nothing"):
        model.explain("a b")
    assert len(asked) == 2
    monkeypatch.setattr(tokenizing, "load_tokenizer", lambda *_: word_tokenizer())
    assert model.explain("a b").tokens == [["a", "b"]]
    assert model.explain(IDS).tokens == [["a", "b", "c"]]


def test_no_word_of_a_longest_input(logged, tmp_path):
    """transformers warns of "indexing errors" behind ``model_max_length``, which these models do not have."""
    model = make_explainable(random_model(num_layers=1, dtype=torch.float32))
    tokenizer = word_tokenizer(model_max_length=2)
    model.explain("a b c d", tokenizer=tokenizer, target=" e f g h")
    model.explain(IDS, tokenizer=tokenizer, target=" e")
    model.explain_generation("a b c", tokenizer=tokenizer, max_new_tokens=3, eos_token_id=None)
    model.hidden_attention("a b c", tokenizer=tokenizer)
    explain_dataset(model, ["a b c", "d e f g"], tmp_path / "out", tokenizer=tokenizer, progress=False)
    evaluate_faithfulness(model, ["a b c d"], tokenizer=tokenizer, methods=["mambalrp"], resamples=2)
    source = Subject(model).begin("explain", tokenizer).tokenizers
    resolve_replacement(" a", source, 19)
    assert "longer than the specified maximum" not in logged.getvalue()
    tokenizer("a b c")  # the caller's own call is the caller's
    assert "longer than the specified maximum" in logged.getvalue()
    assert tokenizer.model_max_length == 2


def test_a_tokenizer_without_an_unknown_token_says_what_it_cannot_read(tmp_path):
    """The library of tokenizers raises a bare Exception there; a row of a dataset is skipped with the reason."""
    whole = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=whole)
    model = make_explainable(random_model(dtype=torch.float32))
    assert model.explain("a b", tokenizer=tokenizer, target=" c").target == [2]
    for text, options in (("a xyz", {}), ("a b", {"target": " xyz"})):
        with pytest.raises(InputError, match=r"The tokenizer cannot read .*xyz"):
            model.explain(text, tokenizer=tokenizer, **options)
    run = explain_dataset(model, ["a b", "a xyz", "c"], tmp_path / "out", tokenizer=tokenizer, on_error="skip")
    assert (run.rows, run.skipped) == (3, 1)
    assert "The tokenizer cannot read" in run.reasons[0].error
