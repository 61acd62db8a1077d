"""Experts whose tokens go through one product are those that go one by one; a GPU does so in bfloat16."""

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from hybrid_models import MODELS, language_model
from small_hybrids import TABLE, VOCABULARY, build
from test_cuda import relative, requires_cuda
from test_hybrid_relevance import padded
from torch.nn import functional as F

from hf_mambalrp import make_explainable
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.errors import ForwardMismatchError
from hf_mambalrp.families.parts import experts, stacked
from hf_mambalrp.families.parts.stacked import Stacked

WITH_EXPERTS = [name for name in ("granite-moe", "nemotron_h-moe", "nemotron_h-latent", "jamba-moe") if name in MODELS]
IDS, SEED = torch.randint(1, VOCABULARY, (2, 20), generator=torch.Generator().manual_seed(2)), 0
needs_grouped = pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="needs torch's grouped product")


def stacks(model):
    parts = [part for part in subject_of(model).network().parts if isinstance(part, experts.Experts)]
    return [part for part in parts if isinstance(part.experts, Stacked)]


@needs_grouped
@pytest.mark.parametrize("name", WITH_EXPERTS)
@pytest.mark.parametrize("options", [{}, {"gamma": 0.25}, {"method": "gradient_x_input"}], ids=str)
@pytest.mark.parametrize("grouped", [True, False], ids=["one product", "a product an expert"])
def test_sorted_tokens_get_the_relevance_of_each_expert_in_turn(name, options, grouped):
    """On the CPU, where torch has the one product in float32."""
    model = make_explainable(language_model(name))
    ids, mask = padded("left")
    options = {**options, "attention_mask": mask, "target": [3, 8, 20], "check_forward": False}
    with patch.object(Stacked, "whole", lambda *_: False):
        expected = model.explain(ids, **options)
    seen, of_one_expert = [], Stacked.__call__
    with (
        patch.object(Stacked, "grouped", grouped),
        patch.object(stacked.torch, "bfloat16", torch.float32),
        patch.object(Stacked, "__call__", lambda self, *rest: seen.append(rest[0]) or of_one_expert(self, *rest)),
    ):
        found = model.explain(ids, **options)
    assert seen == [slice(None)] * len(stacks(model))
    torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.score, expected.score, rtol=1e-5, atol=1e-5)


def with_wide_experts(name, dtype):
    """Rows of weights of a multiple of 16 bytes. With this seed rounding changes no choice of a router."""
    wide = {"intermediate_size": 16, "moe_intermediate_size": 16}
    entry = replace(TABLE[name], settings={**TABLE[name].settings, **wide})
    with patch.dict(TABLE, {name: entry}):
        return make_explainable(build(name, dtype=dtype, seed=SEED))


@requires_cuda
@needs_grouped
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["granite-moe", "nemotron_h-moe"])
def test_a_gpu_multiplies_all_experts_at_once_in_bfloat16_and_records_it(name, dtype):
    on_cpu, on_gpu = with_wide_experts(name, dtype), with_wide_experts(name, dtype).cuda()
    at_once = dtype == torch.bfloat16
    assert [part.experts.grouped for part in stacks(on_gpu)] == [at_once] * len(stacks(on_gpu))
    assert subject_of(on_gpu).network().recordings.possible == at_once
    expected = on_cpu.explain(IDS, target=3, check_forward=False).relevance
    for _ in range(3):
        found = on_gpu.explain(IDS, target=3, check_forward=False).relevance
        assert relative(found, expected) < (2e-2 if at_once else 1e-5)
    assert subject_of(on_gpu).network().recordings.possible == at_once, "the recording failed"


@pytest.mark.skipif("qwen3_next" not in MODELS, reason="needs a release that has the family")
def test_a_choice_that_rounding_decides_is_no_other_forward():
    """Of experts that the router hardly tells apart rounding takes others; what all positions differ by is found."""
    many = {"num_experts": 64, "num_experts_per_tok": 4, "mlp_only_layers": []}
    entry = replace(TABLE["qwen3_next"], settings={**TABLE["qwen3_next"].settings, **many})
    with patch.dict(TABLE, {"qwen3_next": entry}):
        model = make_explainable(build("qwen3_next", dtype=torch.bfloat16, seed=3))
    for layer in model.model.layers:
        rows = layer.mlp.gate.weight.data
        noise = torch.randn(rows[::2].shape, generator=torch.Generator().manual_seed(1))
        rows[1::2] = rows[::2] * (1 + 2**-7 * noise)
    model.explain(IDS, target=3)
    block = type(model.model.layers[0].mlp)
    original = block.forward
    with (
        patch.object(block, "forward", lambda *arguments: 0.8 * original(*arguments)),
        pytest.raises(ForwardMismatchError, match="at layer 0"),
    ):
        model.explain(IDS, target=3)
