"""The real package mamba_ssm on a GPU: its live models and its checkpoints are explained as what they compute.

Skipped where mamba_ssm or a CUDA device is missing; `test_state_spaces.py` tests the same with a stand-in anywhere.
`pip install mamba-ssm --no-build-isolation` needs CUDA's compiler.
"""

import copy

import pytest
import torch

from hf_mambalrp import AutoMambaLRPForCausalLM, make_explainable

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)
mamba_ssm = pytest.importorskip("mamba_ssm", reason="needs the package mamba_ssm", exc_type=ImportError)

IDS = torch.arange(3, 80).remainder(50)[None].repeat(2, 1)
MIXERS = pytest.mark.parametrize("mixer", [{}, {"layer": "Mamba2", "d_state": 64}], ids=["mamba", "mamba2"])


def live_model(mixer, **options):
    from mamba_ssm.models.config_mamba import MambaConfig

    torch.manual_seed(0)
    config = MambaConfig(d_model=256, n_layer=3, vocab_size=50, ssm_cfg=mixer)
    return mamba_ssm.MambaLMHeadModel(config, device="cuda", **options).eval()


def logits(model):
    with torch.no_grad():
        return model(IDS.cuda()).logits.float().cpu()


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@MIXERS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.bfloat16, 3e-2)])
def test_its_checkpoint_has_equal_logits_here(tmp_path, mixer, dtype, tolerance):
    """The tolerance of float32 is that of TF32, which its kernels multiply in."""
    live = live_model(mixer, dtype=dtype)
    live.save_pretrained(str(tmp_path))
    loaded = AutoMambaLRPForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).cuda()
    expected = logits(live)
    assert relative(logits(loaded), expected) < tolerance
    explanation = loaded.explain(IDS, target=7, contrast=3)
    score = expected[:, -1, 7] - expected[:, -1, 3]
    torch.testing.assert_close(explanation.score, score, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@MIXERS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
def test_a_live_model_is_explained_as_its_checkpoint(tmp_path, mixer, dtype, tolerance):
    """The checkpoint in float32: the fused kernels round signals of a bfloat16 model."""
    live = live_model(mixer, dtype=dtype)
    live.save_pretrained(str(tmp_path))
    before = logits(live)
    assert make_explainable(live) is live
    found = live.explain(IDS, target=7, per_layer=True)
    expected = (
        AutoMambaLRPForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
        .cuda()
        .explain(IDS, target=7, per_layer=True)
    )
    assert relative(found.relevance, expected.relevance) < tolerance
    assert relative(found.layer_relevance, expected.layer_relevance) < tolerance
    assert torch.equal(logits(live), before)
    assert all(weight.grad is None for weight in live.parameters())


@MIXERS
def test_fine_tuning_and_moving_the_live_model_is_seen(mixer):
    live = make_explainable(live_model(mixer))
    before = live.explain(IDS, target=7)
    optimizer = torch.optim.SGD(live.parameters(), 0.1)
    live.train()(IDS.cuda()).logits.square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    tuned = live.eval().explain(IDS, target=7)
    assert relative(tuned.relevance, before.relevance) > 1e-3
    torch.testing.assert_close(tuned.score, logits(live)[:, -1, 7], rtol=1e-2, atol=1e-3)
    again = make_explainable(copy.deepcopy(live)).explain(IDS, target=7)
    assert relative(again.relevance, tuned.relevance) < 1e-5


@MIXERS
def test_what_is_generated_is_the_live_models_choice(mixer):
    live = make_explainable(live_model(mixer))
    ids = live.explain_generation(IDS[:1, :9], max_new_tokens=4, eos_token_id=None).input_ids
    with torch.no_grad():
        choices = live(ids[:, :-1].cuda()).logits[:, 8:].cpu()
    chosen = choices.gather(-1, ids[:, 9:, None])[..., 0]
    torch.testing.assert_close(chosen, choices.max(-1).values, rtol=0, atol=1e-2 * float(choices.abs().max()))
