"""On a GPU the signals of a bfloat16 model stay in bfloat16 between matrix products: float32 costs many times more.

By the calls of the GPU's kernels, which compute nothing here: interpreted, their products of bfloat16 are wrong, and
this looks only at what kind of numbers the layers read.
"""

import pytest
import torch
from random_models import random_model
from small_hybrids import build
from test_hybrid_relevance import every_family

from hf_mambalrp import make_explainable
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.methods import Problem
from hf_mambalrp.methods.engine import Forward
from hf_mambalrp.rules import MAMBALRP, linear

both = pytest.mark.parametrize("second", [[1, 1], [1, 0]], ids=["whole", "padded"])


@every_family
@both
def test_every_product_of_every_part_reads_bfloat16(name, second, monkeypatch):
    read_by_products(build(name, dtype=torch.bfloat16), second, monkeypatch)


@pytest.mark.parametrize("kind", ["mamba", "mamba2", "falcon_mamba"])
@both
def test_so_do_those_of_models_of_one_kind_of_layer(kind, second, monkeypatch):
    read_by_products(random_model(model_type=kind, dtype=torch.bfloat16), second, monkeypatch)


def read_by_products(model, second, monkeypatch):
    """Assert that every product reads bfloat16, of a whole row and of ``second``, which padding may follow."""
    read = []

    def recording(multiply):
        def recorded(ctx, x, *rest):
            read.append(x.dtype)
            return multiply(ctx, x, *rest)

        return staticmethod(recorded)

    for product in (linear._LinearMap, linear._LinearParts):
        monkeypatch.setattr(product, "forward", recording(product.forward))
    monkeypatch.setattr("triton.runtime.interpreter.GridExecutor.__call__", lambda *call, **options: None)
    network = subject_of(make_explainable(model)).network()
    embeddings, mask = network.embed(torch.tensor([[3, 1], [3, 1]])), torch.tensor([[1, 1], second])
    Forward(Problem(network, embeddings, mask, mask.sum(1, keepdim=True) - 1, torch.sum, False, 2, "triton"), MAMBALRP)
    assert read
    assert set(read) == {torch.bfloat16}
