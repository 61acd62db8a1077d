"""Relevance of every hybrid family against the oracle: rules of attention, dtypes, chunks, padding, modes."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from oracle_hybrids import explain as oracle
from small_hybrids import VOCABULARY, available, build, one_each

from hf_mambalrp import make_explainable
from hf_mambalrp.errors import ForwardMismatchError

RULES = ["cp", "attnlrp"]
LENGTHS = [13, 9, 5]
WRONG = [name for name in available() if name.startswith("zamba2") and transformers.__version__.startswith("4.")]
"""In these releases the model's own scan adds up chunks of positions over the wrong axis."""
every_model = pytest.mark.parametrize("name", [name for name in available() if name not in WRONG])
every_family = pytest.mark.parametrize("name", [name for name in one_each() if name not in WRONG])
both_rules = pytest.mark.parametrize("rule", RULES)


def rows():
    """Token ids of three texts."""
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(1, VOCABULARY, (length,), generator=generator) for length in LENGTHS]


def padded(side):
    """The texts as one batch, with something else than a pad token on the padding."""
    ids, mask = torch.full((3, 13), 17), torch.zeros(3, 13, dtype=torch.long)
    for number, row in enumerate(rows()):
        at = slice(13 - len(row), None) if side == "left" else slice(len(row))
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
    """Tokens, layers, score, and what is absorbed, row by row."""
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
        assert len(row) == kept.sum()


@every_model
@both_rules
def test_relevance_is_the_oracles(name, rule):
    model = make_explainable(build(name))
    expected = oracles(model, rule)
    for side in ("left", "right"):
        ids, mask = padded(side)
        found = model.explain(ids, attention_mask=mask, target=[3, 8, 20], attention_rule=rule, per_layer=True)
        check(found, expected, 1e-6)


@every_family
@both_rules
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
def test_fewer_bits(name, rule, dtype, tolerance):
    model = build(name).to(dtype)
    expected = oracles(build(name).to(dtype).double(), rule)
    ids, mask = padded("right")
    found = make_explainable(model).explain(ids, attention_mask=mask, target=[3, 8, 20], attention_rule=rule)
    check(found, expected, tolerance)


@every_family
@both_rules
@pytest.mark.parametrize("chunk_size", [1, 5])
def test_every_chunk_size_gives_the_same(name, rule, chunk_size):
    model = make_explainable(build(name))
    ids, mask = padded("left")
    options = {"attention_mask": mask, "target": [3, 8, 20], "attention_rule": rule, "per_layer": True}
    whole, found = model.explain(ids, **options), model.explain(ids, chunk_size=chunk_size, **options)
    assert found.chunk_size == chunk_size
    for one, other in ((found.relevance, whole.relevance), (found.layer_relevance, whole.layer_relevance)):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.conservation.biases, whole.conservation.biases, rtol=1e-6, atol=1e-6)


@every_family
def test_the_reference_backend_gives_the_same(name):
    model = make_explainable(build(name))
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
    """Of one model, by both rules of attention, at once and in chunks, beside threads that look at attention."""
    model = make_explainable(build(name))
    calls = [
        {"target": target, "attention_rule": rule, "chunk_size": size, "per_layer": True}
        for target, rule, size in zip((3, 8, 20, 4, 9, 21), RULES * 3, ("auto", 4, 5, "auto", 6, 7), strict=True)
    ]

    def explained(number):
        found = model.explain(rows()[number % 3][None], **calls[number])
        return found.relevance, found.layer_relevance, found.parts.relevance, found.conservation.biases

    def attended(number):
        return (model.hidden_attention(rows()[number % 3][None]).matrix,)

    work = [(call, number) for number in range(len(calls)) for call in (explained, attended)]
    alone = [call(number) for call, number in work]
    model = make_explainable(build(name))  # whose network, check and tokens no call has made yet
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
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
    model = make_explainable(build(name))
    ids = torch.stack([rows()[0], rows()[0].flip(0)])  # of one row some releases do not read the mask
    mask = torch.ones_like(ids)
    mask[0, 3:6] = 0
    found = model.explain(ids, attention_mask=mask, target=3)
    with torch.no_grad():
        own = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -1, 3]
    torch.testing.assert_close(found.score.double(), own.double(), rtol=2e-6, atol=2e-6)
    assert found.relevance[mask == 0].count_nonzero() == 0
    for chunk_size in (1, 4):
        again = model.explain(ids, attention_mask=mask, target=3, chunk_size=chunk_size)
        torch.testing.assert_close(again.relevance, found.relevance, rtol=1e-6, atol=1e-6)


@every_family
@pytest.mark.parametrize("method", ["gradient_x_input", "lrp_ln"])
def test_methods_without_rules_are_transformers_gradients(name, method):
    """Of gradient x input the plain gradient through the model's own forward."""
    model = make_explainable(build(name))
    ids = rows()[1][None]
    found = model.explain(ids, target=3, method=method, chunk_size=4)
    whole = model.explain(ids, target=3, method=method)
    torch.testing.assert_close(found.relevance, whole.relevance, rtol=1e-5, atol=1e-6)
    if method == "gradient_x_input":
        stream, seen = model.get_input_embeddings(), []
        handle = stream.register_forward_hook(
            lambda _module, _inputs, output: seen.append(output.requires_grad_()) or output
        )
        own = model(input_ids=ids, use_cache=False).logits[0, -1, 3]
        handle.remove()
        (gradient,) = torch.autograd.grad(own, seen[0])
        expected = (seen[0].detach() * gradient).sum(-1)
        torch.testing.assert_close(found.relevance.double(), expected.double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WRONG)
def test_a_model_whose_own_forward_is_wrong_is_refused(name):
    with pytest.raises(ForwardMismatchError, match="Zamba2ForCausalLM"):
        make_explainable(build(name)).explain(rows()[2][None], target=3)
