"""Every bad input: the type of the error, and that its message names the value and the remedy."""

import numpy as np
import pandas as pd
import pytest
import torch
from random_models import padded_batch, random_model
from small import word_tokenizer
from transformers import MambaConfig, MambaForCausalLM, pipeline

from hf_mambalrp import MambaForSequenceClassification, make_explainable
from hf_mambalrp.errors import (
    BackendError,
    InputError,
    MambaLRPError,
    MissingTokenizerError,
    NonFiniteRelevanceError,
    OptionError,
    TargetError,
    UnknownArchitectureError,
)

IDS = torch.tensor([[1, 2, 3], [4, 5, 6]])


@pytest.fixture(scope="module")
def model():
    return make_explainable(random_model(num_layers=2, dtype=torch.float32))


def classifier(**options):
    config = random_model(num_layers=1).config
    config.num_labels = 3
    config.id2label = {0: "bad", 1: "good", 2: "Good"}
    config.label2id = {"bad": 0, "good": 1, "Good": 2}
    for name, value in options.items():
        setattr(config, name, value)
    return make_explainable(MambaForSequenceClassification(config))


def snapshot(model):
    return (
        {name: (p.clone(), p.requires_grad, p.grad) for name, p in model.named_parameters()},
        {
            name: (m.training, m.forward, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for name, m in model.named_modules()
        },
    )


def assert_untouched(model, before):
    parameters, modules = before
    for name, parameter in model.named_parameters():
        value, requires_grad, grad = parameters[name]
        assert torch.equal(
            parameter,
            value,
        )
        assert parameter.requires_grad == requires_grad
        assert parameter.grad is grad
    for name, module in model.named_modules():
        training, forward, *hooks = modules[name]
        assert module.training == training
        assert module.forward == forward
        assert [len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks)] == hooks


