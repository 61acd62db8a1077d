"""Zamba2 (``Zamba2ForCausalLM``): Mamba-2, in some layers behind a shared block with adapters of the layer."""

from typing import Any

from hf_mambalrp.families.base import Branch, Family, Head, branch
from hf_mambalrp.families.parts import SSD, Attention, GatedMLP, RMSNorm, SharedBlock, Tokens, adapter_of


def layer(index: int, b: Any, rotary: Any) -> tuple[Branch | None, ...]:
    """The shared block's output is added to what Mamba reads, and not to the stream."""
    if not hasattr(b, "shared_transformer"):
        return (branch(RMSNorm(b.input_layernorm), SSD(b.mamba)),)
    attn, mlp, mamba = b.shared_transformer.self_attn, b.shared_transformer.feed_forward, b.mamba_decoder
    adapters = [adapter_of(attn, f"linear_{name}_adapter_list", attn.layer_dic[index]) for name in "qkv"]
    adapter = adapter_of(mlp, "gate_up_proj_adapter_list", mlp.layer_dic[index])
    parts = Attention(attn, rotary, adapters), GatedMLP(mlp, ("gate_up_proj",), adapter=adapter)
    shared = branch(None, SharedBlock(b.shared_transformer, *parts, b.linear), aside=True)
    return shared, branch(RMSNorm(mamba.input_layernorm), SSD(mamba.mamba))


ZAMBA2 = Family(
    "zamba2",
    stem=lambda model: Tokens(model.model.embed_tokens),
    layers=lambda model: [
        layer(index, b, getattr(model.model, "rotary_emb", None)) for index, b in enumerate(model.model.layers)
    ],
    head=lambda model, linear: Head(RMSNorm(model.model.final_layernorm), linear),
)
