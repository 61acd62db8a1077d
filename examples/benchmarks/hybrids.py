"""Benchmark of hybrids on a CPU: explain() beside transformers' own forward, in one run, on random weights.

Correctness first: relevance must sum to the score, and the score must be the model's own logit, or nothing is timed.
The shapes of published hybrids, which `gpu.py` times on a GPU, are here too.

    python examples/benchmarks/hybrids.py                                   # 4 layers of width 256, one thread
    python examples/benchmarks/hybrids.py --families bamba --lengths 512 1024 2048
    python examples/benchmarks/hybrids.py --lengths 32 --hidden-size 64 --repeats 1
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING

from hf_mambalrp import AutoMambaLRPForCausalLM

TARGET, VOCABULARY = 7, 1000


def configuration(
    family: str, width: int, layers: int, head_dim: int = 64, state_size: int = 128, vocabulary: int = VOCABULARY
) -> Any:
    """A small model of the family: heads of 32, those of a delta net of 64, attention in every second layer where it is
    chosen.

    Jamba has it in every fourth here, and in one of eight where it is trained, of which the first four have none. Its
    own forward computes the scan position by position.

    Args:
        head_dim: width of a head of the SSM, whose inner size is twice the width.
        state_size: state of the SSM.
    """
    heads, ssm_heads = width // 32, 2 * width // head_dim
    common = {
        "vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 3 * width,
        "num_attention_heads": heads, "num_key_value_heads": heads // 2, "initializer_range": 0.02,
    }  # fmt: skip
    ssm = {
        "mamba_n_heads": ssm_heads, "mamba_d_head": head_dim, "mamba_d_state": state_size, "mamba_n_groups": 1,
    }  # fmt: skip
    second = ["mamba" if layer % 2 == 0 else "attention" for layer in range(layers)]
    delta = {
        "head_dim": 64, "num_attention_heads": width // 64, "num_key_value_heads": max(1, width // 128),
        "layer_types": ["linear_attention" if kind == "mamba" else "full_attention" for kind in second],
        "linear_num_key_heads": width // 64, "linear_key_head_dim": 64,
        "linear_num_value_heads": 2 * width // 64, "linear_value_head_dim": 64,
    }  # fmt: skip
    routed = {
        "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": width // 2,
        "shared_expert_intermediate_size": width,
    }  # fmt: skip
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    own: dict[str, tuple[str, dict[str, Any]]] = {
        "bamba": ("bamba", {**ssm, "attn_layer_indices": list(range(1, layers, 2))}),
        "granite": (
            "granitemoehybrid",
            {**ssm, "layer_types": second, "shared_intermediate_size": 3 * width, "num_local_experts": 0},
        ),
        "granite, 2 of 8 experts": (
            "granitemoehybrid",
            {
                **ssm, "layer_types": second, "shared_intermediate_size": width, "intermediate_size": width // 2,
                "num_local_experts": 8, "num_experts_per_tok": 2,
            },
        ),
        "falcon_h1": ("falcon_h1", {**ssm, "mamba_d_ssm": 2 * width, "head_dim": 32}),
        "nemotron_h": (
            "nemotron_h",
            {
                "layers_block_type": (["mamba", "mlp", "attention", "mlp"] * layers)[:layers], "head_dim": 32,
                "mamba_num_heads": ssm_heads, "mamba_head_dim": head_dim, "ssm_state_size": state_size, "n_groups": 1,
            },
        ),
        "zamba2": (
            "zamba2",
            {
                "mamba_headdim": head_dim, "n_mamba_heads": ssm_heads, "mamba_d_state": state_size, "mamba_ngroups": 1,
                "layers_block_type": ["mamba" if kind == "mamba" else "hybrid" for kind in second],
                "num_mem_blocks": 1, "adapter_rank": 16, "num_key_value_heads": heads, "use_mem_rope": True,
                "use_shared_attention_adapter": True,
            },
        ),
        "jamba": (
            "jamba",
            {"attn_layer_period": 4, "attn_layer_offset": 3, "num_experts": 1, "use_mamba_kernels": False},
        ),
        "jamba, its first layers": ("jamba", {"num_experts": 1, "use_mamba_kernels": False}),
        "qwen3_5": ("qwen3_5_text", delta),
        "qwen3_next, 2 of 8 experts": ("qwen3_next", {**delta, **routed}),
        "olmo_hybrid": ("olmo_hybrid", {**delta, **tokens, "num_key_value_heads": width // 64}),
        "kimi_linear": (
            "kimi_linear",
            {
                **tokens, "layer_types": delta["layer_types"], "mlp_layer_types": ["dense"] * layers,
                "num_key_value_heads": heads, "linear_num_heads": 2 * width // 64, "linear_head_dim": 64,
                "q_lora_rank": None, "kv_lora_rank": width // 4, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32,
                "v_head_dim": 32,
            },
        ),
        "bailing_hybrid": (
            "bailing_hybrid",
            {
                **tokens, "layer_types": delta["layer_types"], "mlp_layer_types": ["dense"] * layers,
                "num_attention_heads": 2 * width // 64, "num_key_value_heads": 2 * width // 64, "head_dim": 64,
                "kv_lora_rank": width // 4, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "v_head_dim": 32,
            },
        ),
        "minimax, 2 of 8 experts": (
            "minimax",
            {
                "layer_types": delta["layer_types"], "intermediate_size": width // 2, "num_local_experts": 8,
                "num_experts_per_tok": 2,
            },
        ),
        "recurrent_gemma": (
            "recurrent_gemma", {"intermediate_size": 6 * width, "block_types": ["recurrent", "attention"]},
        ),
        "lfm2": (
            "lfm2",
            {
                "layer_types": ["conv" if kind == "mamba" else "full_attention" for kind in second],
                "block_auto_adjust_ff_dim": False,
            },
        ),
    }  # fmt: skip
    model_type, settings = own[family]
    return CONFIG_MAPPING[model_type](**{**common, **settings})


FAMILIES = [
    "bamba",
    "granite",
    "granite, 2 of 8 experts",
    "falcon_h1",
    "nemotron_h",
    "zamba2",
    "jamba",
    "jamba, its first layers",
    "qwen3_5",
    "qwen3_next, 2 of 8 experts",
    "olmo_hybrid",
    "kimi_linear",
    "bailing_hybrid",
    "minimax, 2 of 8 experts",
    "recurrent_gemma",
    "lfm2",
]

PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "granite-4.0-h-tiny": (
        "granitemoehybrid",
        {
            "vocab_size": 100352, "hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 12,
            "num_key_value_heads": 4, "intermediate_size": 512, "shared_intermediate_size": 1024,
            "num_local_experts": 64, "num_experts_per_tok": 6, "mamba_n_heads": 48, "mamba_d_head": 64,
            "mamba_d_state": 128, "mamba_n_groups": 1, "embedding_multiplier": 12, "attention_multiplier": 0.0078125,
            "residual_multiplier": 0.22, "logits_scaling": 6, "position_embedding_type": "nope",
            "tie_word_embeddings": True,
            "layer_types": ["attention" if layer in (5, 15, 25, 35) else "mamba" for layer in range(40)],
        },
    ),
    "nemotron-h-8b": (
        "nemotron_h",
        {
            "vocab_size": 131072, "hidden_size": 4096, "intermediate_size": 21504, "num_attention_heads": 32,
            "num_key_value_heads": 8, "head_dim": 128, "mamba_num_heads": 128, "mamba_head_dim": 64, "n_groups": 8,
            "ssm_state_size": 128, "chunk_size": 128, "tie_word_embeddings": False,
            "hybrid_override_pattern": "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
        },
    ),
    "falcon-h1-1.5b": (
        "falcon_h1",
        {
            "vocab_size": 65537, "hidden_size": 2048, "num_hidden_layers": 24, "intermediate_size": 4096,
            "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 128, "mamba_d_ssm": 3072,
            "mamba_n_heads": 48, "mamba_d_head": 64, "mamba_d_state": 256, "mamba_n_groups": 1,
            "mamba_rms_norm": False, "tie_word_embeddings": False,
        },
    ),
    "zamba2-1.2b": (
        "zamba2",
        {
            "vocab_size": 32000, "hidden_size": 2048, "num_hidden_layers": 38, "intermediate_size": 8192,
            "num_attention_heads": 32, "num_key_value_heads": 32, "n_mamba_heads": 64, "mamba_headdim": 64,
            "mamba_d_state": 128, "mamba_ngroups": 1, "num_mem_blocks": 1, "use_shared_attention_adapter": True,
            "adapter_rank": 128, "use_mem_rope": True, "tie_word_embeddings": True,
            "layers_block_type": ["hybrid" if layer % 6 == 5 else "mamba" for layer in range(38)],
        },
    ),
    "qwen3.5-0.8b": (
        "qwen3_5_text",
        {
            "vocab_size": 248320, "hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 3584,
            "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256, "linear_num_key_heads": 16,
            "linear_num_value_heads": 16, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-next-block": (
        "qwen3_next",
        {
            "vocab_size": 151936, "hidden_size": 2048, "num_hidden_layers": 4, "intermediate_size": 5120,
            "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256, "linear_num_key_heads": 16,
            "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
            "num_experts": 512, "num_experts_per_tok": 10, "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512, "tie_word_embeddings": False,
        },
    ),
}  # fmt: skip
"""Model type and sizes of published models: Falcon-H1's without its multipliers, which cost nothing, and of Qwen3-Next
the four layers that repeat."""


def published(name: str) -> Any:
    """The configuration of a published shape."""
    model_type, settings = PUBLISHED[name]
    return CONFIG_MAPPING[model_type](**settings, initializer_range=0.02)


def build(family: str, width: int, layers: int) -> Any:
    """The family's model with random weights."""
    torch.manual_seed(0)
    return AutoMambaLRPForCausalLM.from_config(configuration(family, width, layers)).eval()


