"""The explainable model classes: the mixin on transformers' own."""

from transformers import MambaForCausalLM

from hf_mambalrp.classification import MambaForSequenceClassification
from hf_mambalrp.mixin import MambaLRPMixin


class MambaLRPForCausalLM(MambaLRPMixin, MambaForCausalLM):
    """``MambaForCausalLM`` with ``explain``; loads and saves the same checkpoints."""


class MambaLRPForSequenceClassification(MambaLRPMixin, MambaForSequenceClassification):
    """``MambaForSequenceClassification`` with ``explain``; loads and saves the same checkpoints."""
