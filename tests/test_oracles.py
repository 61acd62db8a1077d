"""The oracles of Mamba-1 and Falcon-Mamba agree with each other, with Hugging Face and with an example by hand."""

from __future__ import annotations

import math
from itertools import chain, combinations

import pytest
import torch
import torch.nn.functional as F
import transformers
from oracles import (
    GRADIENT_X_INPUT,
    LRP_LN,
    MAMBALRP,
    HFFloat64,
    OracleResult,
    hf_gradient_x_input,
    last_attended,
    logit_weights,
    mambalrp_dense,
    mambalrp_explicit,
)
from random_models import padded_batch, random_model, tiny_mamba_weights
from torch.overrides import TorchFunctionMode
from transformers.models.falcon_mamba import modeling_falcon_mamba
from transformers.models.mamba.modeling_mamba import MambaRMSNorm

EPS = 1e-5
TRANSFORMERS = tuple(int(part) for part in transformers.__version__.split(".")[:2])
ALL_RULE_SETS = [frozenset(s) for s in chain.from_iterable(combinations(sorted(MAMBALRP), n) for n in range(5))]
SMALL = {"hidden_size": 6, "state_size": 3, "conv_kernel": 3}
EPSILONS = {"mamba": {"eps": EPS}, "falcon_mamba": {"eps": EPS, "parameter_eps": 1e-2}}
both_families = pytest.mark.parametrize("model_type", EPSILONS)
LENGTHS = {"none": (6, 6), "left": (6, 3), "right": (6, 3)}


