"""Models whose layers were wrapped, quantised, hooked or replaced: explained as they compute, or a typed error."""

import copy
import gc
import threading
import weakref

import peft
import pytest
import torch
from oracles import logit_weights
from oracles_mamba2 import oracle_of
from random_models import padded_batch, random_model
from small import KINDS
from tolerances import RELATIVE
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, make_explainable
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.errors import ConservationError, DetachedLayerError, ForwardMismatchError, UnknownArchitectureError
from hf_mambalrp.families.parts import stems
from hf_mambalrp.rules.twin import evaluation_twin

IDS, MASK = padded_batch([9, 9], seed=1)
TARGETS = [3, 4]
FAMILIES = ["mamba", "falcon_mamba", "mamba2"]


def stock(kind="mamba", **options):
    return random_model(
        **KINDS[kind], **{"use_bias": True, "hidden_size": 16, "dtype": torch.float32, **options}
    ).eval()


def own_logits(model, ids=IDS, mask=MASK):
    """The model's own at the last position."""
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits[:, -1].float()


def agree(found, model):
    """The score is the model's own logit, and all of it is accounted for."""
    own = own_logits(model)[range(len(TARGETS)), TARGETS]
    torch.testing.assert_close(found.score, own, rtol=1e-4, atol=1e-4)
    assert (found.conservation.gap.abs() <= 1e-5 * (found.relevance.abs().sum(-1) + found.score.abs())).all()


def explained(model):
    return model.explain(IDS, attention_mask=MASK, target=TARGETS)


def lora(**options):
    return peft.LoraConfig(r=2, init_lora_weights=False, **options)


ADAPTERS = {
    "embeddings": lora(target_modules=["embeddings", "in_proj"]),
    "DoRA of embeddings": lora(target_modules=["embeddings", "in_proj"], use_dora=True),
    "new tokens": lora(target_modules=["in_proj"], trainable_token_indices=[1, 2, 5]),
    "new tokens alone": peft.TrainableTokensConfig(token_indices=[1, 2, 5], target_modules=["embeddings"]),
    "biases of LoRA": lora(target_modules=["in_proj"], lora_bias=True),
    "scaled outputs": peft.IA3Config(target_modules=["in_proj"], feedforward_modules=[]),
    "scaled inputs": peft.IA3Config(target_modules=["in_proj", "x_proj"], feedforward_modules=["in_proj"]),
    "norms": peft.LNTuningConfig(target_modules=["norm"]),
    "the last norm": peft.LNTuningConfig(target_modules=["norm_f"]),
    "head and norm of their own": lora(target_modules=["in_proj"], modules_to_save=["lm_head", "norm_f"]),
    "a parameter of a layer": lora(target_modules=[], target_parameters=["in_proj.weight"]),
    "a parameter of the mixer": lora(target_modules=[], target_parameters=["mixer.A_log"]),
    "the head": lora(target_modules=["lm_head"]),
}


@pytest.fixture
def adapted():
    """Builds a model with an adapter whose every weight matters."""

    def build(kind, name, **options):
        torch.manual_seed(0)
        model = peft.get_peft_model(stock(kind, **options), ADAPTERS[name])
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.3 * torch.randn_like(parameter))
        return model

    return build


# A_log has one dimension in Mamba-2, and PEFT adapts parameters of two or three.
ADAPTED = [(k, name) for k in FAMILIES for name in ADAPTERS if (k, name) != ("mamba2", "a parameter of the mixer")]


@pytest.mark.parametrize(("kind", "name"), ADAPTED)
def test_adapters_are_explained_as_the_weights_they_amount_to(kind, name, adapted):
    model = make_explainable(adapted(kind, name)).eval()
    before, both = own_logits(model), []
    for training in (True, False):
        both.append(explained(model.train(training)))
        assert all(part.training == training for part in model.modules())
        agree(both[-1], model.eval())
        assert torch.equal(own_logits(model), before)
    merged = copy.deepcopy(model).merge_and_unload()
    torch.testing.assert_close(own_logits(merged), before, rtol=1e-4, atol=1e-5)
    expected = oracle_of(
        merged, input_ids=IDS, attention_mask=MASK, weights=logit_weights(TARGETS, merged.config.vocab_size)
    )
    for found in both:
        difference = (found.relevance.double() - expected.relevance).norm() / expected.relevance.norm()
        assert difference < RELATIVE[torch.float32]
        torch.testing.assert_close(found.conservation.biases.double(), expected.biases, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["norms", "a parameter of the mixer", "head and norm of their own", "new tokens"])
