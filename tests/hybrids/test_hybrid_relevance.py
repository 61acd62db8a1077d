"""Relevance of every hybrid family, whole and by part, against the oracle: rules, dtypes, chunks, padding, modes."""

from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import pytest
import torch
import transformers
from oracle_hybrids import explain as oracle
from small_hybrids import VOCABULARY, available, build, crossed, explainable, one_each

from hf_mambalrp import make_explainable
from hf_mambalrp.errors import ForwardMismatchError
from hf_mambalrp.families.parts import GatedMLP

RULES = ("cp", "attnlrp")
LENGTHS, WIDEST = [9, 6, 5], 9
WRONG = [name for name in available() if name.startswith("zamba2") and transformers.__version__.startswith("4.")]
"""In these releases the model's own scan adds up chunks of positions over the wrong axis."""
MODELS, FAMILIES = ([name for name in names if name not in WRONG] for names in (available(), one_each()))
every_family = pytest.mark.parametrize("name", FAMILIES)
KINDS = {
    "skip": {"skip"},
    "mamba": {"ssm"},
    "mamba_decoder": {"ssm"},
    "self_attn": {"attention", "delta", "linear"},
    "shared_transformer": {"shared block"},
    "shared_mlp": {"mlp"},
    "block_sparse_moe": {"experts"},
    "feed_forward": {"mlp", "experts"},
    "mixer": {"ssm", "attention", "mlp", "experts"},
    "linear_attn": {"delta"},
    "conv": {"conv"},
    "temporal_block": {"linear", "attention"},
    "mlp_block": {"mlp"},
    "mlp": {"mlp", "experts"},
}
"""The oracle's names of parts, which are transformers' attributes, and the kinds of ours that each can be."""


def rows():
    """Token ids of three texts."""
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(1, VOCABULARY, (length,), generator=generator) for length in LENGTHS]


def padded(side):
    """The texts as one batch, with something else than a pad token on the padding."""
    ids, mask = torch.full((3, WIDEST), 17), torch.zeros(3, WIDEST, dtype=torch.long)
    for number, row in enumerate(rows()):
        at = slice(WIDEST - len(row), None) if side == "left" else slice(len(row))
        ids[number, at], mask[number, at] = row, 1
    return ids, mask


def oracles(model, rule, targets=(3, 8, 20)):
    """The oracle's explanation of every row by itself."""
    one_hot = torch.eye(VOCABULARY, dtype=torch.float64)
    return [oracle(model, row, weights=one_hot[t], attention=rule) for row, t in zip(rows(), targets, strict=True)]


def same(found, expected, tolerance):
    scale = expected.abs().max()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * float(scale))


def check(explanation, expected, tolerance):
    """Tokens, layers, parts, score, and what is absorbed, row by row."""
    for number, (row, wanted) in enumerate(zip(rows(), expected, strict=True)):
        kept = explanation.attention_mask[number] != 0
        relevance = explanation.relevance[number]
        assert relevance[~kept].count_nonzero() == 0
        same(relevance[kept], wanted.relevance, tolerance)
        assert explanation.score[number].item() == pytest.approx(wanted.score.item(), rel=tolerance, abs=tolerance)
        assert explanation.conservation.biases[number].item() == pytest.approx(
            wanted.biases.item(), rel=tolerance, abs=tolerance
        )
        if explanation.layer_relevance is not None:
            layers = wanted.layer_relevance.clone()
            layers[0] = wanted.relevance
            same(explanation.layer_relevance[:, number, kept], layers, tolerance)
            check_parts(explanation.parts, number, kept, wanted)
        assert len(row) == kept.sum()


def by_branch(parts, row):
    """Layer and number of a branch in it -> kind -> its numbers in ``parts``."""
    found, seen = {}, {}
    for branch in parts.branches:
        layer = parts.names[branch[0]][0]
        number = seen[layer] = seen.get(layer, -1) + 1
        found[layer, number] = {parts.names[n][2]: parts.relevance[n, row] for n in branch}
        assert len(found[layer, number]) == len(branch)
    return found


