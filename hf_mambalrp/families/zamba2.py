"""Zamba2 (``Zamba2ForCausalLM``): Mamba-2, in some layers behind a shared block with their own adapters."""

from typing import Any

from torch import nn

from hf_mambalrp.families.base import Branch, Family, Head, branch
from hf_mambalrp.families.parts import SSD, Attention, GatedMLP, RMSNorm, SharedBlock, Tokens


def adapter(layers: Any, number: int) -> tuple[nn.Module, ...]:
    """The linear layers of a layer's adapter; none where it has none."""
    return () if layers is None or isinstance(layers[number], nn.Identity) else tuple(layers[number])


def layer(index: int, b: Any, rotary: Any) -> tuple[Branch | None, ...]:
    """The shared block's output is added to what Mamba reads, and not to the stream."""
    if not hasattr(b, "shared_transformer"):
        return (branch(RMSNorm(b.input_layernorm), SSD(b.mamba)),)
    block, mamba = b.shared_transformer, b.mamba_decoder
    attn, mlp = block.self_attn, block.feed_forward
    number = attn.layer_dic[index]
    adapters = [adapter(getattr(attn, f"linear_{name}_adapter_list", None), number) for name in "qkv"]
    attention = Attention(attn, rotary, adapters if any(adapters) else ())
    gated = GatedMLP(mlp, ("gate_up_proj",), adapter=adapter(mlp.gate_up_proj_adapter_list, number))
    return (
        branch(None, SharedBlock(block, attention, gated, b.linear), aside=True),
        branch(RMSNorm(mamba.input_layernorm), SSD(mamba.mamba)),
    )


ZAMBA2 = Family(
    "zamba2",
    stem=lambda model: Tokens(model.model.embed_tokens),
    layers=lambda model: [
        layer(index, b, getattr(model.model, "rotary_emb", None)) for index, b in enumerate(model.model.layers)
    ],
    head=lambda model, linear: Head(RMSNorm(model.model.final_layernorm), linear),
)
