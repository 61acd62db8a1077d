"""The Mamba-2 oracles agree with each other and with Hugging Face, and `oracle_of` reads every family's model right."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from oracles import (
    GRADIENT_X_INPUT,
    LRP_LN,
    MAMBALRP,
    HFFloat64,
    OracleResult,
    hf_gradient_x_input,
    last_attended,
    logit_weights,
    mambalrp_explicit,
)
from oracles_mamba2 import _clamp_slope, mamba2_dense, mamba2_explicit, mamba2_options, oracle_of
from random_models import padded_batch, random_model, tiny_mamba_weights
from test_oracles import (
    ALL_RULE_SETS,
    EPS,
    EPSILONS,
    SiLUIdentityRule,
    batch,
    norm_with_constant_normaliser,
    one_thread,  # noqa: F401  an autouse fixture
    same,
    same_result,
)
from torch.overrides import TorchFunctionMode
from transformers.models.mamba2.modeling_mamba2 import Mamba2RMSNorm, MambaRMSNormGated

LIMIT = (0.02, 0.2)
SMALL = {"hidden_size": 6, "head_dim": 3, "state_size": 3, "conv_kernel": 3}  # 4 heads of 3 channels
GROUPS = {"head_dim": 3, "n_groups": 2, "norm_groups": 2, "time_step_limit": LIMIT}
MODELS = {
    "one group": {"chunk_size": 4},
    "two groups": {"n_groups": 2, "chunk_size": 11},
    "a group per head": {"n_groups": 6, "chunk_size": 16, "use_conv_bias": False},
    "biases": {"n_groups": 2, "chunk_size": 5, "use_bias": True},
    "limit": {"n_groups": 2, "chunk_size": 1, "time_step_limit": LIMIT},
    "limit and biases": {"n_groups": 3, "time_step_limit": LIMIT, "use_bias": True},
}
"""For batches of 11 tokens: chunk sizes divide that or not, are one token or more than all."""
GRADIENT_MODEL = {"hidden_size": 12, "num_layers": 3, "seed": 2}


def random_mamba2(**options) -> torch.nn.Module:
    return random_model(model_type="mamba2", **options)


def long_batch(side: str) -> dict[str, torch.Tensor | None]:
    return batch(side, (11, 11) if side == "none" else (11, 7))


class SoftplusOutputs(TorchFunctionMode):
    """Keeps every softplus, which is dt before the clamp, (B, L, H) of one layer after the other."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func is F.softplus:
            self.kept.append(output)
        return output


# -- the forward ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_forward_is_hugging_faces(side, options):
    model = random_mamba2(hidden_size=12, **options)
    inputs = long_batch(side)
    with torch.no_grad(), HFFloat64():
        logits = model(**inputs, use_cache=False).logits
    assert logits.dtype == torch.float64
    mask = inputs["attention_mask"]
    positions = torch.full((2,), 10) if mask is None else last_attended(mask)
    same(oracle_of(model, **inputs).logits, logits[torch.arange(2), positions], 1e-10)


def test_forward_at_any_position_and_from_embeddings():
    model = random_mamba2(n_groups=2)
    ids = batch("none")["input_ids"]
    with torch.no_grad(), HFFloat64():
        logits = model(input_ids=ids, use_cache=False).logits
    positions = torch.tensor([2, 4])
    result = oracle_of(model, inputs_embeds=model.get_input_embeddings()(ids), positions=positions)
    same(result.logits, logits[torch.arange(2), positions], 1e-10)
    assert result.relevance[0, 3:].abs().max() == 0  # causal: later tokens matter to nothing
    assert result.relevance[1, 4].abs() > 0


@pytest.mark.parametrize("options", [MODELS["limit"], MODELS["limit and biases"]], ids=["limit", "limit and biases"])
@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_time_steps_are_clamped_at_both_ends(side, options):
    model = random_mamba2(**GRADIENT_MODEL, **options)
    inputs = long_batch(side)
    with torch.no_grad(), SoftplusOutputs() as outputs:
        model(**inputs, use_cache=False)
    mask = inputs["attention_mask"]
    attended = torch.ones(2, 11, dtype=torch.bool) if mask is None else mask != 0
    assert len(outputs.kept) == 3
    for dt in outputs.kept:
        assert (dt[attended] < LIMIT[0]).any()
        assert (dt[attended] > LIMIT[1]).any()
        assert ((dt[attended] > LIMIT[0]) & (dt[attended] < LIMIT[1])).any()