BAD_CALLS = {
    "nothing": ({}, InputError, ["no input", "exactly one"]),
    "two inputs": ({"inputs": IDS, "input_ids": IDS}, InputError, ["inputs and input_ids", "exactly one"]),
    "mapping without ids": ({"inputs": {"attention_mask": IDS}}, InputError, ["attention_mask", "tokenizer"]),
    "number": ({"inputs": 3, "tokenizer": word_tokenizer()}, InputError, ["int 3", "list of texts"]),
    "list of numbers": ({"inputs": ["a", 3], "tokenizer": word_tokenizer()}, InputError, ["['a', 3]"]),
    "tokenizer's name": ({"inputs": "a", "tokenizer": "gpt2"}, InputError, ["'gpt2' is a str", "AutoTokenizer"]),
    "column": ({"inputs": pd.Series(["a"] * 5000)}, InputError, ["Series", 'df["text"].tolist()']),
    "column with a gap": ({"inputs": pd.Series(["a", None])}, InputError, ["Series", 'df["text"].tolist()']),
    "table": ({"inputs": pd.DataFrame({"text": ["a"]})}, InputError, ["DataFrame", 'df["text"].tolist()']),
    "mapping of other things": ({"inputs": {i: i for i in range(5000)}}, InputError, ["'input_ids'", "only [0, 1"]),
    "list of gaps": ({"inputs": ["a", None]}, InputError, ["['a', None]", "list of texts"]),
    "array of floats": ({"inputs": np.ones((2, 3))}, InputError, ["float64", "inputs_embeds"]),
    "array of texts": ({"inputs": np.array(["a", "b"])}, InputError, ["ndarray", "list of texts"]),
    "empty list": ({"inputs": [], "tokenizer": word_tokenizer()}, InputError, ["empty", "at least one text"]),
    "empty text": ({"inputs": ["a b", ""], "tokenizer": word_tokenizer()}, InputError, ["Text 1", "''", "not empty"]),
    "no tokenizer": ({"inputs": "some text"}, MissingTokenizerError, ["tokenizer=", "token ids"]),
    "mask with text": (
        {"inputs": "a", "attention_mask": IDS, "tokenizer": word_tokenizer()},
        InputError,
        ["texts get one"],
    ),
    "one-dimensional": ({"input_ids": IDS[0]}, InputError, ["(3,)", "(B, L)"]),
    "no tokens": ({"input_ids": IDS[:, :0]}, InputError, ["(2, 0)", "at least one"]),
    "ragged": ({"input_ids": [[1, 2], [3]]}, InputError, ["[[1, 2], [3]]", "padding=True"]),
    "ragged list": ({"inputs": [[1, 2], [3]]}, InputError, ["[[1, 2], [3]]", "different lengths", "padding=True"]),
    "ragged output of a tokenizer": (
        {"inputs": {"input_ids": [[1, 2], [3]], "attention_mask": [[1, 1], [1]]}},
        InputError,
        ["different lengths", "padding=True"],
    ),
    "float ids": ({"input_ids": IDS.float()}, InputError, ["float32", "inputs_embeds"]),
    "boolean ids": ({"input_ids": IDS > 2}, InputError, ["bool", "integers"]),
    "id too large": ({"input_ids": torch.tensor([[1, 99]])}, InputError, ["[0, 1]", "99", "0..18"]),
    "negative id": ({"input_ids": torch.tensor([[-1, 2]])}, InputError, ["-1", "0..18"]),
    "mask of another length": ({"input_ids": IDS, "attention_mask": IDS[:, :2]}, InputError, ["(2, 2)", "(2, 3)"]),
    "mask of other values": ({"input_ids": IDS, "attention_mask": IDS}, InputError, ["0 (padding)", "1 (token)"]),
    "many rows of padding": (
        {"input_ids": IDS.repeat(500, 1), "attention_mask": torch.zeros(1000, 3)},
        InputError,
        ["[0, 1, 2", "Leave"],
    ),
    "all padding": (
        {"input_ids": IDS, "attention_mask": torch.tensor([[1, 1, 0], [0, 0, 0]])},
        InputError,
        ["[1]", "Leave"],
    ),
    "embeddings of another width": ({"inputs_embeds": torch.zeros(1, 2, 5)}, InputError, ["(1, 2, 5)", "(B, L, 8)"]),
    "embeddings that are ids": ({"inputs_embeds": IDS}, InputError, ["float", "(B, L, 8)"]),
    "target out of range": ({"input_ids": IDS, "target": 19}, TargetError, ["target=19", "0..18"]),
    "negative target": ({"input_ids": IDS, "target": -1}, TargetError, ["target=-1", "0..18"]),
    "contrast out of range": ({"input_ids": IDS, "contrast": [1, 50]}, TargetError, ["contrast[1]=50", "0..18"]),
    "float target": ({"input_ids": IDS, "target": 1.5}, TargetError, ["1.5", "float", "Allowed"]),
    "boolean target": ({"input_ids": IDS, "target": True}, TargetError, ["True", "bool"]),
    "boolean target of numpy": ({"input_ids": IDS, "target": np.array([True, False])}, TargetError, ["True", "bool"]),
    "bytes as a target": ({"input_ids": IDS[:1], "target": b"\x01"}, TargetError, ["b'\\x01'", "bytes", "an id"]),
    "bytes as targets": ({"input_ids": IDS, "target": bytearray(b"\1\2")}, TargetError, ["bytearray", "an id"]),
    "targets for other rows": ({"input_ids": IDS, "target": [1, 2, 3]}, TargetError, ["3 entries", "2 rows"]),
    "target tensor of another shape": ({"input_ids": IDS, "target": IDS}, TargetError, ["(2, 3)", "(2,)"]),
    "float target tensor": ({"input_ids": IDS, "target": torch.ones(2)}, TargetError, ["float32", "integer"]),
    "text target without a tokenizer": (
        {"input_ids": IDS, "target": " Paris"},
        MissingTokenizerError,
        ["target=' Paris'", "tokenizer="],
    ),
    "empty text target": (
        {"input_ids": IDS, "target": "", "tokenizer": word_tokenizer()},
        TargetError,
        ["target=''", "no tokens"],
    ),
    "function of another shape": (
        {"input_ids": IDS, "target": lambda logits: logits},
        TargetError,
        ["(2, 19)", "one number a row"],
    ),
    "function that returns no tensor": ({"input_ids": IDS, "target": lambda logits: 1.0}, TargetError, ["float"]),
    "function without a gradient": (
        {"input_ids": IDS, "target": lambda logits: logits.argmax(-1).float()},
        TargetError,
        ["argmax"],
    ),
    "position beyond the row": ({"input_ids": IDS, "position": 3}, InputError, ["position=3", "row 0"]),
    "position before the row": ({"input_ids": IDS, "position": -4}, InputError, ["position=-4"]),
    "position on padding": (
        {"input_ids": IDS, "attention_mask": torch.tensor([[0, 1, 1], [1, 1, 1]]), "position": 0},
        InputError,
        ["position=0", "row 0", "padding"],
    ),
    "positions for other rows": ({"input_ids": IDS, "position": [1, 2, 1]}, InputError, ["[1, 2, 1]", "2 here"]),
    "position in a text": ({"input_ids": IDS, "position": "1"}, InputError, ["position='1'", "an integer"]),
    "no position": ({"input_ids": IDS, "position": [None, 1]}, InputError, ["[None, 1]", "an integer"]),
    "complex position": ({"input_ids": IDS, "position": 1j}, InputError, ["1j", "an integer"]),
    "float position": ({"input_ids": IDS, "position": 1.5}, InputError, ["1.5", "integer"]),
    "unknown method": ({"input_ids": IDS, "method": "lime"}, OptionError, ["'lime'", "gradient_x_input", "mambalrp"]),
    "misspelt argument": ({"input_ids": IDS, "targets": 1}, OptionError, ["['targets']", "Did you mean target?"]),
    "unknown method option": (
        {"input_ids": IDS, "steps": 3},
        OptionError,
        ["steps", "mambalrp", "['gamma', 'gamma_on', 'attention_rule']"],
    ),
    "option of no method": ({"input_ids": IDS, "method": "lrp_ln", "gamma": 1}, OptionError, ["gamma", "no options"]),
    "chunk size 0": ({"input_ids": IDS, "chunk_size": 0}, OptionError, ["chunk_size=0", "auto"]),
    "chunk size of another type": ({"input_ids": IDS, "chunk_size": "big"}, OptionError, ["'big'", "auto"]),
    "unknown backend": ({"input_ids": IDS, "backend": "cuda"}, BackendError, ["'cuda'", "chunked", "reference"]),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_call(model, case):
    arguments, error, words = BAD_CALLS[case]
    before = snapshot(model)
    with pytest.raises(error) as raised:
        model.explain(**arguments)
    assert isinstance(raised.value, MambaLRPError)
    for word in words:
        assert word in str(raised.value), str(raised.value)
    assert len(str(raised.value)) < 500
    assert_untouched(model, before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"positions": "x"}, ["positions='x'", "a slice"]),
        ({"positions": [None]}, ["positions=[None]", "a slice"]),
        ({"positions": slice("a")}, ["slice(None, 'a'", "integers"]),
        ({"layers": slice(0, 2)}, ["layers=slice(0, 2", "0..1", "a list of ints"]),
        ({"layers": 1.5}, ["layers=1.5", "a list of ints"]),
    ],
)
def test_rows_and_layers_of_another_type(model, options, words):
    with pytest.raises(OptionError) as raised:
        model.hidden_attention(IDS, **options)
    for word in words:
        assert word in str(raised.value)


