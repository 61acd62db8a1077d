"""Delta nets and linear recurrences through the Triton kernels; without a GPU in Triton's interpreter."""

import sys

import pytest
import torch
from small_hybrids import VOCABULARY, available, build

from hf_mambalrp import make_explainable

if sys.platform != "linux":  # where it has to be installed
    pytest.skip("triton is built for Linux only", allow_module_level=True)
CUDA = torch.cuda.is_available()


@pytest.mark.parametrize("name", [name for name in ("qwen3_5", "kimi_linear", "minimax") if name in available()])
def test_the_kernels_give_the_same_relevance_whole_and_in_chunks(name):
    model = build(name, dtype=torch.float32)
    for layers in (model.model.layers, model.config.layer_types):
        del layers[2:]  # one of either kind: the interpreter is slow
    model.config.num_hidden_layers = 2
    model = make_explainable(model.cuda() if CUDA else model)
    ids = torch.randint(1, VOCABULARY, (1, 7), generator=torch.Generator().manual_seed(1))
    options = {"target": 3, "per_layer": True, "check_forward": not CUDA}
    expected = model.explain(ids, backend="chunked", **options)
    for chunk_size in ("auto", 4):
        found = model.explain(ids, backend="triton", chunk_size=chunk_size, **options)
        for one, other in ((found.relevance, expected.relevance), (found.layer_relevance, expected.layer_relevance)):
            assert (one - other).norm() <= 1e-5 * other.norm()
