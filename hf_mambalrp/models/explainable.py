"""The explainable model classes: the mixin on transformers' own, and on the classifiers of this package."""

from transformers import FalconMambaForCausalLM, Mamba2ForCausalLM, MambaForCausalLM

from hf_mambalrp.models.classification import (
    FalconMambaForSequenceClassification,
    Mamba2ForSequenceClassification,
    MambaForSequenceClassification,
)
from hf_mambalrp.models.mixin import MambaLRPMixin


class MambaLRPForCausalLM(MambaLRPMixin, MambaForCausalLM):
    """``MambaForCausalLM`` with ``explain``; loads and saves the same checkpoints."""


class MambaLRPForSequenceClassification(MambaLRPMixin, MambaForSequenceClassification):
    """``MambaForSequenceClassification`` with ``explain``; loads and saves the same checkpoints."""


class FalconMambaLRPForCausalLM(MambaLRPMixin, FalconMambaForCausalLM):
    """``FalconMambaForCausalLM`` with ``explain``; loads and saves the same checkpoints."""


class FalconMambaLRPForSequenceClassification(MambaLRPMixin, FalconMambaForSequenceClassification):
    """``FalconMambaForSequenceClassification`` with ``explain``; loads and saves the same checkpoints."""


class Mamba2LRPForCausalLM(MambaLRPMixin, Mamba2ForCausalLM):
    """``Mamba2ForCausalLM`` with ``explain``; loads and saves the same checkpoints."""


class Mamba2LRPForSequenceClassification(MambaLRPMixin, Mamba2ForSequenceClassification):
    """``Mamba2ForSequenceClassification`` with ``explain``; loads and saves the same checkpoints."""
