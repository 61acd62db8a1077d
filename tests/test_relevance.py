"""Relevance against the float64 oracle, conservation, padding, modes, chunk sizes, backends."""

import pytest
import torch
from oracles import GRADIENT_X_INPUT, LRP_LN, MAMBALRP, logit_weights
from oracles_mamba2 import oracle_of
from random_models import padded_batch, random_model
from small import KINDS
from tolerances import RELATIVE

from hf_mambalrp import make_explainable

RULES = {"mambalrp": MAMBALRP, "lrp_ln": LRP_LN, "gradient_x_input": GRADIENT_X_INPUT}


def relative(found, expected, terms=None):
    """The error relative to ``expected`` or, where its sums cancel to less than a tenth of their ``terms``, to that."""
    size = expected.norm() if terms is None else max(expected.norm(), terms.norm() / 10)
    return float((found.double() - expected).norm() / size)


def oracle(model, ids, mask, target, contrast=None, rules=MAMBALRP, positions=None):
    """The oracle on the model's weights, whatever their dtype, in float64."""
    return oracle_of(
        model,
        input_ids=ids,
        attention_mask=mask,
        positions=positions,
        weights=logit_weights(target, model.config.vocab_size, contrast),
        rules=rules,
    )


def explainable(kind="mamba", **options):
    return make_explainable(random_model(**KINDS[kind], **options))


every_kind = pytest.mark.parametrize("kind", KINDS)
SIZES = [(1, 1, 1), (2, 17, 2), (3, 63, 5), (8, 33, 3)]
DTYPES = (torch.bfloat16, torch.float32, torch.float64)
CASES = [(method, DTYPES[(m + s) % 3], *size) for m, method in enumerate(RULES) for s, size in enumerate(SIZES)]
"""Every method in every dtype, and both at every size."""
CASES += [("mambalrp", torch.float32, *size) for s, size in enumerate(SIZES) if s % 3 != 1]  # by compiled code


@every_kind
@pytest.mark.parametrize(("method", "dtype", "layers", "length", "batch"), CASES)
def test_relevance_equals_the_oracle(kind, method, dtype, layers, length, batch):
    model = explainable(kind, num_layers=layers, hidden_size=16, state_size=8, dtype=dtype, seed=layers + length)
    lengths = [max(1, length - 3 * row) for row in range(batch)]
    ids, mask = padded_batch(lengths, seed=length)
    target = [row % 19 for row in range(batch)]
    expected = oracle(model, ids, mask, target, rules=RULES[method])
    found = model.explain(ids, attention_mask=mask, target=target, method=method, per_layer=True)
    terms = expected.layer_terms
    assert relative(found.relevance, expected.relevance, terms[0]) < RELATIVE[dtype]
    assert relative(found.layer_relevance, expected.layer_relevance, terms) < RELATIVE[dtype]
    torch.testing.assert_close(found.score.double(), expected.score, rtol=RELATIVE[dtype], atol=RELATIVE[dtype])
    torch.testing.assert_close(
        found.conservation.biases.double(), expected.biases, rtol=10 * RELATIVE[dtype], atol=RELATIVE[dtype]
    )


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((kind, torch.float32) for kind in KINDS),
        *((kind, torch.bfloat16) for kind in ("mamba", "falcon_mamba", "mamba2, two groups")),
    ],
)
def test_relevance_of_a_long_input_through_eight_layers(kind, dtype):
    model = explainable(kind, num_layers=8, hidden_size=32, state_size=16, vocab_size=50, dtype=dtype, seed=5)
    ids, mask = padded_batch([499, 250], vocab_size=50, seed=5)
    expected = oracle(model, ids, mask, [3, 4])
    found = model.explain(ids, attention_mask=mask, target=[3, 4])
    assert relative(found.relevance, expected.relevance) < RELATIVE[dtype]


@every_kind
def test_contrast_is_the_difference_of_logits(kind):
    model = explainable(kind, num_layers=2, seed=1)
    ids, mask = padded_batch([9, 4])
    expected = oracle(model, ids, mask, [2, 3], [5, 6])
    found = model.explain(ids, attention_mask=mask, target=[2, 3], contrast=torch.tensor([5, 6]))
    assert relative(found.relevance, expected.relevance) < RELATIVE[torch.float64]
    torch.testing.assert_close(found.score.double(), expected.score, rtol=1e-6, atol=1e-6)
    assert found.contrast == [5, 6]


@pytest.mark.parametrize("position", [3, -2, [3, 1], torch.tensor([-1, -3])])
def test_position_chooses_whose_prediction(position):
    model = explainable(num_layers=2, seed=2)
    ids, mask = padded_batch([9, 8], side="right")
    expected_positions = torch.tensor(
        {"3": [3, 3], "-2": [7, 6], "[3, 1]": [3, 1], "tensor([-1, -3])": [8, 5]}[str(position)]
    )
    expected = oracle(model, ids, mask, [2, 3], positions=expected_positions)
    found = model.explain(ids, attention_mask=mask, target=[2, 3], position=position)
    assert found.position.tolist() == expected_positions.tolist()
    assert relative(found.relevance, expected.relevance) < RELATIVE[torch.float64]