def check(model: Any, ids: torch.Tensor) -> dict[str, float]:
    """How far the score is from the model's own logit, and from what it is the sum of.

    Raises:
        SystemExit: further than rounding explains.
    """
    found = model.explain(ids, target=TARGET)
    with torch.no_grad():
        own = model(ids, use_cache=False).logits[0, -1, TARGET]
    errors = {"score": (found.score[0] - own).abs().item(), "conservation": found.conservation.gap.abs().item()}
    if not max(errors.values()) < 1e-4 * (1 + found.relevance.abs().sum().item()):
        sys.exit(f"{model.config.model_type}: wrong, so nothing is timed: {errors}")
    return errors


def seconds(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Processor time of each call, in turn, so that a change of the machine meets all; the first is not counted."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if number:
                times[name].append(time.process_time() - start)
    return times


def measure(family: str, length: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    model = build(family, arguments.hidden_size, arguments.layers)
    ids = torch.randint(0, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(length))

    def forward() -> None:
        with torch.no_grad():
            model(ids, use_cache=False)

    errors = check(model, ids)
    times = seconds({"forward": forward, "explain": lambda: model.explain(ids, target=TARGET)}, arguments.repeats)
    ratios = [explain / own for explain, own in zip(times["explain"], times["forward"], strict=True)]
    return {
        "family": family,
        "length": length,
        **{name: statistics.median(values) for name, values in times.items()},
        "ratio": statistics.median(ratios),
        **errors,
    }


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--lengths", nargs="+", type=int, default=[512, 2048])
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    print("| family | tokens | forward, ms | explain(), ms | explain() / forward |")
    print("|---|---|---|---|---|")
    rows = []
    for family in arguments.families:
        for length in arguments.lengths:
            rows.append(row := measure(family, length, arguments))
            print(
                f"| {family} | {length} | {1e3 * row['forward']:.0f} | {1e3 * row['explain']:.0f} "
                f"| {row['ratio']:.2f} |",
                flush=True,
            )
    if arguments.json:
        machine = {"processor": platform.processor() or platform.machine(), "threads": arguments.threads}
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        settings = {"hidden_size": arguments.hidden_size, "layers": arguments.layers, "repeats": arguments.repeats}
        run = {"date": date.today().isoformat(), **machine, **versions, **settings, "rows": rows}
        arguments.json.write_text(json.dumps(run, indent=1) + "\n")


if __name__ == "__main__":
    main()
