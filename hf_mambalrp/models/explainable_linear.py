"""The explainable classes of linear attention and gated linear recurrences: the mixin on transformers' own and ours."""

from typing import Any

from transformers import MiniMaxForCausalLM, MiniMaxForSequenceClassification

from hf_mambalrp.models.mixin import MambaLRPMixin
from hf_mambalrp.models.releases import has_family


class MiniMaxLRPForCausalLM(MambaLRPMixin, MiniMaxForCausalLM):
    """``MiniMaxForCausalLM`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import MiniMaxConfig
        >>> from hf_mambalrp import MiniMaxLRPForCausalLM
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_local_experts=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, num_experts_per_tok=1)
        >>> model = MiniMaxLRPForCausalLM(MiniMaxConfig(**sizes, **heads))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class MiniMaxLRPForSequenceClassification(MambaLRPMixin, MiniMaxForSequenceClassification):
    """``MiniMaxForSequenceClassification`` of transformers with ``explain``; loads and saves the same checkpoints.

    It pools the last token that is not ``config.pad_token_id``, whatever the mask says, and that is what is explained.

    Example:
        >>> from transformers import MiniMaxConfig
        >>> from hf_mambalrp import MiniMaxLRPForSequenceClassification
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_local_experts=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, num_experts_per_tok=1)
        >>> model = MiniMaxLRPForSequenceClassification(MiniMaxConfig(**sizes, **heads))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


LANGUAGE_MODELS: tuple[Any, ...] = (MiniMaxLRPForCausalLM,)
"""By their families."""
CLASSIFIERS: tuple[Any, ...] = (MiniMaxLRPForSequenceClassification,)
"""Likewise."""

if has_family("recurrent_gemma"):
    from transformers import RecurrentGemmaForCausalLM

    from hf_mambalrp.models.classification import RecurrentGemmaForSequenceClassification

    class RecurrentGemmaLRPForCausalLM(MambaLRPMixin, RecurrentGemmaForCausalLM):
        """``RecurrentGemmaForCausalLM`` with ``explain``; loads and saves the same checkpoints.

        Example:
            >>> from transformers import RecurrentGemmaConfig
            >>> from hf_mambalrp import RecurrentGemmaLRPForCausalLM
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=3)
            >>> model = RecurrentGemmaLRPForCausalLM(RecurrentGemmaConfig(**sizes, num_attention_heads=2))
            >>> model.explain([[1, 2, 3]]).relevance.shape
            torch.Size([1, 3])
        """

    class RecurrentGemmaLRPForSequenceClassification(MambaLRPMixin, RecurrentGemmaForSequenceClassification):
        """``RecurrentGemmaForSequenceClassification`` with ``explain``; loads and saves the same checkpoints.

        Example:
            >>> from transformers import RecurrentGemmaConfig
            >>> from hf_mambalrp import RecurrentGemmaLRPForSequenceClassification
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=3)
            >>> model = RecurrentGemmaLRPForSequenceClassification(RecurrentGemmaConfig(**sizes, num_attention_heads=2))
            >>> model.explain([[1, 2, 3]]).relevance.shape
            torch.Size([1, 3])
        """

    LANGUAGE_MODELS += (RecurrentGemmaLRPForCausalLM,)
    CLASSIFIERS += (RecurrentGemmaLRPForSequenceClassification,)