def test_position_of_a_classifier():
    with pytest.raises(InputError, match="position=1"):
        classifier().explain(IDS, position=1, attention_mask=torch.ones_like(IDS))


def test_ambiguous_and_unknown_labels_name_the_classes():
    model = classifier()
    assert model.explain(IDS, attention_mask=torch.ones_like(IDS), target="good").target == [1, 1]
    with pytest.raises(TargetError, match=r"several classes.*good.*Good"):
        model.explain(IDS, attention_mask=torch.ones_like(IDS), target="GOOD")
    with pytest.raises(TargetError, match=r"target='great' is no class.*bad"):
        model.explain(IDS, attention_mask=torch.ones_like(IDS), target="great")


def test_classifier_batch_whose_ends_cannot_be_told():
    model = classifier(pad_token_id=None)
    with pytest.raises(InputError, match=r"2 rows.*attention_mask"):
        model.explain(IDS)
    assert model.explain(IDS[:1]).relevance.shape == (1, 3)


def test_several_tokens_where_they_cannot_be_fed_back(model):
    with pytest.raises(TargetError, match="position"):
        model.explain(IDS, target="b c", tokenizer=word_tokenizer(), position=1)
    with pytest.raises(TargetError, match="inputs_embeds"):
        model.explain(inputs_embeds=torch.randn(1, 2, 8), target="b c", tokenizer=word_tokenizer())
    with pytest.raises(TargetError, match="function"):
        model.explain(IDS, target="b c", contrast=lambda logits: logits[:, 0], tokenizer=word_tokenizer())


