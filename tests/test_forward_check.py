"""The self-check: no false alarm on any family and dtype, and no change of a model's forward that it lets pass."""

import pytest
import torch
from random_models import padded_batch, random_model
from small import KINDS
from transformers import FalconMambaConfig, Mamba2Config, MambaConfig
from transformers.utils import logging as transformers_logging

from hf_mambalrp import FalconMambaLRPForCausalLM, Mamba2LRPForCausalLM, MambaLRPForCausalLM, make_explainable
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.errors import ForwardMismatchError
from hf_mambalrp.families.parts import stems

IDS, MASK = padded_batch([5, 3])


def explainable(kind="mamba", **options):
    return make_explainable(random_model(**KINDS[kind], **options))


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_no_false_alarm(kind, dtype):
    both = DTYPES.index(dtype) % 2 == 0  # have or lack bias and training mode together, else one of them
    for seed, (use_bias, training) in enumerate([(False, not both), (True, both)]):
        model = explainable(kind, num_layers=4, hidden_size=16, use_bias=use_bias, dtype=dtype, seed=seed)
        model.train(training).explain(IDS, attention_mask=MASK)
        assert subject_of(model)._checked


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("model_class", "config"),
    [
        (MambaLRPForCausalLM, MambaConfig(vocab_size=99, hidden_size=64, num_hidden_layers=12)),
        (FalconMambaLRPForCausalLM, FalconMambaConfig(vocab_size=99, hidden_size=64, num_hidden_layers=12)),
        (
            Mamba2LRPForCausalLM,
            Mamba2Config(vocab_size=99, hidden_size=64, num_heads=8, head_dim=16, num_hidden_layers=12),
        ),
    ],
)
def test_no_false_alarm_where_rounding_grows_from_layer_to_layer(model_class, config, dtype):
    """With the default initializer_range, logits of equal forwards differ as much as unequal ones in bfloat16."""
    for seed in range(3):
        torch.manual_seed(seed)
        model_class(config).to(dtype).explain(IDS, attention_mask=MASK)


def scaled(factor):
    """A forward hook that changes what a module returns."""
    return lambda module, arguments, output: output * factor


def scaled_logits(factor):
    def hook(module, arguments, output):
        output.logits = output.logits * factor
        return output

    return hook


CHANGES = {
    "a mixer": (lambda model: model.backbone.layers[1].mixer, scaled, r"at layer 1 \(counted from 0\)"),
    "a norm": (lambda model: model.backbone.layers[1].norm, scaled, r"at layer 1 "),
    "the last block": (lambda model: model.backbone.layers[2].mixer, scaled, r"at the logits"),
    "the last norm": (lambda model: model.backbone.norm_f, scaled, r"at the logits"),
    "the logits": (lambda model: model, scaled_logits, r"at the logits"),
}


FACTORS = [(torch.float32, 1.02), (torch.bfloat16, 1.2)]
PAIRS = [(kind, change, *FACTORS[(k + c) % 2]) for k, kind in enumerate(KINDS) for c, change in enumerate(CHANGES)]
"""Every kind with every change, and each of both in both dtypes."""


@pytest.mark.parametrize(("kind", "change", "dtype", "factor"), PAIRS)
def test_a_forward_that_does_something_else_is_an_error_that_says_where(kind, change, dtype, factor):
    where, hook, message = CHANGES[change]
    model = explainable(kind, num_layers=3, hidden_size=16, dtype=dtype)
    handle = where(model).register_forward_hook(hook(factor))
    for _ in range(2):  # it is not remembered as checked
        with pytest.raises(ForwardMismatchError, match=message):
            model.explain(IDS, attention_mask=MASK)
        with pytest.raises(ForwardMismatchError, match="check_forward=False"):
            model.explain_generation(IDS, attention_mask=MASK, max_new_tokens=1)
    assert model.explain(IDS, attention_mask=MASK, check_forward=False).relevance.shape == IDS.shape
    assert model.explain_generation(IDS, attention_mask=MASK, max_new_tokens=1, check_forward=False)
    handle.remove()
    model.explain(IDS, attention_mask=MASK)


def test_groups_of_the_gated_norm_that_the_model_ignores_are_found():
    """The difference between transformers 5.23 and its earlier releases, seen from the wrong side."""
    model = explainable("mamba2, two groups", num_layers=3, hidden_size=16)
    norm = model.backbone.layers[0].mixer.norm
    own, whole = norm.forward, norm.weight.shape[0]
    grouped = getattr(norm, "group_size", whole) < whole

    def otherwise(hidden_states, gate=None):
        gated = (hidden_states * torch.nn.functional.silu(gate)).unflatten(-1, (1 if grouped else 2, -1))
        return norm.weight * (gated * torch.rsqrt(gated.pow(2).mean(-1, keepdim=True) + 1e-5)).flatten(-2)

    model.explain(IDS, attention_mask=MASK)
    assert own(torch.ones(1, 1, whole), torch.ones(1, 1, whole)).shape == (1, 1, whole)
    norm.forward = otherwise
    with pytest.raises(ForwardMismatchError, match=r"at layer 0 "):
        model.explain(IDS, attention_mask=MASK)


def test_a_peft_prompt_put_before_the_input_is_not_explained_away():
    import peft

    torch.manual_seed(0)
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, token_dim=8, num_layers=2)
    config.num_attention_heads = 1
    model = make_explainable(peft.get_peft_model(random_model(num_layers=2, dtype=torch.float32), config))
    with pytest.raises(ForwardMismatchError, match=r"states of shape \(1, 19, 8\) for an input of \(1, 16, 8\)"):
        model.explain(IDS, attention_mask=MASK)


def test_it_costs_one_short_forward_for_each_model():
    model, lengths = explainable(), []
    handle = model.register_forward_pre_hook(
        lambda module, arguments, options: lengths.append(options["input_ids"].shape), with_kwargs=True
    )
    model.explain(IDS, attention_mask=MASK, check_forward=False)
    assert lengths == []
    for _ in range(2):
        model.explain(IDS, attention_mask=MASK)
    assert lengths == [(1, stems.TOKENS)]
    handle.remove()


def test_a_model_that_raises_in_it_keeps_its_mode():
    model = explainable().train()
    model.backbone.layers[0].eval()
    modes = [module.training for module in model.modules()]

    def hook(module, arguments, output):
        raise KeyboardInterrupt

    handle = model.backbone.layers[1].register_forward_hook(hook)
    with pytest.raises(KeyboardInterrupt):
        model.explain(IDS, attention_mask=MASK)
    assert [module.training for module in model.modules()] == modes
    handle.remove()


def test_a_forward_that_fails_cannot_be_compared():
    model, error = explainable(), TypeError("unexpected keyword argument")

    def hook(module, arguments, output):
        raise error

    handle = model.backbone.layers[1].register_forward_hook(hook)
    with pytest.raises(ForwardMismatchError, match=r"its own raises TypeError.*check_forward=False") as raised:
        model.explain(IDS, attention_mask=MASK)
    assert raised.value.__cause__ is error
    error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        model.explain(IDS, attention_mask=MASK)
    handle.remove()


def test_transformers_does_not_warn_of_a_slow_path_that_no_explanation_takes(logged):
    before = transformers_logging.get_verbosity()
    explainable("mamba2").explain(IDS, attention_mask=MASK)
    assert transformers_logging.get_verbosity() == before
    assert logged.getvalue() == ""
