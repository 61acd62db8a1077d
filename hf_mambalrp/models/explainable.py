"""The explainable model classes: the mixin on transformers' own, and on the classifiers of this package."""

from transformers import FalconMambaForCausalLM, Mamba2ForCausalLM, MambaForCausalLM

from hf_mambalrp.models.classification import (
    FalconMambaForSequenceClassification,
    Mamba2ForSequenceClassification,
    MambaForSequenceClassification,
)
from hf_mambalrp.models.mixin import MambaLRPMixin


class MambaLRPForCausalLM(MambaLRPMixin, MambaForCausalLM):
    """``MambaForCausalLM`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import MambaConfig
        >>> from hf_mambalrp import MambaLRPForCausalLM
        >>> config = MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2)
        >>> model = MambaLRPForCausalLM(config)
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class MambaLRPForSequenceClassification(MambaLRPMixin, MambaForSequenceClassification):
    """``MambaForSequenceClassification`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, MambaLRPForSequenceClassification
        >>> model = MambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> model.explain("A dull film.").target_text
        ['negative']
    """


class FalconMambaLRPForCausalLM(MambaLRPMixin, FalconMambaForCausalLM):
    """``FalconMambaForCausalLM`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import FalconMambaConfig
        >>> from hf_mambalrp import FalconMambaLRPForCausalLM
        >>> config = FalconMambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2)
        >>> model = FalconMambaLRPForCausalLM(config)
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class FalconMambaLRPForSequenceClassification(MambaLRPMixin, FalconMambaForSequenceClassification):
    """``FalconMambaForSequenceClassification`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import FalconMambaConfig
        >>> from hf_mambalrp import FalconMambaLRPForSequenceClassification
        >>> config = FalconMambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2)
        >>> model = FalconMambaLRPForSequenceClassification(config)
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class Mamba2LRPForCausalLM(MambaLRPMixin, Mamba2ForCausalLM):
    """``Mamba2ForCausalLM`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import Mamba2Config
        >>> from hf_mambalrp import Mamba2LRPForCausalLM
        >>> config = Mamba2Config(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_heads=8, head_dim=4)
        >>> model = Mamba2LRPForCausalLM(config)
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class Mamba2LRPForSequenceClassification(MambaLRPMixin, Mamba2ForSequenceClassification):
    """``Mamba2ForSequenceClassification`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import Mamba2Config
        >>> from hf_mambalrp import Mamba2LRPForSequenceClassification
        >>> config = Mamba2Config(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_heads=8, head_dim=4)
        >>> model = Mamba2LRPForSequenceClassification(config)
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """
