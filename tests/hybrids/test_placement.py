"""Hybrids whose weights are elsewhere or have fewer bits: offloaded, spread over devices, quantised."""

import copy
import sys
from functools import cache

import pytest
import torch
import transformers
from accelerate import cpu_offload
from small_hybrids import VOCABULARY, build, one_each
from transformers import AutoModelForCausalLM

from hf_mambalrp import make_explainable

IDS = torch.randint(1, VOCABULARY, (2, 5), generator=torch.Generator().manual_seed(3))
# The layers of Zamba share weights, which transformers 4 cannot place; Zamba2's forward is wrong there.
MODELS = [name for name in one_each() if not (name.startswith("zamba") and transformers.__version__.startswith("4."))]
every_family = pytest.mark.parametrize("name", MODELS)


def single(name):
    """The model in float32, which everything here can hold."""
    return build(name).float()


@cache
def usual(name):
    """What it is explained by where all its weights are in memory."""
    return make_explainable(single(name)).explain(IDS, target=3)


def same(found, expected, tolerance=1e-5):
    for one, other in ((found.relevance, expected.relevance), (found.score, expected.score)):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


@every_family
def test_weights_that_are_offloaded_give_the_same(name):
    model = make_explainable(cpu_offload(single(name), execution_device="cpu"))
    assert all(parameter.is_meta for parameter in model.model.layers.parameters())
    same(model.explain(IDS, target=3, chunk_size=4), usual(name))
    same(model.explain(IDS, target=3), usual(name))
    assert all(parameter.is_meta for parameter in model.model.layers.parameters())


@every_family
def test_weights_on_disk_give_the_same(name, tmp_path):
    stock = single(name)
    stock.save_pretrained(tmp_path / "model")
    inner = {f"model.{child}": "cpu" for child, _ in stock.model.named_children() if child != "layers"}
    layers = {f"model.layers.{layer}": "disk" for layer in range(len(stock.model.layers))}
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model",
        device_map={"lm_head": "cpu", **inner, **layers},
        offload_folder=tmp_path / "offload",
        dtype=torch.float32,
        **({} if transformers.__version__.startswith("4.") else {"experts_implementation": "eager"}),
    )
    assert any(parameter.is_meta for parameter in model.parameters())
    same(make_explainable(model).explain(IDS, target=3), usual(name))


@every_family
@pytest.mark.skipif(sys.platform != "linux", reason="bitsandbytes is installed on Linux only")
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
def test_eight_bits_are_explained_as_the_weights_that_they_stand_for(name):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    stock = single(name)
    quantised = copy.deepcopy(stock)
    for path, module in stock.named_modules():
        # What transformers calls; some releases read a router's or dt_proj's weight.
        if type(module) is not torch.nn.Linear or path.rpartition(".")[2] in ("lm_head", "dt_proj", "router", "layer"):
            continue
        layer = bitsandbytes.nn.Linear8bitLt(
            module.in_features, module.out_features, module.bias is not None, has_fp16_weights=False, threshold=0.0
        )
        layer.load_state_dict(module.state_dict())
        layer = layer.to("cpu")
        quantised.set_submodule(path, layer.requires_grad_(requires_grad=False))
        scale = layer.weight.SCB if layer.weight.SCB is not None else layer.state.SCB
        module.weight.data = bitsandbytes.functional.int8_vectorwise_dequant(layer.weight.data, scale).float()
    expected = make_explainable(stock).explain(IDS, target=3, per_layer=True)
    found = make_explainable(quantised).explain(IDS, target=3, per_layer=True, check_forward=False)
    same(found, expected)
    torch.testing.assert_close(found.layer_relevance, expected.layer_relevance, rtol=1e-4, atol=1e-5)
    assert found.conservation.gap.abs().max() < 1e-4