def test_an_adapter_that_is_switched_off_is_not_explained(name, adapted):
    model = make_explainable(adapted("mamba", name))
    with_adapter = explained(model)
    with model.disable_adapter():
        found = explained(model)
        agree(found, model)
    assert not torch.allclose(found.relevance, with_adapter.relevance, rtol=1e-3)
    assert explained(model) == with_adapter


@pytest.mark.parametrize("layers", [["in_proj", "out_proj"], ["in_proj"], ["x_proj"], ["score"]])
def test_dynamically_quantised_layers_are_the_weights_they_stand_for(layers):
    model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
    names = [name for name, part in model.named_modules() if name.rpartition(".")[2] in layers]
    settings = dict.fromkeys(names, torch.ao.quantization.default_dynamic_qconfig)
    with pytest.warns(DeprecationWarning, match="quantization"):
        quantised = make_explainable(torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), settings))
    for name in names:
        layer = quantised.get_submodule(name)
        assert not isinstance(layer, nn.Linear)
        with torch.no_grad():
            model.get_submodule(name).weight.copy_(layer.weight().dequantize())
    text = "The plot is thin, but the two leads are wonderful."
    found, expected = quantised.explain(text, target=1), model.explain(text, target=1)
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.score, expected.score, rtol=1e-4, atol=1e-6)


