"""Which position of a row a classifier reads, and that this is the one that is explained; releases without a family."""

import json
from importlib.machinery import ModuleSpec

import pytest
import torch
from hybrid_models import MODELS, ONE_EACH, classifier, language_model, logits, padded, prefix, rows, saved
from transformers import JambaForSequenceClassification

import hf_mambalrp
from hf_mambalrp import (
    AutoMambaLRPForCausalLM,
    AutoMambaLRPForSequenceClassification,
    MambaLRPForCausalLM,
    make_explainable,
)
from hf_mambalrp.errors import InputError, MissingHeadError, MissingReleaseError, UnknownArchitectureError
from hf_mambalrp.models import releases

THEIRS = [name for name in ("jamba-moe", "zamba", "zamba2", "qwen3_next", "qwen3_5", "minimax") if name in MODELS]
OURS = [name for name in ONE_EACH if name not in THEIRS]
TARGETS = [2, 1]
every_family = pytest.mark.parametrize("name", ONE_EACH)
of_transformers = pytest.mark.parametrize("name", THEIRS)


def explained(model, ids=None, mask=None, **inputs):
    """The scores of TARGETS."""
    batch = len(ids if ids is not None else inputs["inputs_embeds"])
    found = make_explainable(model).explain(ids, attention_mask=mask, target=TARGETS[:batch], **inputs)
    total = found.relevance.sum(-1) + found.conservation.biases
    torch.testing.assert_close(total, found.score, rtol=1e-4, atol=1e-5)
    return found.score


def own(model, *inputs, **named):
    """The model's own logits of TARGETS."""
    read = logits(model, *inputs, **named)
    return read[range(len(read)), TARGETS[: len(read)]]


def alone(model):
    """The same of each row by itself."""
    return torch.cat([logits(model, row[None]) for row in rows()])[[0, 1], TARGETS]


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@every_family
def test_the_position_that_is_explained_is_the_one_that_the_model_pools(name):
    """On the left a model with a bias in front of its convolution reads that bias from the padding: its own logits of
    rows alone are explained.
    """
    model = classifier(name)
    right = padded("right")
    on_right, expected = explained(model, *right), alone(model)
    same(on_right, expected)
    same(on_right, own(model, *right))
    same(explained(model, *padded("left")), expected)


@of_transformers
def test_transformers_classifiers_read_the_last_token_that_is_not_the_pad_token_whatever_the_mask(name):
    model = classifier(name)
    ids = torch.tensor([[5, 6, 7, 0, 0], [5, 0, 6, 7, 8]])
    same(explained(model, ids), own(model, ids, None))  # no mask: both read the pad tokens before that position
    whole = torch.ones_like(ids)
    same(explained(model, ids, whole), own(model, ids, whole))  # a text that ends with the pad token
    found = make_explainable(model).explain(ids, attention_mask=whole, target=TARGETS)
    assert found.relevance[0, 3:].count_nonzero() == 0  # behind what is read


@of_transformers
def test_a_row_without_padding_needs_no_pad_token(name):
    model = classifier(name, pad_token_id=None)
    row = rows()[0][None]
    same(explained(model, row), own(model, row))


@of_transformers
def test_where_the_model_would_read_padding_nothing_is_explained(name):
    ids, mask = padded("right")
    model = make_explainable(classifier(name, pad_token_id=None))
    with pytest.raises(ValueError, match="batch sizes > 1"):
        logits(model, ids, mask)
    with pytest.raises(InputError, match=r"pad_token_id, which is None, and this batch has 2.*Set model\.config"):
        model.explain(ids, attention_mask=mask)
    with pytest.raises(InputError, match=r"of row 0 it reads position 6, which is padding.*Set model\.config"):
        model.explain(ids[1:], attention_mask=mask[1:])
    model.config.pad_token_id = 0
    assert model.explain(ids, attention_mask=mask).relevance.shape == ids.shape
    other = padded("right", pad=17)  # padded with a token that the configuration does not call one
    with pytest.raises(InputError, match=r"pad_token_id, which is 0: of row 1 it reads position 6, which is padding"):
        model.explain(other[0], attention_mask=other[1])
    same(explained(model, *padded("left", pad=17)), alone(model))


@of_transformers
def test_embeddings_are_read_at_the_last_column(name):
    model = classifier(name)
    generator = torch.Generator().manual_seed(2)
    embeddings = torch.randn(2, 6, model.config.hidden_size, generator=generator)
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[1, :2] = 0
    with torch.no_grad():
        read = [model(inputs_embeds=row).logits for row in (embeddings[:1], embeddings[1:, 2:])]
    same(explained(model, mask=mask, inputs_embeds=embeddings), torch.cat(read)[[0, 1], TARGETS])
    with pytest.raises(InputError, match=r"and of embeddings not: of row 1 it reads position 5, which is padding"):
        make_explainable(model).explain(inputs_embeds=embeddings, attention_mask=mask.flip(1))


@pytest.mark.parametrize("name", OURS)
def test_our_classifiers_read_the_last_attended_token_whatever_it_is(name):
    model = classifier(name, pad_token_id=None)
    ids, mask = padded("right", pad=17)
    same(explained(model, ids, mask), own(model, ids, mask))
    embeddings = model.get_input_embeddings()(ids).detach() * getattr(model.model, "embedding_multiplier", 1.0)
    if prefix(name) == "GraniteMoeHybrid":  # which multiplies what it is given, too
        embeddings = model.get_input_embeddings()(ids).detach()
    same(explained(model, mask=mask, inputs_embeds=embeddings), own(model, ids, mask))


