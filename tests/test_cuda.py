"""The same relevance on a GPU. CI has none: these run on a machine that has one."""

import copy
import gc
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from weakref import ref

import pytest
import torch
from random_models import padded_batch, random_model
from small import KINDS

from hf_mambalrp import make_explainable
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.errors import BackendError
from hf_mambalrp.methods import METHODS, graphs

requires_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@requires_cuda
@pytest.mark.parametrize("method", ["mambalrp", "lrp_ln", "gradient_x_input"])
@pytest.mark.parametrize("chunk_size", ["auto", 7])
def test_a_gpu_gives_the_cpus_relevance(method, chunk_size):
    model = random_model(num_layers=4, hidden_size=32, state_size=16, dtype=torch.float32, use_bias=True, seed=1)
    ids, mask = padded_batch([70, 33, 5], side="right", seed=1)
    options = {"attention_mask": mask, "target": [1, 2, 3], "method": method, "per_layer": True}
    expected = make_explainable(copy.deepcopy(model)).explain(ids, check_forward=False, **options)
    found = make_explainable(model.cuda()).explain(ids.cuda(), chunk_size=chunk_size, **options)
    assert {value.device.type for value in (found.relevance, found.score, found.probability)} == {"cpu"}
    assert found.tokens == expected.tokens
    torch.testing.assert_close(found.probability, expected.probability, rtol=1e-4, atol=1e-6)
    assert relative(found.relevance, expected.relevance) < 1e-5
    assert relative(found.layer_relevance, expected.layer_relevance) < 1e-5
    torch.testing.assert_close(found.score, expected.score, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.conservation.biases, expected.conservation.biases, rtol=1e-3, atol=1e-5)


@requires_cuda
@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba", "mamba2"])
def test_every_method_and_the_attention_on_a_gpu_are_the_cpus(kind, method):
    model = random_model(**KINDS[kind], num_layers=3, hidden_size=32, dtype=torch.float32, seed=4)
    ids, mask = padded_batch([20, 13], side="right", seed=4)
    options = {"attention_mask": mask, "check_forward": False}
    on_cpu, on_gpu = make_explainable(copy.deepcopy(model)), make_explainable(model.cuda())
    expected = on_cpu.explain(ids, target=[1, 2], method=method, **options)
    found = on_gpu.explain(ids, target=[1, 2], method=method, **options)
    assert relative(found.relevance, expected.relevance) < 1e-5
    for attention in ("raw", "unified"):
        on_both = [one.hidden_attention(ids, kind=attention, **options).matrix for one in (on_gpu, on_cpu)]
        assert relative(*on_both) < 1e-5


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
    expected = make_explainable(copy.deepcopy(model)).explain(ids, attention_mask=mask, target=1, check_forward=False)
    found = make_explainable(model.cuda()).explain(
        ids, attention_mask=mask, target=1, backend=backend, check_forward=dtype != torch.float16
    )  # not every build of transformers' kernels takes float16
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
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk_size", ["auto", 13], ids=["whole", "chunks"])
def test_a_shape_that_comes_again_is_replayed_with_the_same_numbers(kind, dtype, chunk_size):
    model = make_explainable(
        random_model(**KINDS[kind], num_layers=3, hidden_size=32, dtype=dtype, use_bias=True).cuda()
    )
    batches = [padded_batch([40, 23], seed=seed, side="right") for seed in range(4)]
    options = {"target": [1, 2], "per_layer": True, "chunk_size": chunk_size}

    def explained():
        return [model.explain(ids, attention_mask=mask, **options) for ids, mask in batches]

    def launched(number):
        other = make_explainable(copy.deepcopy(model))
        subject_of(other).network().recordings.possible = False
        ids, mask = batches[number]
        return other.explain(ids, attention_mask=mask, **{**options, "chunk_size": 39})

    expected = [launched(number) for number in range(len(batches))]
    bound = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for _ in range(2):
        for found, wanted in zip(explained(), expected, strict=True):
            assert relative(found.relevance, wanted.relevance) < bound
            assert relative(found.layer_relevance, wanted.layer_relevance) < bound
            torch.testing.assert_close(found.conservation.biases, wanted.conservation.biases, rtol=0.1, atol=20 * bound)
    shapes = subject_of(model).network().recordings.by_shape
    assert graphs.Recording in {type(recording) for recording in shapes.values()}
    first, second = explained()[0], explained()[0]
    assert torch.equal(first.relevance, second.relevance)
    with torch.no_grad():
        model.backbone.norm_f.weight.mul_(2)
        model.backbone.layers[0].mixer.D.mul_(3)  # in place: the recording reads it
    changed = model.explain(batches[0][0], attention_mask=batches[0][1], **options)
    wanted = launched(0)
    assert relative(changed.relevance, wanted.relevance) < bound
    assert relative(changed.relevance, first.relevance) > 0.05
    model.backbone.layers[0].mixer.D = torch.nn.Parameter(model.backbone.layers[0].mixer.D.detach() * 2)  # replaced
    changed = model.explain(batches[0][0], attention_mask=batches[0][1], **options)
    wanted = launched(0)
    assert relative(changed.relevance, wanted.relevance) < bound


@requires_cuda
def test_threads_share_a_recording():
    model = make_explainable(random_model(num_layers=3, hidden_size=32, dtype=torch.float32).cuda())
    inputs = [padded_batch([33], seed=seed)[0] for seed in range(16)]
    expected = [model.explain(ids, target=1, chunk_size=32).relevance for ids in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = list(pool.map(lambda ids: model.explain(ids, target=1).relevance, inputs))
            for one, wanted in zip(found, expected, strict=True):
                assert relative(one, wanted) < 1e-5


@requires_cuda
def test_a_model_with_hooks_is_not_recorded_and_a_deleted_one_is_let_go():
    model = make_explainable(random_model(num_layers=2, dtype=torch.float32).cuda())
    calls, ids = [], padded_batch([9])[0]
    model.backbone.layers[0].mixer.out_proj.register_forward_hook(lambda *_: calls.append(1))
    for count in range(1, 5):
        model.explain(ids, check_forward=False)
        assert len(calls) == 2 * count  # once with zeros, for its biases
    other = random_model(num_layers=2, dtype=torch.float32).cuda()
    for _ in range(3):
        make_explainable(other).explain(ids)
    (recording,) = [found for found in subject_of(other).network().recordings.by_shape.values() if found]
    gone = ref(recording)
    del other, recording
    gc.collect()
    assert gone() is None


@requires_cuda
def test_a_million_positions_in_bounded_memory():
    model = make_explainable(random_model(num_layers=2, hidden_size=32, state_size=16, dtype=torch.bfloat16).cuda())
    ids = torch.randint(1, 19, (1, 2**20), generator=torch.Generator().manual_seed(0))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = model.explain(ids, target=3, chunk_size=2**15)
    assert torch.cuda.max_memory_allocated() - before < 2**30
    assert abs(float(found.conservation.gap)) < 2e-2 * float(found.relevance.abs().sum())  # the score is near 0
    short = model.explain(ids[:, -4096:], target=3)
    assert relative(found.relevance[:, -100:], short.relevance[:, -100:]) < 0.05


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