def test_the_limit_matters():
    state = tiny_mamba_weights(model_type="mamba2", n_groups=2, **SMALL)
    inputs = {**batch("left"), "eps": EPS, "weights": logit_weights([3, 5], 19)}
    clamped = mamba2_explicit(state, **GROUPS, **inputs)
    free = mamba2_explicit(state, **{**GROUPS, "time_step_limit": (0.0, math.inf)}, **inputs)
    assert (clamped.logits - free.logits).abs().max() > 1e-3
    assert (clamped.relevance - free.relevance).abs().max() > 1e-3


def test_the_slope_of_clamp_is_torchs_also_at_the_limits():
    dt = torch.tensor([0.01, LIMIT[0], 0.1, LIMIT[1], 0.3], dtype=torch.float64, requires_grad=True)
    dt.clamp(*LIMIT).sum().backward()
    same(_clamp_slope(dt.detach(), LIMIT), dt.grad, 0)
    assert dt.grad.tolist() == [0, 1, 1, 1, 0]


def test_the_random_model_is_the_same_in_every_dtype():
    single, double = random_mamba2(dtype=torch.float32), tiny_mamba_weights(model_type="mamba2")
    for name, value in single.state_dict().items():
        assert torch.equal(value, double[name].float())
        assert value.std() > 0.05
    bias = F.softplus(double["backbone.layers.0.mixer.dt_bias"])
    assert bias.min() >= 0.001
    assert bias.max() <= 1


# -- the derivations agree --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", ALL_RULE_SETS, ids=lambda rules: "+".join(sorted(rules)) or "no rules")
def test_explicit_is_dense(rules):
    state = tiny_mamba_weights(model_type="mamba2", n_groups=2, use_bias=True, **SMALL)
    weights = logit_weights([3, 5], 19, contrasts=[1, 11])
    inputs = {**GROUPS, **batch("left"), "weights": weights, "rules": rules}
    same_result(mamba2_explicit(state, eps=EPS, **inputs), mamba2_dense(state, eps=EPS, **inputs), 1e-10)


@pytest.mark.parametrize("rules", [GRADIENT_X_INPUT, MAMBALRP], ids=lambda rules: f"{len(rules)} rules")
@pytest.mark.parametrize("side", ["none", "right"])
@pytest.mark.parametrize(("n_groups", "norm_groups"), [(1, 1), (2, 1), (4, 4), (1, 3)])
def test_explicit_is_dense_with_other_groups_and_padding(n_groups, norm_groups, side, rules):
    state = tiny_mamba_weights(model_type="mamba2", n_groups=n_groups, use_bias=True, seed=4, **SMALL)
    inputs = {**batch(side), "head_dim": 3, "n_groups": n_groups, "norm_groups": norm_groups, "rules": rules}
    same_result(mamba2_explicit(state, eps=EPS, **inputs), mamba2_dense(state, eps=EPS, **inputs), 1e-10)


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_no_rules_is_hugging_faces_gradient_x_input(options, side):
    model = random_mamba2(**GRADIENT_MODEL, **options)
    inputs = {**long_batch(side), "weights": logit_weights([3, 5], 19)}
    explicit = oracle_of(model, rules=GRADIENT_X_INPUT, **inputs)
    same_result(explicit, hf_gradient_x_input(model, **inputs), 1e-10)