def check_parts(parts, row, kept, wanted):
    ours, compared = by_branch(parts, row), 0
    for (layer, branch, what), expected in wanted.branch_relevance.items():
        kinds = [r for kind, r in ours[layer, branch].items() if kind in KINDS[what]]
        same(sum(kinds)[kept], expected, 1e-5)
        compared += len(kinds)
    assert compared == sum(map(len, ours.values()))
    same(parts.around[row], wanted.around.sum(), 1e-5) if wanted.around.any() else None
    assert parts.relevance[:, row, ~kept].count_nonzero() == 0


@pytest.mark.parametrize(("name", "rule", "side"), crossed(MODELS, RULES, ("left", "right")))
def test_relevance_is_the_oracles(name, rule, side):
    model = explainable(name)
    expected = oracles(model, rule)
    ids, mask = padded(side)
    found = model.explain(ids, attention_mask=mask, target=[3, 8, 20], attention_rule=rule, per_layer=True)
    check(found, expected, 1e-6)
    kept, softmax = found.conservation, torch.stack([wanted.softmax for wanted in expected])
    assert kept.gap.abs().max() < 1e-5
    if rule == "cp":
        assert kept.softmax is None
    else:
        torch.testing.assert_close(kept.softmax.double(), softmax, rtol=1e-5, atol=1e-6)
        assert (softmax.abs() > 1e-4).any()


@pytest.mark.parametrize(("name", "rule", "dtype"), crossed(FAMILIES, RULES, (torch.float32, torch.bfloat16)))
def test_fewer_bits(name, rule, dtype):
    model = build(name).to(dtype)
    expected = oracles(build(name).to(dtype).double(), rule)
    ids, mask = padded("right")
    found = make_explainable(model).explain(ids, attention_mask=mask, target=[3, 8, 20], attention_rule=rule)
    check(found, expected, {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype])


@pytest.mark.parametrize(("name", "rule", "chunk_size"), crossed(FAMILIES, RULES, (1, 5)))
def test_every_chunk_size_gives_the_same(name, rule, chunk_size):
    model = explainable(name)
    ids, mask = padded("left")
    options = {"attention_mask": mask, "target": [3, 8, 20], "attention_rule": rule, "per_layer": True}
    whole, found = model.explain(ids, **options), model.explain(ids, chunk_size=chunk_size, **options)
    assert found.chunk_size == chunk_size
    for one, other in zip(numbers(found), numbers(whole), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def numbers(found):
    return found.relevance, found.layer_relevance, found.parts.relevance, found.conservation.biases


@every_family
def test_the_reference_backend_gives_the_same(name):
    model = explainable(name)
    ids = rows()[0][None]
    found, auto = (model.explain(ids, target=3, backend=backend) for backend in ("reference", "auto"))
    torch.testing.assert_close(found.relevance, auto.relevance, rtol=1e-6, atol=1e-6)


@every_family
def test_training_mode_and_gradients_change_nothing(name):
    model = make_explainable(build(name))
    ids = rows()[0][None]
    expected = model.explain(ids, target=3)
    model.train().requires_grad_(requires_grad=True)
    with torch.inference_mode():
        found = model.explain(ids, target=3)
    assert model.training
    assert torch.equal(found.relevance, expected.relevance)
    assert all(parameter.grad is None for parameter in model.parameters())


@every_family
def test_threads_that_explain_at_once_get_what_each_gets_alone(name):
    """Of one model, by both rules of attention, at once and in chunks, beside one that looks at attention."""
    model = explainable(name)
    calls = [
        {"target": target, "attention_rule": rule, "chunk_size": size, "per_layer": True}
        for target, rule, size in zip((3, 8, 20), (*RULES, "cp"), ("auto", 4, 5), strict=True)
    ]

    def explained(number):
        return numbers(model.explain(rows()[number][None], **calls[number]))

    def attended(number):
        return (model.hidden_attention(rows()[number][None]).matrix,)

    work = [*((explained, number) for number in range(len(calls))), (attended, 0)]
    alone = [call(number) for call, number in work]
    model = make_explainable(build(name))  # whose network, check and tokens no call has made yet
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(lambda one: one[0](one[1]), work), alone, strict=True):
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@every_family
def test_padding_between_tokens_is_not_read(name):
    """What attention does not read and a scan reads as nothing: the score is the model's own of the same mask."""
    if name == "jamba-moe" and transformers.__version__.startswith("4."):
        pytest.skip("its in_proj has a bias, which transformers 4 masks and later releases do not")
    if name == "recurrent_gemma":
        pytest.skip("its recurrence reads padding in transformers, and not here")
    name = {"lfm2-biases": "lfm2"}.get(name, name)  # of its in_proj too, which transformers reads on padding
    model = explainable(name)
    ids = torch.stack([rows()[0], rows()[0].flip(0)])  # of one row some releases do not read the mask
    mask = torch.ones_like(ids)
    mask[0, 3:6] = 0
    found = model.explain(ids, attention_mask=mask, target=3)
    with torch.no_grad():
        own = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -1, 3]
    torch.testing.assert_close(found.score.double(), own.double(), rtol=2e-6, atol=2e-6)
    assert found.relevance[mask == 0].count_nonzero() == 0
    again = model.explain(ids, attention_mask=mask, target=3, chunk_size=2)  # part of the padding, nothing else
    torch.testing.assert_close(again.relevance, found.relevance, rtol=1e-6, atol=1e-6)


