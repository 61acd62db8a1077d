"""Small hybrids as a user has them: in folders, with a tokenizer, as language models and as classifiers."""

import copy
from functools import cache

import torch
import transformers
from small import WORDS, word_tokenizer
from small_hybrids import TABLE, available, build, one_each

import hf_mambalrp

MODELS = available()
IN_FILES = [name for name in MODELS if name != "zamba2-one-chunk" or "zamba2" in MODELS]
"""transformers 4.57 cannot save a Zamba2 whose layers share weights as these do."""
ONE_EACH = one_each()
ALIGNED = {"granite-moe": {"intermediate_size": 12}, "jamba-moe": {"intermediate_size": 20}}
ALIGNED["nemotron_h-latent"] = {"moe_latent_size": 8}
"""Experts as transformers' default way of computing them takes them: rows of a multiple of 16 bytes."""
OF_TRANSFORMERS = {
    "Jamba": "Jamba",
    "Zamba": "Zamba",
    "Zamba2": "Zamba2",
    "Qwen3Next": "Qwen3Next",
    "Qwen3_5": "Qwen3_5Text",
    "MiniMax": "MiniMax",
}
"""Families whose classifier transformers has, and how its name begins."""


def prefix(name):
    """Before ``ForCausalLM`` in the names of a model's classes."""
    return TABLE[name].family


def language_model(name):
    """Of transformers, with random weights."""
    return build(name, dtype=torch.float32, **ALIGNED.get(name, {}))


@cache
def shared_model(name):
    """:func:`language_model`, explainable, one for all tests that leave it as it is."""
    return hf_mambalrp.make_explainable(language_model(name))


def classifier_class(name):
    """The plain one: transformers' where it has one."""
    family = prefix(name)
    if family in OF_TRANSFORMERS:
        return getattr(transformers, f"{OF_TRANSFORMERS[family]}ForSequenceClassification")
    return getattr(hf_mambalrp, f"{family}ForSequenceClassification")


def classifier(name, **settings):
    """With the backbone of :func:`language_model` and three classes."""
    stock = shared_model(name)
    config = copy.deepcopy(stock.config)
    config.num_labels = 3
    for setting, value in settings.items():
        setattr(config, setting, value)
    model = classifier_class(name)(config).eval()
    model.model.load_state_dict(stock.model.state_dict())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.score.weight.copy_(torch.randn(model.score.weight.shape, generator=generator))
    return model


def saved(model, folder):
    """The folder, with the model and a tokenizer of :data:`small.WORDS`."""
    model.save_pretrained(folder)
    word_tokenizer(model_input_names=["input_ids", "attention_mask"]).save_pretrained(folder)
    return folder


def rows(lengths=(7, 4), seed=3):
    """Token ids of texts of these lengths, all of them words of the tokenizer."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(2, len(WORDS) - 1, (length,), generator=generator) for length in lengths]


def padded(side="right", lengths=(7, 4), pad=0):
    """:func:`rows` as one batch, with their mask."""
    ids = torch.full((len(lengths), max(lengths)), pad)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows(lengths)):
        at = slice(len(row)) if side == "right" else slice(-len(row), None)
        ids[number, at], mask[number, at] = row, 1
    return ids, mask


@torch.no_grad()
def logits(model, ids, mask=None, **inputs):
    """The model's own."""
    mask = torch.ones_like(ids) if mask is None else mask
    return model.eval()(ids, attention_mask=mask, use_cache=False, **inputs).logits