class SSMConstantRule(TorchFunctionMode):
    """dt, the only softplus, and B and C, two of the three parts of the only `torch.split`, are constant."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func is F.softplus:
            return output.detach()
        if func is torch.split:
            x, B, C = output
            return x, B.detach(), C.detach()
        return output


def patch_norms(monkeypatch, rules) -> None:
    """The "norm" and "gate" rules on the norms of Hugging Face's Mamba-2."""

    def gated_norm(self, hidden_states, gate):
        product = hidden_states * F.silu(gate)
        if "gate" in rules:
            product = product / 2 + (product / 2).detach()
        groups = product.reshape(*product.shape[:-1], -1, getattr(self, "group_size", product.shape[-1]))
        normaliser = torch.rsqrt(groups.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        if "norm" in rules:
            normaliser = normaliser.detach()
        return self.weight * (groups * normaliser).reshape(product.shape)

    monkeypatch.setattr(MambaRMSNormGated, "forward", gated_norm)
    if "norm" in rules:
        monkeypatch.setattr(Mamba2RMSNorm, "forward", norm_with_constant_normaliser)


def autograd_with_rules(model, rules, monkeypatch, **inputs) -> OracleResult:
    """The rules put on Hugging Face's own forward from outside."""
    patch_norms(monkeypatch, rules)
    ssm = SSMConstantRule() if "ssm" in rules else nullcontext()
    silu = SiLUIdentityRule() if "silu" in rules else nullcontext()
    with ssm, silu:
        return hf_gradient_x_input(model, **inputs)


@pytest.mark.parametrize("rules", ALL_RULE_SETS, ids=lambda rules: "+".join(sorted(rules)) or "no rules")
def test_rules_are_autograd_through_hugging_faces_rewritten_model(rules, monkeypatch):
    model = random_mamba2(n_groups=2, chunk_size=3, time_step_limit=LIMIT, use_bias=True, seed=5)
    inputs = {**batch("right", (8, 5)), "weights": logit_weights([3, 5], 19, contrasts=[4, 4])}
    same_result(
        oracle_of(model, rules=rules, **inputs), autograd_with_rules(model, rules, monkeypatch, **inputs), 1e-10
    )


@pytest.mark.parametrize("rules", [GRADIENT_X_INPUT, LRP_LN, MAMBALRP], ids=lambda rules: f"{len(rules)} rules")
def test_a_mask_with_holes(rules, monkeypatch):
    model = random_mamba2(n_groups=2, use_bias=True, seed=9, **SMALL)
    inputs = {"input_ids": batch("none")["input_ids"], "attention_mask": torch.tensor([[0, 1, 0, 1, 1, 0]] * 2)}
    explicit = oracle_of(model, rules=rules, **inputs)
    same_result(explicit, mamba2_dense(model.state_dict(), **mamba2_options(model), rules=rules, **inputs), 1e-10)
    same_result(explicit, autograd_with_rules(model, rules, monkeypatch, **inputs), 1e-10)


def test_the_rule_sets_differ():
    state = tiny_mamba_weights(model_type="mamba2", n_groups=2, **SMALL)
    inputs = {"eps": EPS, **GROUPS, **batch("none")}
    rows = [mamba2_explicit(state, rules=rules, **inputs).relevance for rules in ALL_RULE_SETS]
    gaps = [(a - b).abs().max() for i, a in enumerate(rows) for b in rows[:i]]
    assert min(gaps) > 1e-3
    with pytest.raises(ValueError, match="half"):
        mamba2_explicit(state, rules={"half"}, **inputs)


def test_the_groups_matter():
    state = tiny_mamba_weights(model_type="mamba2", n_groups=2, **SMALL)
    inputs = {**batch("none"), "eps": EPS, "weights": logit_weights([3, 5], 19)}
    grouped = mamba2_explicit(state, **GROUPS, **inputs)
    whole = mamba2_explicit(state, **{**GROUPS, "norm_groups": 1}, **inputs)
    assert (grouped.logits - whole.logits).abs().max() > 1e-2
    assert (grouped.relevance - whole.relevance).abs().max() > 1e-2
    with pytest.raises(ValueError, match="n_groups=3"):
        mamba2_explicit(state, **{**GROUPS, "n_groups": 3}, **inputs)


# -- conservation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("limit", [(0.0, math.inf), LIMIT], ids=["no limit", "limit"])
def test_relevance_and_biases_add_up_to_the_score_at_every_layer(limit, side):
    inputs = batch(side, (30, 30) if side == "none" else (30, 17))
    state = tiny_mamba_weights(model_type="mamba2", hidden_size=12, num_layers=4, n_groups=2, use_bias=True, seed=6)
    state["lm_head.bias"] = torch.linspace(-1, 1, 19, dtype=torch.float64)
    shape = {"head_dim": 4, "n_groups": 2, "norm_groups": 2, "time_step_limit": limit}
    result = mamba2_explicit(state, eps=EPS, **shape, **inputs)
    same(result.relevance.sum(-1) + result.biases, result.score, 1e-10)
    for i in range(5):
        same(result.layer_relevance[i].sum(-1) + result.bias_by_layer[i:].sum(0), result.score, 1e-10)
    assert result.bias_by_layer.abs().min() > 1e-6
    assert len(result.bias_by_name) == 4 * 3 + 1
    if inputs["attention_mask"] is not None:
        assert result.relevance[inputs["attention_mask"] == 0].abs().max() == 0


def test_relevance_adds_up_to_the_score_without_biases():
    options = {"model_type": "mamba2", "n_groups": 2, "num_layers": 4, "head_dim": 4, "seed": 7}
    shape = {"eps": EPS, "head_dim": 4, "n_groups": 2, "norm_groups": 2}
    inputs = batch("left", (30, 17))
    result = mamba2_explicit(tiny_mamba_weights(use_conv_bias=False, **options), **shape, **inputs)
    same(result.layer_relevance.sum(-1), result.score.expand(5, 2), 1e-10)
    assert result.bias_by_name == {}
    zero = tiny_mamba_weights(use_bias=True, zero_biases=True, **options)
    result = mamba2_explicit(zero, **shape, **inputs)
    same(result.relevance.sum(-1), result.score, 1e-10)
    assert result.biases.abs().max() == 0
    gradient = mamba2_explicit(zero, **shape, rules=GRADIENT_X_INPUT, **inputs)
    assert (gradient.relevance.sum(-1) - gradient.score).abs().min() > 0.01


@pytest.mark.parametrize("model_type", ["falcon_mamba", "mamba2"])
@pytest.mark.parametrize("rules", [GRADIENT_X_INPUT, MAMBALRP], ids=lambda rules: f"{len(rules)} rules")
def test_padding_does_not_change_relevance(rules, model_type):
    model = random_model(model_type=model_type, n_groups=2, time_step_limit=LIMIT, seed=8)
    ids, mask = padded_batch([9, 5], side="left")
    left = oracle_of(model, input_ids=ids, attention_mask=mask, rules=rules)
    right = oracle_of(model, input_ids=ids.roll(-4, 1), attention_mask=mask.roll(-4, 1), rules=rules)
    alone = oracle_of(model, input_ids=ids[1:, 4:], rules=rules)
    same(left.relevance[1, 4:], alone.relevance[0], 1e-12)
    same(right.relevance[1, :5], alone.relevance[0], 1e-12)


# -- the oracle of a model --------------------------------------------------------------------------------------------


class Classifier(torch.nn.Module):
    """A head named `score`, with a bias, on the backbone of a language model."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.config, self.backbone = model.config, model.backbone
        self.score = torch.nn.Linear(model.config.hidden_size, 3, dtype=torch.float64)


@pytest.mark.parametrize("model_type", ["mamba", "falcon_mamba", "mamba2"])
def test_oracle_of_a_classifier(model_type):
    model = Classifier(random_model(model_type=model_type, n_groups=2, use_conv_bias=False))
    inputs = batch("right")
    with torch.no_grad(), HFFloat64():
        logits = model.score(model.backbone(**inputs, use_cache=False)[0])
    result = oracle_of(model, **inputs)
    same(result.logits, logits[torch.arange(2), last_attended(inputs["attention_mask"])], 1e-10)
    same(result.biases, model.score.bias.detach()[result.logits.argmax(-1)], 1e-12)
    same(result.relevance.sum(-1) + result.biases, result.score, 1e-10)


@pytest.mark.parametrize("model_type", EPSILONS)
def test_oracle_of_mamba_and_falcon_mamba(model_type):
    model = random_model(model_type=model_type)
    inputs = {**batch("left"), "rules": LRP_LN, "weights": logit_weights([1, 2], 19)}
    same_result(oracle_of(model, **inputs), mambalrp_explicit(model.state_dict(), **EPSILONS[model_type], **inputs), 0)


def test_oracle_of_another_family():
    model = random_model()
    model.config.model_type = "other"
    with pytest.raises(ValueError, match="other"):
        oracle_of(model, **batch("none"))