def test_architectures_without_rules_list_the_known_ones():
    from transformers import GPT2Config, GPT2LMHeadModel, MambaModel

    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))
    with pytest.raises(UnknownArchitectureError, match=r"GPT2LMHeadModel.*gpt2.*mamba"):
        make_explainable(gpt2)
    with pytest.raises(UnknownArchitectureError, match=r"MambaModel has no head.*ForSequenceClassification"):
        make_explainable(MambaModel(random_model(num_layers=1).config))
    with pytest.raises(UnknownArchitectureError, match=r"Linear.*mamba"):
        make_explainable(torch.nn.Linear(2, 2))
    relu = MambaForCausalLM(MambaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, hidden_act="relu"))
    with pytest.raises(UnknownArchitectureError, match="relu"):
        make_explainable(relu)


def test_what_holds_a_model_or_is_none_says_what_to_pass():
    model = random_model(num_layers=1, dtype=torch.float32)
    for given, words in (
        (torch.nn.DataParallel(model), r"DataParallel.*\.module"),
        (pipeline("text-generation", model=model, tokenizer=word_tokenizer()), r"TextGenerationPipeline.*\.model"),
        ("state-spaces/mamba-130m-hf", r"a str.*from_pretrained"),
        (None, r"NoneType.*from_pretrained"),
    ):
        with pytest.raises(UnknownArchitectureError, match=words):
            make_explainable(given)


@pytest.mark.parametrize("layer", [0, 2])
def test_non_finite_numbers_raise_and_name_the_layer(layer):
    model = make_explainable(random_model(num_layers=3, dtype=torch.float32))
    with torch.no_grad():
        model.backbone.layers[layer].mixer.out_proj.weight[0, 0] = float("inf")
    before = snapshot(model)
    with pytest.raises(NonFiniteRelevanceError, match=rf"forward.*layer {layer} .*float32"):
        model.explain(IDS)
    assert_untouched(model, before)


def test_non_finite_embeddings_raise_and_name_the_embedding(model):
    embeddings = torch.randn(1, 3, 8)
    embeddings[0, 1, 2] = float("nan")
    with pytest.raises(NonFiniteRelevanceError, match="the embedding"):
        model.explain(inputs_embeds=embeddings)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("training", [False, True])
def test_a_layer_that_raises_leaves_the_model_as_it_was(error, training):
    model = make_explainable(random_model(num_layers=2, dtype=torch.float32)).train(training)

    class Failing(torch.nn.Linear):
        armed = False

        def forward(self, x):
            if self.armed:
                raise error("stop here")
            return super().forward(x)

    mixer = model.backbone.layers[1].mixer
    failing = Failing(*mixer.in_proj.weight.shape[::-1], bias=False)
    failing.weight = mixer.in_proj.weight
    mixer.in_proj = failing.train(training)
    model.backbone.layers[0].mixer.D.grad = torch.ones_like(model.backbone.layers[0].mixer.D)
    model.backbone.norm_f.weight.requires_grad_(False)
    expected = model.explain(IDS)
    before = snapshot(model)
    failing.armed = True
    with pytest.raises(error, match="stop here"):
        model.explain(IDS)
    failing.armed = False
    assert_untouched(model, before)
    assert torch.equal(model.explain(IDS).relevance, expected.relevance)


def test_a_target_function_that_raises_leaves_the_model_as_it_was(model):
    def target(logits):
        raise ZeroDivisionError("in the caller's function")

    before = snapshot(model)
    with pytest.raises(ZeroDivisionError, match="caller's function"):
        model.explain(IDS, target=target)
    assert_untouched(model, before)


def test_a_good_call_leaves_the_model_as_it_was_and_its_forward_bit_for_bit(model):
    ids, mask = padded_batch([9, 4])
    with torch.no_grad():
        logits = model(ids, attention_mask=mask, use_cache=False).logits
    before = snapshot(model)
    model.explain(ids, attention_mask=mask, per_layer=True)
    assert_untouched(model, before)
    with torch.no_grad():
        assert torch.equal(model(ids, attention_mask=mask, use_cache=False).logits, logits)