class Coded(torch.Tensor):
    """A weight as torchao's classes of tensors store it: codes and a scale, and products of its own."""

    @staticmethod
    def __new__(cls, weight):
        return torch.Tensor._make_wrapper_subclass(cls, weight.shape, dtype=weight.dtype)

    def __init__(self, weight):
        self.scale = float(weight.abs().max()) / 127
        self.codes = (weight.detach() / self.scale).round().to(torch.int8)

    def dequantize(self):
        return self.codes.float() * self.scale

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        if function is nn.functional.linear:
            x, weight, *bias = arguments
            return function(x, weight.dequantize(), *bias, **(options or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return function(*arguments, **(options or {}))

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        if function is torch.ops.aten.detach.default:
            return arguments[0]
        raise NotImplementedError(f"{function} of a {cls.__name__}")


@pytest.mark.parametrize("layer", ["in_proj", "out_proj", "x_proj", "lm_head"])
@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_weights_that_are_tensors_of_their_own_class_are_dequantised(kind, layer):
    if kind == "mamba2" and layer == "x_proj":
        layer = "in_proj"
    model, plain = stock(kind), stock(kind)
    for name, part in list(model.named_modules()):
        if name.rpartition(".")[2] == layer:
            part.weight = nn.Parameter(Coded(part.weight.detach()), requires_grad=False)
            plain.get_submodule(name).weight.data = part.weight.dequantize()
    found = explained(make_explainable(model))
    agree(found, model)
    torch.testing.assert_close(found.relevance, explained(make_explainable(plain)).relevance, rtol=1e-5, atol=1e-6)


def hooked(model, where, hook):
    part = model.get_submodule(where)
    part.register_forward_hook(lambda module, arguments, output: hook(output))
    return model


def at_the_last_position(output):
    output = output.clone()
    output[:, -1] += 0.5
    return output


@pytest.mark.parametrize("hook", [lambda y: y + 0.3, at_the_last_position, lambda y: y * 0.5, lambda y: y * 0])
@pytest.mark.parametrize("where", ["in_proj", "out_proj", "lm_head"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_hook_that_adds_or_scales_is_explained_and_what_it_adds_is_a_bias(kind, where, hook):
    where = where if where == "lm_head" else f"backbone.layers.1.mixer.{where}"
    model = make_explainable(hooked(stock(kind), where, hook))
    found = explained(model)
    agree(found, model)


@pytest.mark.parametrize("where", ["backbone.layers.1.mixer.in_proj", "backbone.layers.0.mixer.out_proj", "lm_head"])
@pytest.mark.parametrize("method", ["mambalrp", "lrp_ln", "gradient_x_input"])
def test_a_layer_whose_output_carries_no_gradient_is_an_error_that_names_it(where, method):
    model = make_explainable(hooked(stock(), where, torch.Tensor.detach))
    with pytest.raises(DetachedLayerError, match=where):
        model.explain(IDS, attention_mask=MASK, method=method)
    with pytest.raises(DetachedLayerError, match=where):
        model.explain_generation(IDS, attention_mask=MASK, max_new_tokens=1, method=method)


@pytest.mark.parametrize("chunk_size", ["auto", 4])
@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("backbone.layers.1.mixer.out_proj", "layer 1 "),
        ("backbone.layers.0.mixer.in_proj", "layer 0 "),
        ("lm_head", "head"),
    ],
)
@pytest.mark.parametrize("kind", FAMILIES)
def test_relevance_that_is_lost_is_an_error_that_names_the_first_layer(kind, where, named, chunk_size):
    model = stock(kind, num_layers=3)
    hooked(model, where, lambda y: y / 2 + y.detach() / 2)
    if where == "backbone.layers.1.mixer.out_proj":  # below it, so it is not the first from the score down
        hooked(model, "backbone.layers.0.mixer.out_proj", lambda y: y / 2 + y.detach() / 2)
    make_explainable(model)
    with pytest.raises(ConservationError, match=rf"first at (the )?{named}"):
        model.explain(IDS, attention_mask=MASK, target=TARGETS, chunk_size=chunk_size)
    assert model.explain(IDS, attention_mask=MASK, target=TARGETS, method="gradient_x_input").relevance.any()


def test_in_half_precision_a_gap_is_judged_by_what_is_summed_and_by_the_largest_logit():
    """A score near zero is a logit, and known no better than the others are."""
    gaps, sizes = torch.tensor([0.04, -0.06, 0.02, -0.04]), torch.tensor([1.0, 1.0, 0.1, 0.1])
    logits = torch.tensor([[[0.5, -1.0]], [[1.0, 0.1]], [[-3.0, 0.2]], [[0.0, 3.0]]])
    for dtype, expected in ((torch.bfloat16, [False, True, False, True]), (torch.float32, [True] * 4)):
        network = subject_of(make_explainable(stock().to(dtype))).network()
        assert network.beyond_rounding(gaps, sizes, logits).tolist() == expected
        assert not network.beyond_rounding(9e-5 * sizes, sizes, 0 * logits).any()


def test_a_target_that_is_not_linear_keeps_what_it_does_not_pass_on():
    """The probability's gradient hands down sum_v logit_v dp/dlogit_v, which is not p; it is no loss in a layer."""
    model = make_explainable(stock())
    found = model.explain(IDS, attention_mask=MASK, target=lambda logits: logits.softmax(-1)[:, 3])
    logits = own_logits(model).requires_grad_()
    (gradient,) = torch.autograd.grad(logits.softmax(-1)[:, 3].sum(), logits)
    handed_down = (logits * gradient).sum(-1).detach()
    torch.testing.assert_close(found.relevance.sum(-1) + found.conservation.biases, handed_down, rtol=1e-4, atol=1e-6)


def after_an_explanation(change):
    model = make_explainable(stock())
    explained(model)
    change(model)
    return model


def patched(module):
    """Its forward times 1.1, set on the instance."""
    own = module.forward
    module.forward = lambda *arguments, **options: own(*arguments, **options) * 1.1


CHANGES = {
    "a hook on a block": lambda model: hooked(model, "backbone.layers.0", lambda y: y * 1.1),
    "a hook on a mixer": lambda model: hooked(model, "backbone.layers.0.mixer", lambda y: y * 1.1),
    "a hook on a norm": lambda model: hooked(model, "backbone.layers.1.norm", lambda y: y * 1.1),
    "a hook on the last norm": lambda model: hooked(model, "backbone.norm_f", lambda y: y * 1.1),
    "a hook before a mixer": lambda model: model.backbone.layers[0].mixer.register_forward_pre_hook(
        lambda module, arguments: (arguments[0] * 1.1, *arguments[1:])
    ),
    "a patched mixer": lambda model: patched(model.backbone.layers[0].mixer),
    "a patched norm": lambda model: patched(model.backbone.layers[0].norm),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changes_the_forward_after_a_first_explanation_is_found(change):
    model = after_an_explanation(change)
    for _ in range(2):
        with pytest.raises(ForwardMismatchError):
            explained(model)


def test_another_activation_after_a_first_explanation_has_no_rule():
    def changed(model):
        vars(model.backbone.layers[0].mixer).update(activation="gelu")
        model.backbone.layers[0].mixer.act = nn.GELU()

    model = after_an_explanation(changed)
    for _ in range(2):
        with pytest.raises(UnknownArchitectureError, match=r"layers\.0\.mixer uses the activation 'gelu'"):
            explained(model)


def test_a_patched_class_and_a_global_hook_are_found(monkeypatch):
    model = make_explainable(stock())
    explained(model)
    mixer = type(model.backbone.layers[0].mixer)
    own = mixer.forward
    with monkeypatch.context() as patch:
        patch.setattr(mixer, "forward", lambda self, *inputs, **options: own(self, *inputs, **options) * 1.1)
        with pytest.raises(ForwardMismatchError):
            explained(model)
    explained(model)
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, arguments, output: output * 1.1 if isinstance(module, mixer) else None
    )
    try:
        with pytest.raises(ForwardMismatchError):
            explained(model)
    finally:
        handle.remove()
    explained(model)


def test_a_hook_that_changes_nothing_is_checked_once_and_then_explained():
    seen = []
    model = after_an_explanation(lambda model: hooked(model, "backbone.layers.0", lambda y: seen.append(y.shape)))
    found = [explained(model) for _ in range(3)]
    assert seen == [(1, stems.TOKENS, 16)]
    assert found[0] == found[1] == found[2]


def test_the_check_keeps_no_model_alive():
    model = make_explainable(stock())
    patched(model.backbone.layers[0].mixer.conv1d)  # which the model's own forward does not call
    explained(model)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda model: setattr(model.backbone.layers[1], "norm", nn.LayerNorm(16)), "backbone.layers.1.norm"),
        (lambda model: setattr(model.backbone, "norm_f", nn.Identity()), "backbone.norm_f"),
        (lambda model: setattr(model.backbone.layers[0], "mixer", nn.Linear(16, 16)), "backbone.layers.0.mixer"),
    ],
)
def test_another_module_in_the_place_of_a_part_is_refused_by_name(change, named):
    model = stock()
    change(model)
    with pytest.raises(UnknownArchitectureError, match=named):
        make_explainable(model)


