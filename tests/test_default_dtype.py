"""torch's default dtype, which a program may have set for its own models, changes no explanation."""

from contextlib import contextmanager
from functools import cache

import pytest
import torch
from random_models import padded_batch, random_model

from hf_mambalrp import make_explainable
from hf_mambalrp.methods import METHODS

IDS, MASK = padded_batch([5, 3])
others = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)


@contextmanager
def default(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@cache
def explained(kind, dtype=torch.float32, **options):
    """Relevance and score by a model that was made before."""
    model = make_explainable(random_model(model_type=kind, dtype=torch.float32))
    with default(dtype):
        found = model.explain(IDS, attention_mask=MASK, target=[3, 5], **options)
    return found.relevance, found.score, found.conservation.biases


@others
@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("kind", ["mamba", "mamba2"])
def test_of_every_method(kind, method, dtype):
    for one, other in zip(explained(kind, dtype, method=method), explained(kind, method=method), strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert torch.equal(one, other)


@others
@pytest.mark.parametrize("backend", ["reference", "chunked", "compiled", "triton"])
@pytest.mark.parametrize("chunk_size", ["auto", 2])
def test_of_every_backend(backend, chunk_size, dtype):
    options = {"backend": backend, "chunk_size": chunk_size, "per_layer": True}
    for one, other in zip(explained("mamba", dtype, **options), explained("mamba", **options), strict=True):
        assert torch.equal(one, other)