@pytest.fixture(autouse=True)
def one_thread():
    """Thread pools on tiny tensors cost seconds where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def same(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def same_result(a: OracleResult, b: OracleResult, tolerance: float) -> None:
    for field in ("logits", "score", "relevance", "layer_relevance", "biases", "bias_by_layer"):
        same(getattr(a, field), getattr(b, field), tolerance)
    assert a.bias_by_name.keys() == b.bias_by_name.keys()
    for name, absorbed in a.bias_by_name.items():
        same(absorbed, b.bias_by_name[name], tolerance)


def batch(side: str, lengths: tuple[int, ...] | None = None, seed: int = 1) -> dict[str, torch.Tensor | None]:
    ids, mask = padded_batch(lengths or LENGTHS[side], side="right" if side == "none" else side, seed=seed)
    return {"input_ids": ids, "attention_mask": None if side == "none" else mask}


# -- the forward ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("oracle", [mambalrp_explicit, mambalrp_dense])
@both_families
def test_forward_is_hugging_faces(model_type, oracle, side, use_bias):
    if use_bias and side == "left" and TRANSFORMERS < (5, 15):
        pytest.skip("before 5.15 the mask was applied after in_proj, so in_proj.bias did not reach the conv from pads")
    model = random_model(model_type=model_type, use_bias=use_bias, **SMALL)
    inputs = batch(side)
    with torch.no_grad(), HFFloat64():
        logits = model(**inputs, use_cache=False).logits
    assert logits.dtype == torch.float64
    mask = inputs["attention_mask"]
    positions = torch.full((2,), 5) if mask is None else last_attended(mask)
    result = oracle(model.state_dict(), **EPSILONS[model_type], **inputs)
    same(result.logits, logits[torch.arange(2), positions], 1e-10)


def test_forward_at_any_position_and_from_embeddings():
    model = random_model(**SMALL)
    ids = batch("none")["input_ids"]
    with torch.no_grad(), HFFloat64():
        logits = model(input_ids=ids, use_cache=False).logits
    embeds = model.get_input_embeddings()(ids)
    positions = torch.tensor([2, 4])
    result = mambalrp_explicit(model.state_dict(), eps=EPS, inputs_embeds=embeds, positions=positions)
    same(result.logits, logits[torch.arange(2), positions], 1e-10)
    assert result.relevance[0, 3:].abs().max() == 0  # causal: later tokens matter to nothing
    assert result.relevance[1, 4].abs() > 0


def test_the_random_model_is_the_same_in_every_dtype_and_leaves_the_rng_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    single, double = random_model(dtype=torch.float32), tiny_mamba_weights()
    assert torch.equal(torch.rand(2), expected)
    for name, value in single.state_dict().items():
        assert torch.equal(value, double[name].float())
    bias = F.softplus(double["backbone.layers.0.mixer.dt_proj.bias"])
    assert bias.min() >= 0.001
    assert bias.max() <= 1


def test_the_buffers_of_falcon_mamba_are_neither_written_nor_read():
    model = random_model(model_type="falcon_mamba", **SMALL)
    buffers = dict(model.named_buffers())  # dt_layernorm.weight, b_layernorm.weight, ...: for a kernel only
    assert buffers
    assert all((value == 1).all() for value in buffers.values())
    state, inputs = model.state_dict(), {**EPSILONS["falcon_mamba"], **batch("left"), "rules": GRADIENT_X_INPUT}
    with_buffers = {**state, **{name: value + 1 for name, value in buffers.items()}}
    same_result(mambalrp_explicit(with_buffers, **inputs), mambalrp_explicit(state, **inputs), 0)


def test_the_norms_of_falcon_mamba_matter():
    state = tiny_mamba_weights(model_type="falcon_mamba", **SMALL)
    inputs = {**batch("none"), "weights": logit_weights([3, 5], 19)}
    falcon = mambalrp_explicit(state, **EPSILONS["falcon_mamba"], **inputs)
    mamba = mambalrp_explicit(state, eps=EPS, **inputs)
    assert (falcon.logits - mamba.logits).abs().max() > 1e-2
    assert (falcon.relevance - mamba.relevance).abs().max() > 1e-2


# -- the derivations agree --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", ALL_RULE_SETS, ids=lambda rules: "+".join(sorted(rules)) or "no rules")
@both_families
def test_explicit_is_dense(model_type, rules):
    weights = logit_weights([3, 5], 19, contrasts=[1, 11])
    state = tiny_mamba_weights(model_type=model_type, use_bias=True, **SMALL)
    inputs = {**EPSILONS[model_type], **batch("left"), "weights": weights, "rules": rules}
    same_result(mambalrp_explicit(state, **inputs), mambalrp_dense(state, **inputs), 1e-10)


@pytest.mark.parametrize("side", ["none", "right"])
def test_explicit_is_dense_with_other_padding(side):
    state = tiny_mamba_weights(use_bias=True, seed=4, **SMALL)
    explicit = mambalrp_explicit(state, eps=EPS, **batch(side))
    same_result(explicit, mambalrp_dense(state, eps=EPS, **batch(side)), 1e-9)


@pytest.mark.skipif(TRANSFORMERS < (5, 15), reason="the mask was applied after in_proj; in_proj.bias is masked too")
@pytest.mark.parametrize("rules", [GRADIENT_X_INPUT, MAMBALRP], ids=lambda rules: f"{len(rules)} rules")
@both_families
def test_a_mask_with_holes(model_type, rules, monkeypatch):
    model = random_model(model_type=model_type, use_bias=True, seed=9, **SMALL)
    inputs = {"input_ids": batch("none")["input_ids"], "attention_mask": torch.tensor([[0, 1, 0, 1, 1, 0]] * 2)}
    explicit = mambalrp_explicit(model.state_dict(), **EPSILONS[model_type], rules=rules, **inputs)
    dense = mambalrp_dense(model.state_dict(), **EPSILONS[model_type], rules=rules, **inputs)
    same_result(explicit, dense, 1e-9)
    same_result(explicit, autograd_with_rules(model, rules, monkeypatch, **inputs), 1e-9)


class SiLUIdentityRule(TorchFunctionMode):
    """Every SiLU is x * sigmoid(x).detach()."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.silu:
            return args[0] * torch.sigmoid(args[0]).detach()
        return func(*args, **(kwargs or {}))


