"""Zamba (``ZambaForCausalLM``): Mamba-1 in heads, in some layers behind a block that they share."""

from typing import Any

from hf_mambalrp.families.base import Branch, branch
from hf_mambalrp.families.parts import Attention, GatedMLP, RMSNorm, SelectiveHeads, SharedBlock
from hf_mambalrp.families.zamba2 import ZAMBA2


def layer(b: Any) -> tuple[Branch | None, ...]:
    """The shared block's output is added to what Mamba reads, and not to the stream."""
    if not hasattr(b, "shared_transf"):
        return (branch(RMSNorm(b.input_layernorm), SelectiveHeads(b.mamba)),)
    block, mamba = b.shared_transf, b.mamba_decoder
    shared = SharedBlock(block, Attention(block.self_attn), GatedMLP(block.feed_forward), b.linear)
    return (
        branch(None, shared, aside=True),
        branch(RMSNorm(mamba.input_layernorm), SelectiveHeads(mamba.mamba)),
    )


ZAMBA = ZAMBA2._replace(model_type="zamba", layers=lambda model: [layer(b) for b in model.model.layers])
