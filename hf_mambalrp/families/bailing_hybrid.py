"""Ling 3 (``BailingHybridForCausalLM``): Kimi-Linear, whose latent attention has RoPE and a gate of every head."""

from hf_mambalrp.families.kimi_linear import KIMI_LINEAR, layer

BAILING_HYBRID = KIMI_LINEAR._replace(
    model_type="bailing_hybrid",
    layers=lambda model: [layer(b, model.model.rotary_emb) for b in model.model.layers],
)
