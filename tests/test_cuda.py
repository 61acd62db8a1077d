"""The same relevance on a GPU. CI has none: these run on a machine that has one."""

import copy
from importlib.util import find_spec

import pytest
import torch
from oracles import padded_batch, random_model

from hf_mambalrp import make_explainable
from hf_mambalrp.errors import BackendError

requires_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@requires_cuda
@pytest.mark.parametrize("method", ["mambalrp", "lrp_ln", "gradient_x_input"])
@pytest.mark.parametrize("chunk_size", ["auto", 7])
def test_a_gpu_gives_the_cpus_relevance(method, chunk_size):
    model = random_model(num_layers=4, hidden_size=32, state_size=16, dtype=torch.float32, use_bias=True, seed=1)
    ids, mask = padded_batch([70, 33, 5], side="right", seed=1)
    options = {"attention_mask": mask, "target": [1, 2, 3], "method": method, "layers": True}
    expected = make_explainable(copy.deepcopy(model)).explain(ids, **options)
    found = make_explainable(model.cuda()).explain(ids.cuda(), chunk_size=chunk_size, **options)
    assert found.relevance.device.type == "cpu"
    assert relative(found.relevance, expected.relevance) < 1e-5
    assert relative(found.layer_relevance, expected.layer_relevance) < 1e-5
    torch.testing.assert_close(found.score, expected.score, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.conservation.biases, expected.conservation.biases, rtol=1e-3, atol=1e-5)


@requires_cuda
@pytest.mark.parametrize(
    ("dtype", "backend", "bound"),
    [
        (torch.bfloat16, "chunked", 1e-5),
        (torch.float16, "auto", 1e-5),
        (torch.bfloat16, "auto", 2e-2),
    ],
)
def test_half_precision_weights_on_a_gpu(dtype, backend, bound):
    """Only the fused kernels round signals between matrix products, and only of a bfloat16 model."""
    model = random_model(num_layers=3, dtype=dtype, seed=2)
    ids, mask = padded_batch([20, 9], seed=2)
    expected = make_explainable(copy.deepcopy(model)).explain(ids, attention_mask=mask, target=1)
    found = make_explainable(model.cuda()).explain(ids, attention_mask=mask, target=1, backend=backend)
    assert relative(found.relevance, expected.relevance) < bound


@requires_cuda
@pytest.mark.skipif(find_spec("mamba_ssm") is None, reason="needs mamba_ssm")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_forward_kernel_of_mamba_ssm_gives_the_same(dtype):
    model = make_explainable(random_model(num_layers=3, hidden_size=32, state_size=16, dtype=dtype, seed=2).cuda())
    ids, mask = padded_batch([70, 33], side="right", seed=2)
    expected = model.explain(ids, attention_mask=mask, target=1, backend="triton")
    found = model.explain(ids, attention_mask=mask, target=1, backend="mamba_ssm")
    assert relative(found.relevance, expected.relevance) < {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    with pytest.raises(BackendError, match=r"starts from zero.*'triton'"):
        model.explain(ids, attention_mask=mask, target=1, backend="mamba_ssm", chunk_size=40)


@requires_cuda
def test_generation_and_functions_of_the_logits_on_a_gpu():
    model = make_explainable(random_model(num_layers=2, dtype=torch.float32, seed=3).cuda())
    ids = padded_batch([6], seed=3)[0]
    generated = model.explain_generation(ids, max_new_tokens=3)
    last = model.explain(generated.input_ids[:, :-1], target=lambda logits: logits[:, int(generated.input_ids[0, -1])])
    assert relative(generated.relevance[:, -1, :-1], last.relevance) < 1e-5


@requires_cuda
def test_the_compiled_scan_declines_a_gpu():
    model = make_explainable(random_model(num_layers=1, dtype=torch.float32).cuda())
    with pytest.raises(BackendError, match=r"'compiled'.*cuda.*'chunked'"):
        model.explain(padded_batch([4])[0], backend="compiled")
