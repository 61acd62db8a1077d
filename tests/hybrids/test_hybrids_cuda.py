"""Hybrids on a GPU give the CPU's relevance. CI has none: these run on a machine that has one.

The forward check is left out: kernels that transformers may have take none of these sizes.
"""

import copy

import pytest
import torch
from small_hybrids import VOCABULARY, build, one_each
from test_cuda import relative, requires_cuda
from test_hybrid_relevance import padded

from hf_mambalrp import make_explainable
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.methods import graphs

SEEDS = {"zamba2": 11, "qwen3_next": 15, "qwen3_5": 6, "qwen3_5-moe": 8, "lfm2-biases": 26, "lfm2-moe": 14}
"""Of the others it is 2. Rounding moves what these models say by little: where every weight is changed by up to e of
itself, the relevance in float64 changes by at most 6 e; at other seeds, with norms that divide by little or routers
that nearly choose otherwise, by up to 50 e.
"""
BOUND = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
every_family = pytest.mark.parametrize("name", one_each())
both_dtypes = pytest.mark.parametrize("dtype", BOUND, ids=str)
OPTIONS = {"per_layer": True, "check_forward": False}


def both(name, dtype=torch.float32):
    """The model on the CPU and on the GPU."""
    model = build(name, dtype=dtype, seed=SEEDS.get(name, 2))
    return make_explainable(copy.deepcopy(model)), make_explainable(model.cuda())


def same(found, expected, bound):
    """Tokens, layers and parts; what is absorbed is relative to what it is the rest of."""
    assert found.relevance.device.type == "cpu"
    assert relative(found.relevance, expected.relevance) < bound
    assert relative(found.layer_relevance, expected.layer_relevance) < bound
    assert found.parts.names == expected.parts.names
    for name, one, other in zip(found.parts.names, found.parts.relevance, expected.parts.relevance, strict=True):
        scale = expected.layer_relevance[name[0]].norm()
        assert float((one - other).norm()) < bound * float(scale + other.norm()), name
    size = expected.relevance.abs().sum(-1)
    for absorbed in ("biases", "softmax"):
        one, other = getattr(found.conservation, absorbed), getattr(expected.conservation, absorbed)
        assert (one is None) == (other is None)
        if one is not None:
            assert ((one - other).abs() < 5 * bound * (size + other.abs())).all(), absorbed


@requires_cuda
@both_dtypes
@every_family
def test_a_gpu_gives_the_cpus_relevance_at_once_and_in_chunks(name, dtype):
    on_cpu, on_gpu = both(name, dtype)
    ids, mask = padded("right")
    for rule in ("cp", "attnlrp"):
        options = {"attention_mask": mask, "target": [3, 8, 20], "attention_rule": rule, **OPTIONS}
        expected = on_cpu.explain(ids, **options)
        for chunk_size in ("auto", 5):
            same(on_gpu.explain(ids.cuda(), chunk_size=chunk_size, **options), expected, BOUND[dtype])


@requires_cuda
@both_dtypes
@every_family
def test_calls_of_one_shape_are_equal_recorded_or_not(name, dtype):
    """Without padding, and so recorded where no part's work depends on its numbers; chunks of a text never are."""
    on_cpu, on_gpu = both(name, dtype)
    launched = make_explainable(copy.deepcopy(on_gpu))
    subject_of(launched).network().recordings.possible = False
    texts = torch.randint(1, VOCABULARY, (4, 1, 40), generator=torch.Generator().manual_seed(2))
    for ids in [*texts, *texts]:
        found = on_gpu.explain(ids, target=3, **OPTIONS)
        same(found, launched.explain(ids, target=3, **OPTIONS), BOUND[dtype])
        if dtype == torch.float32:
            same(found, expected := on_cpu.explain(ids, target=3, **OPTIONS), BOUND[dtype])
            same(on_gpu.explain(ids, target=3, chunk_size=16, **OPTIONS), expected, BOUND[dtype])
    recordings = subject_of(on_gpu).network().recordings
    recorded = graphs.Recording in map(type, recordings.by_shape.values())
    assert recorded == all(part.recordable for part in subject_of(on_gpu).network().parts)


@requires_cuda
@every_family
@pytest.mark.parametrize("method", ["gradient_x_input", "lrp_ln"])
def test_other_methods_on_a_gpu_are_the_cpus(name, method):
    on_cpu, on_gpu = both(name)
    ids, mask = padded("left")
    options = {"attention_mask": mask, "target": [3, 8, 20], "method": method, "check_forward": False}
    found, expected = on_gpu.explain(ids, **options), on_cpu.explain(ids, **options)
    # A gradient is orthogonal to embeddings that are normed first, as MiniMax's are: its relevance is what eps leaves.
    scale = expected.relevance.norm() + expected.score.norm()
    assert float((found.relevance - expected.relevance).norm() / scale) < 1e-5


@requires_cuda
@every_family
def test_attention_shown_on_a_gpu_is_the_cpus(name):
    on_cpu, on_gpu = both(name)
    ids, mask = padded("right")
    for kind in ("raw", "unified"):
        found, expected = (
            model.hidden_attention(ids, attention_mask=mask, kind=kind, check_forward=False).matrix
            for model in (on_gpu, on_cpu)
        )
        assert relative(found, expected) < 1e-5
