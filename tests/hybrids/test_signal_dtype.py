"""On a GPU the signals of a bfloat16 model stay in bfloat16 between matrix products: float32 costs many times more.

Through the GPU's kernels, interpreted. Their own products of bfloat16 are wrong there, so this looks only at what kind
of numbers the layers read.
"""

import torch
from small_hybrids import build
from test_hybrid_relevance import every_family

from hf_mambalrp import make_explainable
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.methods import Problem
from hf_mambalrp.methods.engine import Forward
from hf_mambalrp.rules import MAMBALRP, linear


@every_family
def test_every_product_of_every_part_reads_bfloat16(name, monkeypatch):
    multiply, read = linear._LinearMap.forward, []

    def recording(ctx, x, weight, product):
        read.append(x.dtype)
        return multiply(ctx, x, weight, product)

    monkeypatch.setattr(linear._LinearMap, "forward", staticmethod(recording))
    network = subject_of(make_explainable(build(name, dtype=torch.bfloat16))).network()
    embeddings, mask = network.embed(torch.tensor([[3, 1]])), torch.ones(1, 2, dtype=torch.long)
    Forward(Problem(network, embeddings, mask, torch.tensor([[1]]), torch.sum, False, 2, "triton"), MAMBALRP)
    assert read
    assert set(read) == {torch.bfloat16}
