"""raw_attention, attention_rollout, mamba_attribution and latim against dense float64 versions from their formulas."""

import math
from functools import cache

import pytest
import torch
from oracles_attention import alpha_by_loops, signals_of_mixer, streams_of, token_parts
from random_models import padded_batch, random_model
from small import KINDS, word_tokenizer

from hf_mambalrp import make_explainable
from hf_mambalrp.errors import NonFiniteRelevanceError, OptionError
from hf_mambalrp.families import FAMILIES, Network
from hf_mambalrp.methods import METHODS, Problem
from hf_mambalrp.methods import latim as latim_module

every_kind = pytest.mark.parametrize("kind", KINDS)
METHOD_OPTIONS = {
    "raw_attention": [{}],
    "attention_rollout": [{}],
    "mamba_attribution": [{}],
    "latim": [{}, {"aggregation": "alti"}, {"aggregation": "norm"}],
}
BATCHES = [((1,), "left"), ((6, 4, 1), "left"), ((5, 8, 2), "right")]
signals_of = cache(signals_of_mixer)
"""Of one model and batch, which several methods read; they are told apart by which objects they are."""


def rolled_out(matrices, positions):
    """Rows of M_last ... M_0 at the positions. Shapes: (B, L, L) each, (B, K) -> (B, L)."""
    product = matrices[0]
    for matrix in matrices[1:]:
        product = matrix @ product
    return torch.stack([sum(product[b, p] for p in set(row)) for b, row in enumerate(positions.tolist())])


@cache
def masked_alpha(model, layer, ids, mask):
    s = signals_of(model, layer, ids, mask)
    return alpha_by_loops(s).mean(1) * (mask[:, :, None] * mask[:, None, :]).double()


def raw(model, ids, mask, positions, target):
    return rolled_out([sum(masked_alpha(model, layer, ids, mask) for layer in range(2)) / 2], positions)


def rollout(model, ids, mask, positions, target):
    identity = torch.eye(ids.shape[1], dtype=torch.float64)
    return rolled_out([identity + masked_alpha(model, layer, ids, mask) for layer in range(2)], positions)


def attribution(model, ids, mask, positions, target):
    gated, hooks = [], []
    for block in model.backbone.layers:
        hooks.append(block.mixer.out_proj.register_forward_pre_hook(lambda _, inputs: gated.append(inputs[0])))
    logits = streams_of(model, ids, mask)[1]
    for hook in hooks:
        hook.remove()
    score = sum(
        logits[b, p, t] for b, row in enumerate(target) for p, t in zip(positions[b].tolist(), row, strict=True)
    )
    gradients = torch.autograd.grad(score, gated)
    identity, matrices = torch.eye(ids.shape[1], dtype=torch.float64), []
    for layer, gradient in enumerate(gradients):
        weighted = gradient.mean(-1)[:, :, None] * masked_alpha(model, layer, ids, mask)
        matrices.append(identity + weighted.clamp(min=0))
    return rolled_out(matrices, positions)


def latim(model, ids, mask, positions, target, aggregation="alti"):
    streams, matrices = streams_of(model, ids, mask)[0], []
    for layer in range(2):
        s = signals_of(model, layer, ids, mask)
        parts = token_parts(model, layer, s, mask)
        contribution = torch.zeros(parts.shape[:3], dtype=torch.float64)
        for b, i in mask.nonzero().tolist():
            output = streams[layer + 1][b, i]
            for j in range(i + 1):
                if mask[b, j]:
                    part = parts[b, i, j] + (streams[layer][b, i] if i == j else 0)
                    if aggregation == "alti":
                        contribution[b, i, j] = max(0, output.abs().sum() - (output - part).abs().sum())
                    else:
                        contribution[b, i, j] = part.norm()
            if contribution[b, i].sum() == 0:  # no part is near the output
                contribution[b, i, i] = 1
            contribution[b, i] /= contribution[b, i].sum()
        matrices.append(contribution)
    return rolled_out(matrices, positions)


DENSE = {"raw_attention": raw, "attention_rollout": rollout, "mamba_attribution": attribution, "latim": latim}
every_method = pytest.mark.parametrize(
    ("method", "options"), [(name, options) for name, several in METHOD_OPTIONS.items() for options in several]
)


def last_token(mask):
    return (torch.arange(mask.shape[1]) * mask).argmax(1)