@pytest.mark.parametrize("name", OURS)
def test_positions_of_tokens_reach_the_backbone(name):
    """As in transformers' own classifiers: attention with RoPE reads the distances between them."""
    model, row = classifier(name), rows()[0][None]
    spread = torch.arange(7)[None] * 3
    found = logits(model, row, position_ids=spread)
    with torch.no_grad():
        hidden = model.model(row, attention_mask=torch.ones_like(row), position_ids=spread).last_hidden_state
    torch.testing.assert_close(found, hidden[:, -1] @ model.score.weight.T)
    rotates = {"Bamba", "FalconH1", "Qwen3_5Moe", "OlmoHybrid", "BailingHybrid", "RecurrentGemma", "Lfm2", "Lfm2Moe"}
    assert torch.allclose(found, logits(model, row), atol=1e-5) != (prefix(name) in rotates)


class Averaged(JambaForSequenceClassification):
    """A classifier with a forward of its own."""

    def forward(self, input_ids=None, attention_mask=None, **named):
        return super().forward(input_ids, attention_mask, **named)


class Named(Averaged):
    """That says what it reads."""

    def pooled_position(self, input_ids, attention_mask, batch_size):
        return -1


def test_a_classifier_of_the_callers_own_says_what_it_pools_or_is_refused():
    stock = classifier("jamba-moe")
    model = Averaged(stock.config).eval()
    model.load_state_dict(stock.state_dict())
    with pytest.raises(UnknownArchitectureError, match=r"Averaged has a forward of its own.*pooled_position"):
        make_explainable(model).explain(rows()[0][None])
    model = Named(stock.config).eval()
    model.load_state_dict(stock.state_dict())
    same(explained(model, rows()[0][None]), own(model, rows()[0][None]))


@every_family
def test_a_checkpoint_is_not_taken_for_another_one(tmp_path, name):
    saved(language_model(name), tmp_path / "lm")
    saved(classifier(name), tmp_path / "classifier")
    with pytest.raises(MissingHeadError, match=r"score\.weight"):
        AutoMambaLRPForSequenceClassification.from_pretrained(tmp_path / "lm")
    with pytest.raises(MissingHeadError, match=f"{prefix(name)}LRPForSequenceClassification"):
        AutoMambaLRPForCausalLM.from_pretrained(tmp_path / "classifier")
    with pytest.raises(UnknownArchitectureError, match=f"with {prefix(name)}LRPForCausalLM or Auto"):
        MambaLRPForCausalLM.from_pretrained(tmp_path / "lm")


@every_family
def test_a_classifier_trains(name):
    model, labels = classifier(name).train(), torch.tensor([2, 0])
    ids, mask = padded("right")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = model(ids, attention_mask=mask, labels=labels).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2


NEMOTRON = ("NemotronHForSequenceClassification", "NemotronHLRPForCausalLM", "NemotronHLRPForSequenceClassification")


def test_a_family_that_the_installed_transformers_lacks_is_named_with_its_release(tmp_path, monkeypatch):
    """Of a release with it the files are hidden; see the next test for one without it."""
    spec = ModuleSpec("transformers", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(releases, "find_spec", lambda _: spec)
    for name in NEMOTRON:
        with pytest.raises(MissingReleaseError, match=rf"{name} needs transformers 5\.3 or later, and this is \d"):
            getattr(hf_mambalrp, name)
    assert hf_mambalrp.JambaLRPForCausalLM
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nemotron_h"}))
    with pytest.raises(MissingReleaseError, match=r"a 'nemotron_h' checkpoint, needs transformers 5\.3"):
        MambaLRPForCausalLM.from_pretrained(tmp_path)


def test_a_family_that_an_older_release_has_with_a_wrong_forward_is_refused(monkeypatch):
    """RecurrentGemma's recurrence there keeps the state of the call before, and fails at a batch of another size."""
    from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

    sizes = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3}
    model = RecurrentGemmaForCausalLM(RecurrentGemmaConfig(**sizes, num_attention_heads=2))
    monkeypatch.setattr(releases, "version", lambda _: "4.57.6")
    with pytest.raises(MissingReleaseError, match=r"RecurrentGemmaForCausalLM needs transformers 5\.0 or later"):
        make_explainable(model)
    assert not hasattr(model, "explain")
    with pytest.raises(MissingReleaseError, match=r"RecurrentGemmaLRPForCausalLM needs transformers 5\.0"):
        hf_mambalrp.RecurrentGemmaLRPForCausalLM  # noqa: B018
    monkeypatch.setattr(releases, "version", lambda _: "5.0.0.dev0")
    assert releases.has_family("recurrent_gemma")


@pytest.mark.skipif(releases.has_family("nemotron_h"), reason="the installed transformers has the family")
def test_without_the_family_all_else_works(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nemotron_h"}))
    for loader in (AutoMambaLRPForCausalLM, AutoMambaLRPForSequenceClassification, MambaLRPForCausalLM):
        with pytest.raises(MissingReleaseError, match=r"a 'nemotron_h' checkpoint, needs transformers 5\.3"):
            loader.from_pretrained(tmp_path)
    with pytest.raises(ImportError, match=r"needs transformers 5\.3 or later"):
        from hf_mambalrp import NemotronHLRPForCausalLM  # noqa: F401
    everything = {}
    exec("from hf_mambalrp import *", everything)
    assert "JambaLRPForCausalLM" in everything
    assert not everything.keys() & set(NEMOTRON)
    assert not set(dir(hf_mambalrp)) & set(NEMOTRON)


@pytest.mark.skipif(not releases.has_family("nemotron_h"), reason="the installed transformers lacks the family")
def test_with_the_family_its_names_are_offered():
    assert set(NEMOTRON) <= set(hf_mambalrp.__all__)