def norm_with_constant_normaliser(self, hidden_states):
    normaliser = torch.rsqrt(hidden_states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    return self.weight * hidden_states * normaliser.detach()


def parameters_with_constant_normaliser(hidden_states, variance_epsilon):
    return hidden_states * torch.rsqrt(hidden_states.pow(2).mean(-1, keepdim=True) + variance_epsilon).detach()


def patch_norms(monkeypatch) -> None:
    """The "norm" rule on every RMSNorm of Mamba-1 and Falcon-Mamba."""
    monkeypatch.setattr(MambaRMSNorm, "forward", norm_with_constant_normaliser)
    falcon = modeling_falcon_mamba
    monkeypatch.setattr(falcon.FalconMambaRMSNorm, "forward", norm_with_constant_normaliser)
    if hasattr(falcon, "rms_forward"):  # transformers 4: a function for the norms on dt, B and C
        monkeypatch.setattr(falcon, "rms_forward", parameters_with_constant_normaliser)
    else:
        norm = falcon.FalconMambaWeightlessRMSNorm
        monkeypatch.setattr(norm, "forward", lambda self, x: parameters_with_constant_normaliser(x, self.eps))


def constant(_module, _args, output):
    return output.detach()


def half(_module, args):
    return (args[0] / 2 + (args[0] / 2).detach(),)


def autograd_with_rules(model, rules, monkeypatch, **inputs) -> OracleResult:
    """The rules put on Hugging Face's own forward from outside."""
    if "norm" in rules:
        patch_norms(monkeypatch)
    for layer in model.backbone.layers:
        if "ssm" in rules:  # dt, B and C all come out of x_proj
            layer.mixer.x_proj.register_forward_hook(constant)
        if "gate" in rules:  # out_proj's input is y * silu(z)
            layer.mixer.out_proj.register_forward_pre_hook(half)
    if "silu" in rules:
        with SiLUIdentityRule():
            return hf_gradient_x_input(model, **inputs)
    return hf_gradient_x_input(model, **inputs)


@pytest.mark.parametrize("side", ["none", "left", "right"])
@both_families
def test_no_rules_is_hugging_faces_gradient_x_input(model_type, side):
    model = random_model(model_type=model_type, hidden_size=12, num_layers=3, seed=2)
    inputs = {**batch(side, (11, 7) if side != "none" else (11, 11)), "weights": logit_weights([3, 5], 19)}
    explicit = mambalrp_explicit(model.state_dict(), **EPSILONS[model_type], rules=GRADIENT_X_INPUT, **inputs)
    same_result(explicit, hf_gradient_x_input(model, **inputs), 1e-10)


@pytest.mark.parametrize("rules", [LRP_LN, frozenset({"norm", "gate"}), MAMBALRP], ids=lambda r: "+".join(sorted(r)))
@both_families
def test_rules_are_autograd_through_hugging_faces_rewritten_model(model_type, rules, monkeypatch):
    model = random_model(model_type=model_type, hidden_size=12, num_layers=3, use_bias=True, seed=5)
    inputs = {**batch("right", (11, 7)), "weights": logit_weights([3, 5], 19, contrasts=[4, 4])}
    explicit = mambalrp_explicit(model.state_dict(), **EPSILONS[model_type], rules=rules, **inputs)
    same_result(explicit, autograd_with_rules(model, rules, monkeypatch, **inputs), 1e-9)


@both_families
def test_the_rule_sets_differ(model_type):
    state, inputs = tiny_mamba_weights(model_type=model_type, **SMALL), {**EPSILONS[model_type], **batch("none")}
    rows = [mambalrp_explicit(state, rules=rules, **inputs).relevance for rules in ALL_RULE_SETS]
    gaps = [(a - b).abs().max() for a, b in combinations(rows, 2)]
    assert min(gaps) > 1e-3
    with pytest.raises(ValueError, match="half"):
        mambalrp_explicit(state, rules={"half"}, **inputs)


# -- conservation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["none", "left", "right"])
@both_families
def test_relevance_and_biases_add_up_to_the_score_at_every_layer(model_type, side):
    inputs = batch(side, (30, 30) if side == "none" else (30, 17))
    state = tiny_mamba_weights(model_type=model_type, hidden_size=16, num_layers=4, use_bias=True, seed=6)
    state["lm_head.bias"] = torch.linspace(-1, 1, 19, dtype=torch.float64)
    result = mambalrp_explicit(state, **EPSILONS[model_type], **inputs)
    same(result.relevance.sum(-1) + result.biases, result.score, 1e-9)
    for i in range(5):
        same(result.layer_relevance[i].sum(-1) + result.bias_by_layer[i:].sum(0), result.score, 1e-9)
    assert result.bias_by_layer.abs().min() > 1e-6
    assert len(result.bias_by_name) == 4 * 3 + 1
    if inputs["attention_mask"] is not None:
        assert result.relevance[inputs["attention_mask"] == 0].abs().max() == 0


def test_relevance_adds_up_to_the_score_without_biases():
    state = tiny_mamba_weights(hidden_size=16, num_layers=4, use_conv_bias=False, seed=7)
    result = mambalrp_explicit(state, eps=EPS, **batch("left", (30, 17)))
    same(result.layer_relevance.sum(-1), result.score.expand(5, 2), 1e-9)
    assert result.bias_by_name == {}
    zero = tiny_mamba_weights(use_bias=True, zero_biases=True, seed=7)
    result = mambalrp_explicit(zero, eps=EPS, **batch("left", (30, 17)))
    same(result.relevance.sum(-1), result.score, 1e-9)
    assert result.biases.abs().max() == 0
    gradient = mambalrp_explicit(zero, eps=EPS, rules=GRADIENT_X_INPUT, **batch("left", (30, 17)))
    assert (gradient.relevance.sum(-1) - gradient.score).abs().min() > 0.01


def test_padding_side_does_not_change_relevance():
    state = tiny_mamba_weights(seed=8)
    ids, mask = padded_batch([9, 5], side="left")
    left = mambalrp_explicit(state, eps=EPS, input_ids=ids, attention_mask=mask)
    right = mambalrp_explicit(state, eps=EPS, input_ids=ids.roll(-4, 1), attention_mask=mask.roll(-4, 1))
    alone = mambalrp_explicit(state, eps=EPS, input_ids=ids[1:, 4:])
    same(left.relevance[1, 4:], alone.relevance[0], 1e-12)
    same(right.relevance[1, :5], alone.relevance[0], 1e-12)


# -- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("oracle", [mambalrp_explicit, mambalrp_dense])
def test_one_channel_two_tokens_by_hand(oracle):
    """1 layer, D = E = N = R = 1, K = 2, two tokens, worked out on paper with l2 = log 2 and l3 = log 3.

    Embeddings 1 and 7, eps 15: r = 1/sqrt(1 + 15) = 1/4 and 1/sqrt(49 + 15) = 1/8. Norm weight 8 l3: u = 2 l3, 7 l3.
    in_proj rows 1/2 and 1/7:         x0 = l3, 3.5 l3;  z_2 = l3 (z_1 matters to nothing).
    conv (-3.5, 1), bias l3:          c_1 = 0 + l3 + l3 = 2 l3;  c_2 = -3.5 l3 + 3.5 l3 + l3 = l3.
    sigmoid(2 l3) = 9/10, sigmoid(l3) = 3/4:  x_1 = 1.8 l3, x_2 = 0.75 l3.
    x_proj rows (dt, B, C) 1/l3:      dt_low = B = C = 1.8, 0.75.
    dt_proj -l3/1.05, bias 1.8 l3/1.05:  v = 0, l3;  dt = log(1 + 1) = l2, log(1 + 3) = 2 l2.
    A_log = 0, A = -1:                exp(dt_2 A) = 1/4.
    alpha_21 = C_2 exp(dt_2 A) dt_1 B_1 = 0.75 * 0.25 * l2 * 1.8 = 0.3375 l2
    alpha_22 = C_2 dt_2 B_2             = 0.75 * 2 l2 * 0.75     = 1.125 l2
    D = 2:  y_2 = alpha_21 x_1 + (alpha_22 + 2) x_2 = 0.6075 l2 l3 + (0.84375 l2 l3 + 1.5 l3)
    silu(z_2) = 0.75 l3, out_proj 2:  out_2 = 1.5 l3 y_2, stream after the block h_2 = 7 + out_2.
    norm_f weight 3, head 1 and -1 (class 0 explained): score = G h_2 with G = 3 / sqrt(h_2^2 + 15).

    Backward, in units of G. h_2 splits into the residual 7 (token 2) and out_2; the gate rule gives half of out_2,
    0.75 l3 y_2, to z_2 (token 2: no bias, silu keeps relevance) and half to y_2, which splits as its three terms:
        R(x_1) = 0.75 l3 * 0.6075 l2 l3,   R(x_2) = 0.75 l3 * (0.84375 l2 l3 + 1.5 l3).
    silu keeps relevance: R(c) = R(x). c_1 = l3 + l3 is half token 1, half the bias.
    c_2 = l3 (-3.5 + 3.5 + 1): token 1 takes -3.5, token 2 takes 3.5 and the bias 1 times R(c_2).
    """
    l2, l3 = math.log(2), math.log(3)
    layer = "backbone.layers.0."
    values = {
        "backbone.embeddings.weight": [[1.0], [7.0]],
        layer + "norm.weight": [8 * l3],
        layer + "mixer.in_proj.weight": [[1 / 2], [1 / 7]],
        layer + "mixer.conv1d.weight": [[[-3.5, 1.0]]],
        layer + "mixer.conv1d.bias": [l3],
        layer + "mixer.x_proj.weight": [[1 / l3], [1 / l3], [1 / l3]],
        layer + "mixer.dt_proj.weight": [[-l3 / 1.05]],
        layer + "mixer.dt_proj.bias": [1.8 * l3 / 1.05],
        layer + "mixer.A_log": [[0.0]],
        layer + "mixer.D": [2.0],
        layer + "mixer.out_proj.weight": [[2.0]],
        "backbone.norm_f.weight": [3.0],
        "lm_head.weight": [[1.0], [-1.0]],
    }
    state = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
    ids, weights = torch.tensor([[0, 1]]), logit_weights([0], 2)
    result = oracle(state, eps=15.0, input_ids=ids, weights=weights)

    from_1 = 0.6075 * l2 * l3
    from_2 = 0.84375 * l2 * l3 + 1.5 * l3
    y_2 = from_1 + from_2
    h_2 = 7 + 1.5 * l3 * y_2
    G = 3 / math.sqrt(h_2**2 + 15)
    R_c1, R_c2, R_z2 = 0.75 * l3 * from_1, 0.75 * l3 * from_2, 0.75 * l3 * y_2
    token_1 = G * (0.5 * R_c1 - 3.5 * R_c2)
    token_2 = G * (3.5 * R_c2 + R_z2 + 7)
    bias = G * (0.5 * R_c1 + R_c2)
    same(result.score, torch.tensor([G * h_2], dtype=torch.float64), 1e-12)
    same(result.logits, torch.tensor([[G * h_2, -G * h_2]], dtype=torch.float64), 1e-12)
    same(result.relevance, torch.tensor([[token_1, token_2]], dtype=torch.float64), 1e-12)
    same(result.layer_relevance[1], torch.tensor([[0.0, G * h_2]], dtype=torch.float64), 1e-12)
    same(result.biases, torch.tensor([bias], dtype=torch.float64), 1e-12)
    # In decimals: l2 l3 = 0.761500, from_1 = 0.462611, from_2 = 2.290434, y_2 = 2.753045, h_2 = 11.536794,
    # G = 3 / 12.169535 = 0.246517; R_c1 = 0.381173, R_c2 = 1.887224, R_z2 = 2.268397 in units of G.
    same(result.score, torch.tensor([2.84402], dtype=torch.float64), 1e-5)
    same(result.relevance, torch.tensor([[-1.58133, 3.91313]], dtype=torch.float64), 1e-5)
    same(result.biases, torch.tensor([0.51222], dtype=torch.float64), 1e-5)


class Elements(TorchFunctionMode):
    """Counts the numbers in the tensors that operations return."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.count += result.numel() if isinstance(result, torch.Tensor) else 0
        return result


def test_cost_is_linear_in_the_length():
    state = tiny_mamba_weights(num_layers=2, hidden_size=32, state_size=8)
    counts = []
    for length in (25, 250):
        with Elements() as elements:
            result = mambalrp_explicit(state, eps=EPS, input_ids=padded_batch([length, length])[0])
        counts.append(elements.count)
        same(result.relevance.sum(-1) + result.biases, result.score, 1e-9)
    assert counts[1] < 11 * counts[0]