@every_family
@pytest.mark.parametrize("method", ["gradient_x_input", "lrp_ln"])
def test_chunks_change_nothing_in_methods_with_other_rules(name, method):
    model = explainable(name)
    ids = rows()[1][None]
    found = model.explain(ids, target=3, method=method, chunk_size=4)
    whole = model.explain(ids, target=3, method=method)
    torch.testing.assert_close(found.relevance, whole.relevance, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", WRONG)
def test_a_model_whose_own_forward_is_wrong_is_refused(name):
    with pytest.raises(ForwardMismatchError, match="Zamba2ForCausalLM"):
        make_explainable(build(name)).explain(rows()[2][None], target=3)


@pytest.mark.skipif("lfm2-biases" not in FAMILIES, reason="needs a release that has the family")
def test_behind_the_last_mixer_only_explained_positions_are_computed():
    """Not where a hook may tell one position from another, nor where every layer's relevance is asked for."""
    model, (ids, mask) = make_explainable(build("lfm2-biases")), padded("left")
    seen, plain = [], GatedMLP.__call__

    def watched(self, x, *rest):
        seen.append(x.shape[1])
        return plain(self, x, *rest)

    options = {"attention_mask": mask, "target": [3, 8, 20], "position": [2, -1, 4], "check_forward": False}
    with patch.object(GatedMLP, "__call__", watched):
        found = model.explain(ids, **options)
        assert seen[-1] == 1
        assert {*seen[:-1]} == {ids.shape[1]}
        whole = model.explain(ids, per_layer=True, **options)
        assert seen[-1] == ids.shape[1]
        torch.testing.assert_close(found.relevance, whole.relevance, rtol=1e-9, atol=1e-12)
        kick = torch.linspace(0.5, 2, ids.shape[1], dtype=torch.float64)[:, None]
        handle = model.model.layers[-1].feed_forward.w2.register_forward_hook(lambda *call: call[-1] * kick)
        hooked = model.explain(ids, **options)
        assert seen[-1] == ids.shape[1]
        handle.remove()
    assert not torch.allclose(hooked.relevance, found.relevance, rtol=1e-2)
