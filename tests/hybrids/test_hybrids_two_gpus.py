"""A hybrid spread over devices gives the relevance of one. CI has no GPU: these run on a machine that has two."""

import pytest
import torch
from small_hybrids import build
from test_cuda import relative
from test_hybrid_relevance import padded
from test_hybrids_cuda import BOUND, OPTIONS, both_dtypes, same
from test_two_gpus import hooks, requires_two

from hf_mambalrp import AutoMambaLRPForCausalLM, make_explainable

IDS, MASK = padded("right")
# Behind the attention of each half of the model are experts.
SPREAD = {"granite-moe": [0, 0, 1, 1], "nemotron_h-moe": [0, 0, 0, 1, 1]}


def explained(model, **options):
    return model.explain(IDS, attention_mask=MASK, target=[3, 8, 20], **OPTIONS, **options)


def spread(folder, model, devices, dtype):
    """The checkpoint with its layers on these devices, what is before them on the first, what is behind on the last."""
    layers = {f"model.layers.{layer}": device for layer, device in enumerate(devices)}
    others = {f"model.{name}": devices[0] for name, _ in model.model.named_children() if name != "layers"}
    last = {name: devices[-1] for name in others if "norm" in name}
    device_map = {**others, **last, **layers, "lm_head": devices[-1]}
    return AutoMambaLRPForCausalLM.from_pretrained(
        folder, device_map=device_map, dtype=dtype, experts_implementation="eager"
    )


@requires_two
@both_dtypes
@pytest.mark.parametrize("rule", ["cp", "attnlrp"])
@pytest.mark.parametrize("name", SPREAD)
def test_a_hybrid_on_two_gpus_gives_the_relevance_of_one(tmp_path, name, rule, dtype):
    stock = build(name, dtype=dtype, seed=2)
    stock.save_pretrained(tmp_path)
    model = spread(tmp_path, stock, SPREAD[name], dtype)
    of_experts = {p.device.index for path, p in model.named_parameters() if "experts" in path or "moe" in path}
    of_attention = {p.device.index for path, p in model.named_parameters() if "q_proj" in path}
    assert of_experts == {0, 1}
    assert of_attention
    expected = explained(make_explainable(stock.cuda()), attention_rule=rule)
    before = hooks(model)
    for _ in range(3):
        same(explained(model, attention_rule=rule), expected, BOUND[dtype])
    for chunk_size in (1, 5):
        same(explained(model, attention_rule=rule, chunk_size=chunk_size), expected, BOUND[dtype])
    assert hooks(model) == before


@requires_two
@pytest.mark.parametrize("name", SPREAD)
def test_device_map_auto_uses_both_gpus(tmp_path, name):
    """With room for about half of the model on the first."""
    stock = build(name, dtype=torch.float32, seed=2)
    stock.save_pretrained(tmp_path)
    half = sum(p.nbytes for p in stock.parameters()) // 2
    options = {"device_map": "auto", "dtype": torch.float32, "experts_implementation": "eager"}
    model = AutoMambaLRPForCausalLM.from_pretrained(tmp_path, max_memory={0: half, 1: "1GiB"}, **options)
    assert {p.device.index for p in model.parameters()} == {0, 1}
    expected = explained(make_explainable(stock.cuda()))
    same(explained(model), expected, 1e-5)
    attention = [m.hidden_attention(IDS, attention_mask=MASK, check_forward=False).matrix for m in (model, stock)]
    assert relative(*attention) < 1e-5
