"""Mamba-1 (``MambaForCausalLM``, ``MambaForSequenceClassification``)."""

from hf_mambalrp.families.base import Family, Head, branch
from hf_mambalrp.families.parts import RMSNorm, Selective, Tokens

MAMBA = Family(
    "mamba",
    stem=lambda model: Tokens(model.backbone.embeddings),
    layers=lambda model: [(branch(RMSNorm(b.norm), Selective(b.mixer)),) for b in model.backbone.layers],
    head=lambda model, linear: Head(RMSNorm(model.backbone.norm_f), linear),
)
