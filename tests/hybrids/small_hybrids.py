"""Tiny hybrid language models of transformers, every parameter random and large enough to matter.

`TABLE` names them, `build(name)` makes one. All have layers of every kind of the family, and all but one SSD chunks of
4 tokens, so that ten tokens are no whole number of chunks.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transformers
from packaging.version import Version
from random_models import copied
from torch import Tensor

from hf_mambalrp import make_explainable

VOCABULARY = 50

ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 16, "vocab_size": VOCABULARY}
BAMBA_SSM = {
    "mamba_n_heads": 4,
    "mamba_n_groups": 2,
    "mamba_d_state": 3,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_chunk_size": 4,
}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

BAMBA = {**ATTENTION, **BAMBA_SSM, "intermediate_size": 20, "num_hidden_layers": 4, "attn_layer_indices": [1, 3]}
GRANITE = {
    **ATTENTION,
    **BAMBA_SSM,
    "mamba_n_groups": 1,
    "intermediate_size": 10,
    "shared_intermediate_size": 14,
    "num_hidden_layers": 4,
    "layer_types": ["mamba", "attention", "mamba", "attention"],
    "embedding_multiplier": 1.7,
    "residual_multiplier": 0.6,
    "attention_multiplier": 0.8,
    "logits_scaling": 1.3,
    "num_local_experts": 0,
}
FALCON = {
    **ATTENTION,
    **BAMBA_SSM,
    "mamba_d_ssm": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 4,
    "embedding_multiplier": 1.3,
    "lm_head_multiplier": 0.8,
    "key_multiplier": 1.4,
    "attention_in_multiplier": 0.7,
    "attention_out_multiplier": 0.9,
    "ssm_in_multiplier": 1.2,
    "ssm_out_multiplier": 0.6,
    "ssm_multipliers": [1.25, 0.75, 1.5, 0.875, 1.125],  # exact in float32, which transformers rounds them to
    "mlp_multipliers": [1.3, 0.7],
    "mamba_rms_norm": False,
}
NEMOTRON = {
    **ATTENTION,
    "head_dim": 6,
    "mamba_num_heads": 4,
    "mamba_head_dim": 5,
    "n_groups": 2,
    "ssm_state_size": 3,
    "conv_kernel": 4,
    "chunk_size": 4,
    "time_step_min": 0.05,
    "intermediate_size": 24,
    "hybrid_override_pattern": "M-*M-",
}
NEMOTRON_MOE = {
    **NEMOTRON,
    "hybrid_override_pattern": "ME*EM",
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "n_group": 3,
    "topk_group": 2,
    "moe_intermediate_size": 12,
    "moe_shared_expert_intermediate_size": 14,
    "routed_scaling_factor": 1.5,
}
JAMBA = {
    **ATTENTION,
    "mamba_d_state": 3,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_dt_rank": 3,
    "intermediate_size": 18,
    "num_hidden_layers": 4,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "num_experts": 1,
    "num_experts_per_tok": 1,
    "use_mamba_kernels": False,
}
ZAMBA2 = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_attention_heads": 4,
    "mamba_d_state": 3,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_ngroups": 2,
    "n_mamba_heads": 4,
    "chunk_size": 4,
    "time_step_min": 0.05,
    "adapter_rank": 3,
    "intermediate_size": 18,
    "tie_word_embeddings": False,
}
ZAMBA2_ADAPTED = {
    **ZAMBA2,
    "layers_block_type": ["mamba", "mamba", "hybrid", "hybrid", "hybrid", "mamba"],
    "num_hidden_layers": 6,
    "num_mem_blocks": 2,
    "use_shared_attention_adapter": True,
    "use_mem_rope": True,
    "add_bias_linear": True,
}
"""Two shared transformers, the first called twice, with its own adapters in each call."""
ZAMBA = {
    **ATTENTION,
    "mamba_d_state": 3,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_dt_rank": 3,
    "n_mamba_heads": 2,
    "intermediate_size": 18,
    "num_hidden_layers": 5,
    "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid", "mamba"],
    "tie_word_embeddings": False,
    "use_mamba_kernels": False,
}


DELTA = {
    **ATTENTION,
    "head_dim": 8,
    "intermediate_size": 20,
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 6,
    "linear_value_head_dim": 5,
}
QWEN_EXPERTS = {
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
    "shared_expert_intermediate_size": 14,
}
OLMO_HYBRID = {**DELTA, "head_dim": 4, "linear_allow_neg_eigval": True}
KIMI = {
    **ATTENTION,
    "num_key_value_heads": 4,
    "intermediate_size": 20,
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
    "mlp_layer_types": ["dense", "sparse", "sparse", "dense"],
    "linear_num_heads": 3,
    "linear_head_dim": 5,
    "q_lora_rank": None,
    "kv_lora_rank": 7,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 5,
    "v_head_dim": 6,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "n_group": 3,
    "topk_group": 2,
    "moe_intermediate_size": 12,
    "n_shared_experts": 1,
    "routed_scaling_factor": 1.5,
}
BAILING = {
    **{name: KIMI[name] for name in KIMI if not name.startswith("linear_")},
    "num_hidden_layers": 2,
    "layer_types": ["linear_attention", "full_attention"],
    "mlp_layer_types": ["dense", "sparse"],
    "head_dim": 5,
    "short_conv_kernel_size": 4,
    "q_lora_rank": 5,
}
MINIMAX = {
    **ATTENTION,
    "head_dim": 6,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "layer_types": ["linear_attention", "full_attention"],
    "block_size": 4,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "linear_attn_alpha_factor": 1.7,
    "linear_attn_beta_factor": 0.8,
    "full_attn_alpha_factor": 1.5,
    "full_attn_beta_factor": 0.9,
    "mlp_alpha_factor": 1.3,
    "mlp_beta_factor": 0.7,
}
RECURRENT_GEMMA = {
    **{name: ATTENTION[name] for name in ATTENTION if name != "hidden_size"},
    "hidden_size": 32,
    "lru_width": 24,
    "attention_window_size": 5,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "block_types": ["recurrent", "attention"],
    "logits_soft_cap": 2.5,
}
LFM2 = {
    **ATTENTION,
    "intermediate_size": 18,
    "block_auto_adjust_ff_dim": False,
    "num_hidden_layers": 4,
    "layer_types": ["conv", "full_attention", "conv", "full_attention"],
}


@dataclass(frozen=True)
class Entry:
    """One tiny model: a family of transformers and the settings of its configuration."""

    family: str
    """Before ``ForCausalLM`` in the names of transformers' classes, and before ``Config`` or ``TextConfig``."""
    since: str
    """The oldest of the releases tried (4.57.6, 5.16.1, 5.24.0) whose own forward of this model is right."""
    settings: dict[str, Any] = field(default_factory=dict)


