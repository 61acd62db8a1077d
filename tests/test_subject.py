"""One owner of what is known of a model: in the model itself, gone with it, and never shared with a copy."""

import copy
import gc
import inspect
import pickle
from weakref import ref

import pytest
import torch
from random_models import padded_batch, random_model
from torch import nn

from hf_mambalrp import MambaLRPForCausalLM, MambaLRPMixin, make_explainable
from hf_mambalrp.calls.subject import OWNER, subject_of
from hf_mambalrp.errors import InputError, OptionError

IDS, MASK = padded_batch([5, 3])


@pytest.fixture
def model():
    return make_explainable(random_model(dtype=torch.float32))


def test_calls_share_one_network_until_something_that_it_reads_changes(model):
    model.explain(IDS, attention_mask=MASK)
    network = subject_of(model).network()
    model.hidden_attention(IDS, attention_mask=MASK)
    model.train().explain(IDS, attention_mask=MASK)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    assert subject_of(model).network() is network
    handle = model.backbone.layers[0].mixer.in_proj.register_forward_hook(lambda *_: None)
    assert subject_of(model).network() is not network
    handle.remove()
    before = subject_of(model).network()
    model.lm_head = nn.Linear(*reversed(model.lm_head.weight.shape), bias=False)
    after = subject_of(model).network()
    assert after is not before
    assert subject_of(model.double()).network().dtype == torch.float64


def test_a_replaced_weight_is_the_one_that_is_explained(model):
    model.explain(IDS, attention_mask=MASK, target=3)
    mixer = model.backbone.layers[0].mixer
    mixer.D = nn.Parameter(mixer.D.detach() + 1)
    found = model.explain(IDS, attention_mask=MASK, target=3)
    anew = make_explainable(copy.deepcopy(model)).explain(IDS, attention_mask=MASK, target=3)
    assert torch.equal(found.relevance, anew.relevance)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("explained_before", [False, True])
def test_copies_and_pickles_explain_themselves(copied, explained_before):
    config = random_model(dtype=torch.float32).config
    model = MambaLRPForCausalLM(config)
    before = model.explain(IDS, attention_mask=MASK, target=3) if explained_before else None
    other = copied(model)
    assert vars(other).get(OWNER) is None or not vars(other)[OWNER].is_of(other)
    other.lm_head = nn.Linear(*reversed(other.lm_head.weight.shape), bias=False)
    changed = other.explain(IDS, attention_mask=MASK, target=3)
    again = model.explain(IDS, attention_mask=MASK, target=3)
    assert subject_of(other) is not subject_of(model)
    if before is not None:
        assert torch.equal(again.relevance, before.relevance)
    assert not torch.equal(changed.relevance, again.relevance)


def test_a_shallow_copy_has_an_owner_of_its_own():
    model = MambaLRPForCausalLM(random_model(dtype=torch.float32).config)
    model.explain(IDS, attention_mask=MASK)
    other = copy.copy(model)
    other.explain(IDS, attention_mask=MASK)
    assert subject_of(other).model is other
    assert subject_of(model).model is model


def test_a_model_goes_when_its_last_reference_goes():
    model = MambaLRPForCausalLM(random_model(dtype=torch.float32).config)
    model.explain(IDS, attention_mask=MASK)
    gone = ref(model)
    gc.disable()  # no circle keeps its memory until the next collection
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "name", ["explain", "explain_generation", "hidden_attention", "push_to_hub", "save_pretrained"]
)
def test_the_signature_of_a_given_method_is_its_own_without_the_model(model, name):
    _, *wanted = inspect.signature(getattr(MambaLRPMixin, name)).parameters
    assert list(inspect.signature(getattr(model, name)).parameters) == wanted
    assert getattr(model, name).__doc__ == getattr(MambaLRPMixin, name).__doc__


@pytest.mark.parametrize("name", ["explain", "explain_generation", "hidden_attention"])
def test_errors_name_the_call_that_was_made(model, name):
    call = getattr(model, name)
    with pytest.raises(InputError, match=rf"^{name}\(\) got no input"):
        call()
    with pytest.raises(InputError, match=rf"^{name}\(\) got inputs and input_ids"):
        call(IDS, input_ids=IDS)
    with pytest.raises(OptionError, match=name):
        call(IDS, no_such_option=1)


def test_a_refused_model_is_left_as_it_was():
    other = nn.Linear(2, 2)
    before = dict(vars(other))
    with pytest.raises(Exception, match="No rules for Linear"):
        make_explainable(other)
    assert vars(other) == before