class Larger(nn.Module):
    def forward(self, weight):
        return weight * 1.1


@pytest.mark.parametrize(
    ("where", "parameter"),
    [("mixer", "A_log"), ("mixer", "D"), ("mixer.in_proj", "weight"), ("mixer.conv1d", "weight"), ("norm", "weight")],
)
@pytest.mark.parametrize("kind", FAMILIES)
def test_parametrised_weights_are_explained_as_they_are_computed(kind, where, parameter):
    model = stock(kind)
    parametrize.register_parametrization(model.backbone.layers[0].get_submodule(where), parameter, Larger())
    found = explained(make_explainable(model))
    agree(found, model)


def test_weight_norm_is_explained_as_it_is_computed():
    model = stock()
    parametrizations.weight_norm(model.backbone.layers[0].mixer.out_proj)
    agree(explained(make_explainable(model)), model)


def test_sharded_weights_are_refused(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        model = make_explainable(stock())
        torch.distributed.fsdp.fully_shard(model)
        with pytest.raises(UnknownArchitectureError, match=r"sharded over processes.*device_map"):
            explained(model)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_model_that_was_trained_in_mixed_precision_is_explained_in_its_own(kind, training, precision):
    """What ``Trainer(bf16=True)`` and ``Accelerator.prepare`` leave behind: a forward under autocast."""
    model = make_explainable(stock(kind, num_layers=4))
    expected, own = explained(model), own_logits(model)
    model._original_forward = model.forward
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    model.forward = torch.autocast("cpu", dtype=dtype)(model.forward)
    model.train(training)
    wrapped = model.forward
    found = explained(model)
    assert model.forward is wrapped
    assert found == expected
    torch.testing.assert_close(found.score, own[range(2), TARGETS], rtol=1e-4, atol=1e-4)


def test_what_accelerate_prepares_is_explained():
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    model = make_explainable(stock())
    expected = explained(model)
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        prepared = Accelerator(mixed_precision="bf16", cpu=True).prepare(model)
        assert explained(prepared) == expected
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_other_threads_see_no_change_while_a_model_is_checked_and_explained():
    """Modes, hooks and transformers' verbosity, read at every block's and every layer's call."""
    from transformers.utils import logging

    model = make_explainable(peft.get_peft_model(stock("mamba2"), lora(target_modules=["in_proj"], lora_dropout=0.5)))
    model.train()
    parts = dict(model.named_modules())

    def state():
        return logging.get_verbosity(), {
            name: (part.training, list(part._forward_hooks), list(vars(part))) for name, part in parts.items()
        }

    seen = []
    model.get_submodule("base_model.model.lm_head").register_forward_pre_hook(lambda *_: seen.append(state()))
    before = state()

    def look():
        while not stop.is_set():
            seen.append(state())

    stop = threading.Event()
    other = threading.Thread(target=look)
    other.start()
    try:
        explained(model)
        model.hidden_attention(IDS, attention_mask=MASK)
    finally:
        stop.set()
        other.join()
    assert len(seen) > 2
    assert all(each == before for each in seen)
    assert state() == before


def test_a_twin_shares_weights_and_nothing_else():
    model = stock().train()
    twin = evaluation_twin(model)
    assert not any(part.training for part in twin.modules())
    assert all(part.training for part in model.modules())
    assert [p.data_ptr() for p in twin.parameters()] == [p.data_ptr() for p in model.parameters()]
    twin.backbone.layers[0].register_forward_hook(lambda *_: None)
    twin.backbone.layers[0].mixer.extra = 1
    assert not model.backbone.layers[0]._forward_hooks
    assert not hasattr(model.backbone.layers[0].mixer, "extra")
    assert torch.equal(own_logits(twin), own_logits(model.eval()))