@every_kind
def test_without_biases_relevance_sums_to_the_score(kind):
    model = explainable(kind, num_layers=4, hidden_size=16, zero_biases=True, dtype=torch.float32, seed=3)
    ids, mask = padded_batch([40, 31, 7], seed=3)
    found = model.explain(ids, attention_mask=mask)
    assert ((found.relevance.sum(1) - found.score).abs() <= 1e-4 * found.score.abs()).all()
    assert (found.conservation.biases == 0).all()


@every_kind
@pytest.mark.parametrize("use_bias", [False, True])
def test_with_biases_their_part_closes_the_gap(kind, use_bias):
    model = explainable(kind, num_layers=4, hidden_size=16, use_bias=use_bias, dtype=torch.float32, seed=4)
    ids, mask = padded_batch([40, 31, 7], side="right", seed=4)
    found = model.explain(ids, attention_mask=mask)
    assert (found.conservation.biases.abs() > 1e-3 * found.score.abs()).all()
    assert (found.conservation.gap.abs() <= 1e-4 * found.score.abs()).all()


@every_kind
def test_every_layer_conserves_with_the_biases_above_it(kind):
    model = explainable(kind, num_layers=3, seed=6)
    ids, mask = padded_batch([12, 5], seed=6)
    expected = oracle(model, ids, mask, [1, 2])
    found = model.explain(ids, attention_mask=mask, target=[1, 2], per_layer=True)
    assert found.layer_relevance.shape == (4, 2, 12)
    for layer in range(4):
        absorbed_above = expected.bias_by_layer[layer:].sum(0)
        total = found.layer_relevance[layer].sum(1).double() + absorbed_above
        torch.testing.assert_close(total, expected.score, rtol=1e-5, atol=1e-6)


@every_kind
@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("method", RULES)
def test_padding_and_partners_change_nothing(kind, method, use_bias):
    model = explainable(kind, num_layers=3, hidden_size=16, dtype=torch.float32, use_bias=use_bias, seed=7)
    row = torch.tensor([[4, 9, 2, 7, 7, 1]])
    other = torch.tensor([[3, 8, 5, 5, 2, 1, 1, 0, 6]])
    alone = model.explain(row, target=3, method=method)
    left = torch.cat([torch.cat([torch.tensor([[11, 0, 13]]), row], 1), other])
    right = torch.cat([torch.cat([row, torch.tensor([[11, 0, 13]])], 1), other])
    mask = torch.ones_like(left)
    left_mask, right_mask = mask.clone(), mask.clone()
    left_mask[0, :3] = 0
    right_mask[0, 6:] = 0
    on_left = model.explain(left, attention_mask=left_mask, target=[3, 4], method=method)
    on_right = model.explain(right, attention_mask=right_mask, target=[3, 4], method=method)
    if not use_bias:  # with in_proj bias, transformers lets left padding leak through the convolution, and so do we
        assert relative(on_left.relevance[0, 3:], alone.relevance[0].double()) < 1e-5
    assert relative(on_right.relevance[0, :6], alone.relevance[0].double()) < 1e-5
    assert (on_left.relevance[0, :3] == 0).all()
    assert (on_right.relevance[0, 6:] == 0).all()


@every_kind
@pytest.mark.parametrize("method", RULES)
def test_training_mode_changes_nothing_and_is_kept(kind, method):
    model = explainable(kind, num_layers=2, dtype=torch.float32, seed=8)
    ids, mask = padded_batch([8, 5])
    evaluated = model.eval().explain(ids, attention_mask=mask, target=2, method=method)
    trained = model.train().explain(ids, attention_mask=mask, target=2, method=method)
    assert model.training
    assert torch.equal(evaluated.relevance, trained.relevance)


COMBINATIONS = [(kind, method, backend) for kind in KINDS for method in RULES for backend in ("reference", "chunked")]
CHUNKS = [(1, 12), (2, 13), (5, 100)]
COMBINATIONS = [(*one, CHUNKS[(n + n // 6) % 3]) for n, one in enumerate(COMBINATIONS)]
COMBINATIONS += [(kind, "mambalrp", "compiled", sum(CHUNKS, ())) for kind in ("mamba", "falcon_mamba")]
"""Every kind with every method by every backend, and each of them with every size."""


@pytest.mark.parametrize(("kind", "method", "backend", "sizes"), COMBINATIONS)
def test_every_chunk_size_and_backend_gives_the_same(kind, method, backend, sizes):
    model = explainable(kind, num_layers=2, dtype=torch.float32, seed=9)
    ids, mask = padded_batch([13, 6])
    options = {"attention_mask": mask, "target": 2, "method": method, "per_layer": True}
    whole = model.explain(ids, **options)
    for size in sizes:
        pieces = model.explain(ids, **options, chunk_size=size, backend=backend)
        assert relative(pieces.relevance, whole.relevance.double()) < 1e-5, size
        assert relative(pieces.layer_relevance, whole.layer_relevance.double()) < 1e-5, size
        torch.testing.assert_close(pieces.conservation.biases, whole.conservation.biases, rtol=1e-4, atol=1e-6)


@every_kind
def test_two_equal_calls_give_equal_results(kind):
    model = explainable(kind, num_layers=2, dtype=torch.float32)
    ids, mask = padded_batch([8, 5])
    first, second = (model.explain(ids, attention_mask=mask) for _ in range(2))
    assert torch.equal(first.relevance, second.relevance)
    assert torch.equal(first.score, second.score)
