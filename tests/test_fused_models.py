"""Whole models through the fused kernels: against the oracle, in Triton's interpreter where there is no GPU."""

import sys

import pytest
import torch
from oracles import MAMBALRP, logit_weights
from oracles_mamba2 import oracle_of
from random_models import padded_batch, random_model
from small import KINDS
from tolerances import RELATIVE

from hf_mambalrp import make_explainable
from hf_mambalrp.errors import BackendError
from hf_mambalrp.families.parts import narrow
from hf_mambalrp.rules.linear import linear_part

if sys.platform != "linux":  # where it has to be installed
    pytest.skip("triton is built for Linux only", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore:divide by zero encountered in log2:RuntimeWarning")  # dt after the end
CUDA = torch.cuda.is_available()
DTYPES = [torch.float32, torch.float16, torch.bfloat16] if CUDA else [torch.float32]
"""The interpreter multiplies the bits of bfloat16 where a GPU multiplies numbers."""
BOUNDS = {**RELATIVE, torch.float16: 1e-5}
"""float16 models are computed in float32."""


def relative(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


def explainable(kind, **options):
    model = random_model(**KINDS[kind], **options)
    return make_explainable(model.cuda() if CUDA else model)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("kind", "use_bias"), [*((kind, True) for kind in KINDS), ("mamba", False), ("mamba2, two groups", False)]
)
def test_relevance_equals_the_oracle(kind, use_bias, dtype):
    layers = 2 if CUDA or not use_bias else 1  # the interpreter takes a second for each
    model = explainable(kind, num_layers=layers, hidden_size=16, state_size=8, use_bias=use_bias, dtype=dtype)
    ids, mask = padded_batch([11, 6], side="right", seed=1)  # the convolution's blocks are of 8 positions
    weights = logit_weights([2, 3], 19)
    expected = oracle_of(model, input_ids=ids, attention_mask=mask, weights=weights, rules=MAMBALRP)
    found = model.explain(
        ids, attention_mask=mask, target=[2, 3], per_layer=True, backend="triton", check_forward=not CUDA
    )
    assert relative(found.relevance, expected.relevance) < BOUNDS[dtype]
    assert relative(found.layer_relevance.transpose(0, 1), expected.layer_relevance.transpose(0, 1)) < BOUNDS[dtype]
    assert relative(found.score, expected.score) < BOUNDS[dtype]
    torch.testing.assert_close(
        found.conservation.biases.double(), expected.biases, rtol=10 * BOUNDS[dtype], atol=BOUNDS[dtype]
    )
    assert (found.relevance[1, 6:] == 0).all()


@pytest.mark.parametrize("chunk_size", [1, 5, 7, 11, 12] if CUDA else [7])
@pytest.mark.parametrize("kind", ["mamba", "mamba2, two groups"])
def test_chunks_and_left_padding_change_nothing(kind, chunk_size):
    model = explainable(kind, num_layers=1, hidden_size=16, dtype=torch.float32)
    ids, mask = padded_batch([12, 7], seed=2)
    options = {"attention_mask": mask, "target": 3, "per_layer": True, "check_forward": not CUDA}
    whole = model.explain(ids, backend="chunked", **options)
    pieces = model.explain(ids, backend="triton", chunk_size=chunk_size, **options)
    assert relative(pieces.relevance, whole.relevance.double()) < 1e-5
    assert relative(pieces.layer_relevance, whole.layer_relevance.double()) < 1e-5
    assert (pieces.relevance[1, :5] == 0).all()


@pytest.mark.parametrize("kind", ["mamba", "mamba2, two groups"])
def test_what_a_narrow_stream_is_projected_to_is_computed_again_and_that_of_a_wide_one_kept(kind, monkeypatch):
    """Bit by bit the same, padding, biases and chunks included."""
    model, again = explainable(kind, num_layers=1, hidden_size=16, use_bias=True, dtype=torch.float32), []
    monkeypatch.setattr(narrow, "linear_part", lambda *arguments: again.append(arguments[2]) or linear_part(*arguments))
    ids, mask = padded_batch([11, 6], side="right", seed=1)
    options = {"attention_mask": mask, "target": 3, "backend": "triton", "check_forward": False}
    found = [model.explain(ids, chunk_size=size, **options).relevance for size in ("auto", 8)]
    inner = model.backbone.layers[0].mixer.intermediate_size
    order = (
        [slice(inner, 2 * inner), slice(0, inner)] if kind == "mamba" else [slice(0, inner), slice(inner, 2 * inner)]
    )
    assert again == order * (len(again) // 2)
    assert len(again) >= 6  # of the whole and of two chunks, which a GPU records as well
    monkeypatch.setattr(narrow, "NARROW", 15)
    again.clear()
    kept = [model.explain(ids, chunk_size=size, **options).relevance for size in ("auto", 8)]
    assert again == []
    assert all(map(torch.equal, found, kept))


def test_what_is_scaled_before_its_projection_is_scaled_in_the_backward_too():
    model = explainable("mamba2, two groups", num_layers=1, hidden_size=16, dtype=torch.float32)
    model.backbone.layers[0].mixer.ssm_in_multiplier = 0.5
    options = {"target": 3, "check_forward": False}
    ids = padded_batch([11], seed=1)[0]
    whole, found = (model.explain(ids, backend=backend, **options).relevance for backend in ("chunked", "triton"))
    assert relative(found, whole.double()) < 1e-5


def test_where_the_kernels_cannot_run_the_error_says_why_and_what_to_do(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # on a machine with a GPU it is not set
    model = make_explainable(random_model(dtype=torch.float32))
    ids = padded_batch([4])[0]
    with pytest.raises(BackendError, match=r"'triton' cannot run here.*mambalrp.*chunked"):
        model.explain(ids, backend="triton", method="gradient_x_input", check_forward=False)
    with pytest.raises(BackendError, match=r"'triton' cannot run here.*float64.*chunked"):
        make_explainable(random_model()).explain(ids, backend="triton", check_forward=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(BackendError, match=r"'triton' cannot run here.*CUDA.*on cpu.*'auto'"):
        model.explain(ids, backend="triton", check_forward=False)
    with pytest.raises(BackendError, match=r"'mamba_ssm' cannot run here"):
        model.explain(ids, backend="mamba_ssm", check_forward=False)
    assert model.explain(ids, check_forward=not CUDA).relevance.shape == ids.shape
