"""Ling 3 (``BailingHybridForCausalLM``): as Kimi-Linear, with RoPE and a gate of every head in its attention."""

from hf_mambalrp.families.kimi_linear import KIMI_LINEAR, layer

BAILING_HYBRID = KIMI_LINEAR._replace(
    model_type="bailing_hybrid",
    layers=lambda model: [layer(b, model.model.rotary_emb) for b in model.model.layers],
)