def relative(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


@cache
def shared(kind):
    return make_explainable(random_model(**KINDS[kind], seed=1))


batch = cache(padded_batch)


@every_kind
@every_method
@pytest.mark.parametrize(("lengths", "side"), BATCHES)
def test_relevance_is_the_dense_product(kind, method, options, lengths, side):
    model, (ids, mask) = shared(kind), batch(lengths, side=side)
    positions, target = last_token(mask)[:, None], [[row % 19] for row in range(len(ids))]
    expected = DENSE[method](model, ids, mask, positions, target, **options)
    found = model.explain(ids, attention_mask=mask, target=[t for (t,) in target], method=method, **options)
    assert relative(found.relevance, expected.detach()) < 1e-5
    assert (found.relevance[mask == 0] == 0).all()
    usual = model.explain(ids, attention_mask=mask, target=[t for (t,) in target])
    torch.testing.assert_close(found.score, usual.score)
    torch.testing.assert_close(found.probability, usual.probability)
    assert (found.conservation.biases == 0).all()


@every_method
def test_a_target_of_several_tokens_adds_up_its_rows(method, options):
    model = make_explainable(random_model(seed=2))
    ids = torch.tensor([[2, 3, 4, 5]])
    found = model.explain(ids, target="b c d", tokenizer=word_tokenizer(), method=method, **options)
    forced = torch.tensor([[2, 3, 4, 5, 3, 4]])
    positions = torch.tensor([[3, 4, 5]])
    expected = DENSE[method](model, forced, torch.ones_like(forced), positions, [[3, 4, 5]], **options)
    assert found.input_ids.tolist() == forced.tolist()
    assert relative(found.relevance, expected.detach()) < 1e-5


@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_a_shorter_target_beside_a_longer_one_is_as_alone(method):
    model = make_explainable(random_model(seed=3))
    texts, targets = ["a b c d", "e f g"], ["b c d", "b c"]
    together = model.explain(texts, target=targets, tokenizer=word_tokenizer(), method=method)
    alone = model.explain(texts[1], target=targets[1], tokenizer=word_tokenizer(), method=method)
    assert relative(together.relevance[1, :4], alone.relevance[0].double()) < 1e-6


@every_method
def test_blocks_of_rows_change_nothing(method, options, monkeypatch):
    model = make_explainable(random_model(seed=4))
    ids, mask = padded_batch([9, 6])
    whole = model.explain(ids, attention_mask=mask, target=1, method=method, **options).relevance
    monkeypatch.setattr("hf_mambalrp.methods.mamba_attribution.MATRIX_ELEMENTS", 40)
    monkeypatch.setattr("hf_mambalrp.methods.latim.PART_ELEMENTS", 700)
    found = model.explain(ids, attention_mask=mask, target=1, method=method, **options).relevance
    torch.testing.assert_close(found, whole, rtol=1e-6, atol=1e-8)


@every_kind
@pytest.mark.parametrize("use_bias", [False, True])
def test_the_parts_of_all_tokens_and_the_biases_are_the_mixers_output(kind, use_bias):
    model = random_model(**KINDS[kind], use_bias=use_bias, seed=5)
    ids, mask = padded_batch([8, 8])
    streams = streams_of(model, ids, mask)[0]
    network = Network(model, FAMILIES)
    problem = Problem(network, network.embed(ids), mask, torch.tensor([[7], [7]]), lambda logits: logits[:, 0, 0])
    everywhere = torch.ones_like(streams[0][..., 0])
    with torch.no_grad():
        parts = torch.cat([part for _, part in latim_module.token_parts(problem, 1, streams[1], everywhere)], 1)
    s = signals_of_mixer(model, 1, ids, mask)
    # The convolution's bias takes the same way as its input; out_proj's is added.
    constant = dict(s, x=torch.zeros_like(s["x"]))
    mixer = model.backbone.layers[1].mixer
    bias = mixer.conv1d.bias[: s["x"].shape[-1]]
    sigmoid, alpha = torch.sigmoid(constant["c"]), alpha_by_loops(s)
    ((_, signals),) = network.mixings(1, streams[1], network.plain_step(torch.ones_like(ids), streams[0]))
    from_bias = signals.scale * (torch.einsum("beij,bje->bie", alpha, sigmoid * bias) + s["D"] * sigmoid * bias)
    biases = from_bias @ mixer.out_proj.weight.T + (0 if mixer.out_proj.bias is None else mixer.out_proj.bias)
    torch.testing.assert_close(parts.sum(2) + biases, streams[2], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["raw_attention", "attention_rollout", "latim"])
def test_methods_that_do_not_read_the_score_refuse_a_contrast(method):
    model = make_explainable(random_model())
    with pytest.raises(OptionError, match=r"contrast=2.*" + method) as raised:
        model.explain(torch.tensor([[1, 2]]), target=1, contrast=2, method=method)
    assert "mamba_attribution" in str(raised.value)
    one, other = (model.explain(torch.tensor([[1, 2]]), target=t, method=method) for t in (1, 2))
    assert torch.equal(one.relevance, other.relevance)
    assert not torch.equal(one.score, other.score)


def test_mamba_attribution_reads_the_contrast():
    model = make_explainable(random_model(seed=6))
    ids = torch.tensor([[4, 5, 6, 7]])
    one = model.explain(ids, target=1, contrast=2, method="mamba_attribution")
    other = model.explain(ids, target=2, contrast=1, method="mamba_attribution")
    assert not torch.allclose(one.relevance, other.relevance)
    assert (one.relevance >= 0).all()


@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_layers_and_unknown_options_are_refused(method):
    model = make_explainable(random_model())
    with pytest.raises(OptionError, match=f"per_layer=True.*{method}.*mambalrp"):
        model.explain(torch.tensor([[1, 2]]), method=method, per_layer=True)
    with pytest.raises(OptionError, match="'steps'"):
        model.explain(torch.tensor([[1, 2]]), method=method, steps=3)
    assert METHODS[method].rules is None


def test_an_unknown_aggregation_is_refused():
    model = make_explainable(random_model())
    with pytest.raises(OptionError, match=r"aggregation='sum'.*'alti', 'norm'"):
        model.explain(torch.tensor([[1, 2]]), method="latim", aggregation="sum")


@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_what_is_not_finite_is_an_error_that_names_the_layer(method):
    model = make_explainable(random_model(dtype=torch.float32))
    model.backbone.layers[1].mixer.x_proj.weight.data[-1] = math.inf
    with pytest.raises(NonFiniteRelevanceError, match="layer 1"):
        model.explain(torch.tensor([[1, 2, 3]]), target=1, method=method, check_forward=False)


@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_the_model_is_left_as_it_was_and_calls_are_equal(method):
    model = make_explainable(random_model(dtype=torch.float32, seed=7))
    model.train()
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        first = model.explain(ids, target=2, method=method)
    assert first == model.explain(ids, target=2, method=method)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