TABLE: dict[str, Entry] = {
    "bamba": Entry("Bamba", "4.57.6", BAMBA),
    "bamba-biases": Entry(
        "Bamba",
        "4.57.6",
        {**BAMBA, "attention_bias": True, "mlp_bias": True, "mamba_proj_bias": True, "tie_word_embeddings": True},
    ),
    "granite-dense": Entry("GraniteMoeHybrid", "4.57.6", GRANITE),
    "granite-moe": Entry("GraniteMoeHybrid", "4.57.6", {**GRANITE, "num_local_experts": 5, "num_experts_per_tok": 2}),
    "granite-rope": Entry(
        "GraniteMoeHybrid",
        "4.57.6",
        {**GRANITE, "position_embedding_type": "rope", "attention_bias": True, "mamba_proj_bias": True},
    ),
    "falcon_h1": Entry("FalconH1", "4.57.6", FALCON),
    "falcon_h1-norm-after": Entry(
        "FalconH1",
        "4.57.6",
        {**FALCON, "mamba_rms_norm": True, "mamba_norm_before_gate": False, "mamba_proj_bias": True},
    ),
    "falcon_h1-norm-before": Entry(
        "FalconH1",
        "4.57.6",
        {
            **FALCON,
            "mamba_rms_norm": True,
            "mamba_norm_before_gate": True,
            "projectors_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
        },
    ),
    "nemotron_h": Entry("NemotronH", "5.16.1", NEMOTRON),
    "nemotron_h-moe": Entry("NemotronH", "5.16.1", NEMOTRON_MOE),
    "nemotron_h-latent": Entry(
        "NemotronH",
        "5.16.1",
        {**NEMOTRON_MOE, "moe_latent_size": 7, "norm_topk_prob": False, "mlp_bias": True, "use_bias": True},
    ),
    "jamba-dense": Entry("Jamba", "4.57.6", JAMBA),
    "jamba-moe": Entry(
        "Jamba",
        "4.57.6",
        {
            **JAMBA,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "expert_layer_period": 3,
            "expert_layer_offset": 1,
            "num_hidden_layers": 5,
            "mamba_proj_bias": True,
        },
    ),
    "zamba2": Entry("Zamba2", "5.16.1", ZAMBA2_ADAPTED),  # 4.57.6's scan is wrong from the second chunk on
    "zamba2-one-chunk": Entry("Zamba2", "4.57.6", {**ZAMBA2_ADAPTED, "chunk_size": 16}),
    "zamba2-uneven": Entry(
        "Zamba2",
        "5.24.0",  # 5.16.1 hangs adapters on the number of the layer: it builds, and fails when it computes
        {**ZAMBA2_ADAPTED, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid", "hybrid", "mamba"]},
    ),
    "zamba2-plain": Entry(
        "Zamba2",
        "5.16.1",
        {
            **ZAMBA2,
            "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
            "num_hidden_layers": 4,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
    ),
    "zamba": Entry("Zamba", "4.57.6", ZAMBA),
    "qwen3_next": Entry(
        "Qwen3Next",
        "4.57.6",
        {**DELTA, **QWEN_EXPERTS, "num_experts": 6, "mlp_only_layers": [2], "attention_bias": True},
    ),
    "qwen3_5": Entry("Qwen3_5", "5.16.1", DELTA),
    "qwen3_5-moe": Entry("Qwen3_5Moe", "5.16.1", {**DELTA, **QWEN_EXPERTS}),
    "olmo_hybrid": Entry("OlmoHybrid", "5.16.1", OLMO_HYBRID),
    "olmo_hybrid-no-rope": Entry(
        "OlmoHybrid",
        "5.16.1",
        {
            **OLMO_HYBRID,
            "linear_allow_neg_eigval": False,
            "rope_parameters": {"rope_theta": None},
            "attention_bias": True,
        },
    ),
    "kimi_linear": Entry("KimiLinear", "5.24.0", KIMI),
    "kimi_linear-low-rank": Entry("KimiLinear", "5.24.0", {**KIMI, "q_lora_rank": 5, "attention_bias": True}),
    "bailing_hybrid": Entry("BailingHybrid", "5.24.0", BAILING),
    "bailing_hybrid-unbounded": Entry(
        "BailingHybrid", "5.24.0", {**BAILING, "q_lora_rank": None, "kda_safe_gate": False, "attention_bias": True}
    ),
    "minimax": Entry("MiniMax", "4.57.6", MINIMAX),
    "minimax-window": Entry("MiniMax", "4.57.6", {**MINIMAX, "sliding_window": 3}),
    "recurrent_gemma": Entry("RecurrentGemma", "5.16.1", RECURRENT_GEMMA),
    "lfm2": Entry("Lfm2", "5.16.1", LFM2),
    "lfm2-biases": Entry("Lfm2", "5.16.1", {**LFM2, "conv_bias": True}),
    "lfm2-moe": Entry(
        "Lfm2Moe",
        "5.16.1",
        {
            **LFM2,
            "moe_intermediate_size": 12,
            "num_dense_layers": 2,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "routed_scaling_factor": 1.5,
        },
    ),
}


def available() -> list[str]:
    """The names whose model the installed transformers has."""
    installed = Version(transformers.__version__)
    return [name for name, entry in TABLE.items() if installed >= Version(entry.since)]


def one_each() -> list[str]:
    """A model of every family that the installed transformers has: the one with the most kinds of parts."""
    names = ("bamba-biases", "granite-moe", "falcon_h1-norm-after", "nemotron_h-moe", "jamba-moe", "zamba", "zamba2")
    names += ("qwen3_next", "qwen3_5", "qwen3_5-moe", "olmo_hybrid", "kimi_linear", "lfm2-biases", "lfm2-moe")
    names += ("bailing_hybrid", "minimax", "recurrent_gemma")
    there = available()
    return [name for name in names if name in there]


def crossed(names: list[str], first: tuple[Any, Any], second: tuple[Any, Any]) -> list[tuple[str, Any, Any]]:
    """Every family's model with both values of `first` and of `second`, and those with each other, but not all at once.

    A variant of a family has the last value of `first` alone, which has to be the one that reads more of the model, and
    one of `second` in turn.
    """
    families = one_each()
    values = {name: first if name in families else first[1:] for name in names}
    return [(name, one, second[(n + k) % 2]) for n, name in enumerate(names) for k, one in enumerate(values[name])]


def config_class(entry: Entry) -> Any:
    """Of Qwen3.5 that of the text alone."""
    family = entry.family
    return getattr(transformers, f"{family}TextConfig" if family.startswith("Qwen3_5") else f"{family}Config")


@copied
def build(name: str, *, dtype: torch.dtype = torch.float64, seed: int = 0, **settings: Any) -> Any:
    """The model called `name`, with `settings` before its own, in eval mode, with eager attention and eager experts.

    Matrices N(0, 1 / fan_in), embeddings N(0, 1) (0.3 where they are the head too), norms 1 + N(0, 0.3) (of those that
    add 1 themselves N(0, 0.3)), biases N(0, 0.3), the parameter of RG-LRU's decay N(-3, 0.5), the router's correction
    N(0, 0.3), D 1 + N(0, 0.5), A_log the log of uniform 1..8, biases of dt the inverse softplus of log-uniform 0.01 ..
    1. Values depend on the seed, not on the dtype.
    """
    entry = TABLE[name]
    config = config_class(entry)(**TOKENS, **deepcopy(entry.settings) | settings)  # whose lists a test may change
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    with torch.random.fork_rng(devices=[]):
        model = getattr(transformers, f"{entry.family}ForCausalLM")(config)
    model.to(dtype)
    for module in model.modules():
        if hasattr(module, "decay_factors"):  # MiniMax's, made again as exact as they now can be
            module.query_decay, module.key_decay, module.diagonal_decay = module.decay_factors(module.slope_rate)
    generator = torch.Generator().manual_seed(seed)
    endings = ("e_score_correction_bias", "expert_bias")
    corrections = [pair for pair in model.named_buffers() if pair[0].endswith(endings)]
    around_one = {f"{path}.weight" for path, module in model.named_modules() if hasattr(module, "eps")}
    with torch.no_grad():
        for parameter_name, value in [*model.named_parameters(), *corrections]:
            tied = config.tie_word_embeddings
            drawn = _random(parameter_name, value.shape, generator, embedding_std=0.3 if tied else 1.0)
            value.copy_(drawn - 1 if parameter_name in around_one else drawn)
    return model.eval()


@cache
def shared(name: str) -> Any:
    """`build(name)`, one model for all tests that leave it as it is."""
    return build(name)


@cache
def explainable(name: str) -> Any:
    """The same, explainable: its network is read and its forward compared with transformers' once."""
    return make_explainable(shared(name))


def _random(name: str, shape: torch.Size, generator: torch.Generator, embedding_std: float) -> Tensor:
    def normal(std: float) -> Tensor:
        return std * torch.randn(shape, generator=generator, dtype=torch.float64)

    def uniform() -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    if name.endswith(("embed_tokens.weight", "embeddings.weight")):
        value = normal(embedding_std)
    elif name.endswith(("norm.weight", "norm_f.weight")):
        value = 1 + normal(0.3)
    elif name.endswith("A_log"):
        value = torch.log(1 + 7 * uniform())
    elif name.endswith("recurrent_param"):
        value = normal(0.5) - 3
    elif name.endswith(".D"):
        value = 1 + normal(0.5)
    elif name.endswith(("dt_proj.bias", "dt_proj_bias", "dt_bias")):
        dt = torch.exp(-math.log(100.0) * uniform())
        value = dt + torch.log(-torch.expm1(-dt))
    elif name.endswith("bias"):
        value = normal(0.3)
    else:
        value = normal(shape[-1] ** -0.5)
    return value
