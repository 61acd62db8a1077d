"""A model spread over devices gives the relevance of one device. CI has no GPU: these run on a machine that has two."""

import copy

import pytest
import torch
from accelerate import dispatch_model
from accelerate.hooks import ModelHook
from random_models import padded_batch, random_model
from small import KINDS, word_tokenizer
from test_cuda import relative

from hf_mambalrp import AutoMambaLRPForCausalLM, evaluate_faithfulness, make_explainable
from hf_mambalrp.runs.workers import examined

requires_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")

BATCH = padded_batch([40, 23], side="right", seed=1)
BOUND = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def explained(model, **options):
    ids, mask = BATCH
    return model.explain(ids, attention_mask=mask, target=[1, 2], per_layer=True, **options)


def assert_same(found, expected, bound):
    assert found.relevance.device.type == "cpu"
    assert relative(found.relevance, expected.relevance) < bound
    assert relative(found.layer_relevance, expected.layer_relevance) < bound
    torch.testing.assert_close(found.conservation.biases, expected.conservation.biases, rtol=0.1, atol=20 * bound)


def hooks(model):
    return {name: module._hf_hook for name, module in model.named_modules() if hasattr(module, "_hf_hook")}


def spread(folder, devices, dtype=torch.float32, **options):
    """The checkpoint with its four blocks on these devices, the embeddings on the first and the head on the last."""
    device_map = {f"backbone.layers.{layer}": device for layer, device in enumerate(devices)}
    device_map |= {"backbone.embeddings": devices[0], "backbone.norm_f": devices[-1], "lm_head": devices[-1]}
    return AutoMambaLRPForCausalLM.from_pretrained(folder, device_map=device_map, dtype=dtype, **options)


@requires_two
@pytest.mark.parametrize("dtype", BOUND, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_on_two_gpus_gives_the_relevance_of_one(tmp_path, kind, dtype):
    stock = random_model(**KINDS[kind], num_layers=4, hidden_size=32, dtype=dtype, use_bias=True)
    stock.save_pretrained(tmp_path)
    model = spread(tmp_path, [0, 0, 1, 1], dtype)
    assert {parameter.device.index for parameter in model.parameters()} == {0, 1}
    expected = explained(make_explainable(stock.cuda()))
    before, devices = hooks(model), {name: p.device for name, p in model.named_parameters()}
    assert all(isinstance(hook, ModelHook) for hook in before.values())
    assert len(before) > 4
    for _ in range(3):  # a shape that comes again is recorded where a model can be
        assert_same(explained(model), expected, BOUND[dtype])
    assert_same(explained(model, chunk_size=7), expected, BOUND[dtype])
    assert hooks(model) == before
    assert {name: p.device for name, p in model.named_parameters()} == devices
    ids, mask = BATCH
    alone = make_explainable(stock).hidden_attention(ids, attention_mask=mask).matrix
    torch.testing.assert_close(
        model.hidden_attention(ids, attention_mask=mask).matrix, alone, rtol=1e-4, atol=BOUND[dtype]
    )


@requires_two
@pytest.mark.parametrize("elsewhere", ["cpu", "disk"])
def test_blocks_on_two_gpus_and_elsewhere(tmp_path, elsewhere):
    stock = random_model(num_layers=4, hidden_size=32, dtype=torch.float32)
    stock.save_pretrained(tmp_path / "model")
    model = spread(tmp_path / "model", [0, elsewhere, 1, 1], offload_folder=tmp_path / "offload")
    assert model.backbone.layers[1].mixer.A_log.is_meta
    assert_same(explained(model), explained(make_explainable(stock.cuda())), 1e-5)
    assert model.backbone.layers[1].mixer.A_log.is_meta


@requires_two
def test_blocks_moved_by_hand_are_not_recorded_as_one_graph():
    stock = random_model(num_layers=4, hidden_size=32, dtype=torch.float32)
    expected = explained(make_explainable(copy.deepcopy(stock).cuda()))
    model = make_explainable(stock.cuda(0))
    model.backbone.layers[2].cuda(1)
    model.backbone.layers[3].cuda(1)
    for _ in range(3):
        assert_same(explained(model, check_forward=False), expected, 1e-5)


@requires_two
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_on_the_second_gpu(kind):
    stock = random_model(**KINDS[kind], num_layers=3, hidden_size=32, dtype=torch.float32)
    expected = explained(make_explainable(copy.deepcopy(stock).cuda(0)))
    model = make_explainable(stock.cuda(1))
    for _ in range(3):  # plain, recorded, replayed
        assert_same(explained(model), expected, 1e-5)
    assert torch.cuda.current_device() == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_offloaded_model_holds_one_block_at_a_time():
    """Twelve blocks of 8 MiB stay on the CPU: the GPU holds two of them at the most, beside what the input takes."""
    stock = random_model(num_layers=12, hidden_size=512, state_size=16, dtype=torch.float32)
    block = sum(p.nbytes for p in stock.backbone.layers[0].parameters())
    expected = explained(make_explainable(copy.deepcopy(stock).cuda()))
    names = [name for name, _ in stock.named_children() if name != "backbone"]
    device_map = {f"backbone.layers.{layer}": "cpu" for layer in range(12)}
    device_map |= {"backbone.embeddings": 0, "backbone.norm_f": 0} | dict.fromkeys(names, 0)
    model = make_explainable(dispatch_model(stock, device_map, main_device=0))
    explained(model)  # what libraries keep
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    found = explained(model)
    peak = torch.cuda.max_memory_allocated() - before
    assert_same(found, expected, 1e-5)
    signals = BATCH[0].numel() * 12 * 512 * 4 * 20
    assert peak < 2 * block + signals, (peak, block, signals)


class Where:
    """Says on which device a process has the model."""

    def __init__(self, model):
        self.model = model

    def __call__(self, example):
        return {"example": example, "device": str(self.model.lm_head.weight.device)}


def leaves(value, path=()):
    """The numbers and names in nested results, by their place."""
    if not isinstance(value, (dict, list)):
        return {path: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {place: leaf for key, one in items for place, leaf in leaves(one, (*path, key)).items()}


@requires_two
def test_processes_of_an_evaluation_have_a_gpu_each_and_the_figures_of_one():
    model = make_explainable(random_model(num_layers=2, hidden_size=32, dtype=torch.float32, seed=1).cuda(1))
    texts = ["a b c d", "f g a", "h", "k a a i n", "b b", "c d e f g h i"]
    with examined(Where(model), range(6), 3, [1, 0]) as found:
        places = {record["example"]: record["device"] for record in found}
    assert set(places) == set(range(6))
    assert set(places.values()) == {"cuda:0", "cuda:1"}
    options = {"methods": ["mambalrp", "random"], "tokenizer": word_tokenizer(), "resamples": 50, "progress": False}
    one, several = (
        leaves(evaluate_faithfulness(model, texts, processes=processes, **options).results) for processes in (1, 3)
    )
    assert one.keys() == several.keys()
    for place, value in one.items():
        assert several[place] == (pytest.approx(value, rel=1e-3, abs=1e-5) if isinstance(value, float) else value)
    assert {parameter.device.index for parameter in model.parameters()} == {1}
