"""The explainable classes of delta nets and short convolutions: the mixin on transformers' own and our classifiers."""

from typing import Any

from transformers import Lfm2ForCausalLM, Qwen3NextForCausalLM, Qwen3NextForSequenceClassification

from hf_mambalrp.models.classification import Lfm2ForSequenceClassification
from hf_mambalrp.models.mixin import MambaLRPMixin
from hf_mambalrp.models.releases import has_family


class Qwen3NextLRPForCausalLM(MambaLRPMixin, Qwen3NextForCausalLM):
    """``Qwen3NextForCausalLM`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import Qwen3NextConfig
        >>> from hf_mambalrp import Qwen3NextLRPForCausalLM
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_experts=0)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, head_dim=8, linear_num_value_heads=2)
        >>> parts = dict(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2)
        >>> model = Qwen3NextLRPForCausalLM(Qwen3NextConfig(**sizes, **heads, **parts))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class Qwen3NextLRPForSequenceClassification(MambaLRPMixin, Qwen3NextForSequenceClassification):
    """``Qwen3NextForSequenceClassification`` of transformers with ``explain``; loads and saves the same checkpoints.

    It pools the last token that is not ``config.pad_token_id``, whatever the mask says, and that is what is explained.

    Example:
        >>> from transformers import Qwen3NextConfig
        >>> from hf_mambalrp import Qwen3NextLRPForSequenceClassification
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_experts=0)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, head_dim=8, linear_num_value_heads=2)
        >>> parts = dict(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2)
        >>> model = Qwen3NextLRPForSequenceClassification(Qwen3NextConfig(**sizes, **heads, **parts))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class Lfm2LRPForCausalLM(MambaLRPMixin, Lfm2ForCausalLM):
    """``Lfm2ForCausalLM`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import Lfm2Config
        >>> from hf_mambalrp import Lfm2LRPForCausalLM
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(layer_types=["conv", "full_attention"])
        >>> model = Lfm2LRPForCausalLM(Lfm2Config(**sizes, **heads, **parts))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class Lfm2LRPForSequenceClassification(MambaLRPMixin, Lfm2ForSequenceClassification):
    """``Lfm2ForSequenceClassification`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import Lfm2Config
        >>> from hf_mambalrp import Lfm2LRPForSequenceClassification
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(layer_types=["conv", "full_attention"])
        >>> model = Lfm2LRPForSequenceClassification(Lfm2Config(**sizes, **heads, **parts))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


LANGUAGE_MODELS: tuple[Any, ...] = (Qwen3NextLRPForCausalLM, Lfm2LRPForCausalLM)
"""By their families."""
CLASSIFIERS: tuple[Any, ...] = (Qwen3NextLRPForSequenceClassification, Lfm2LRPForSequenceClassification)
"""Likewise."""

if has_family("qwen3_5_text"):
    from transformers import Qwen3_5ForCausalLM, Qwen3_5TextForSequenceClassification

    class Qwen3_5LRPForCausalLM(MambaLRPMixin, Qwen3_5ForCausalLM):
        """``Qwen3_5ForCausalLM`` with ``explain``; loads and saves the same checkpoints.

        Example:
            >>> from transformers import Qwen3_5TextConfig
            >>> from hf_mambalrp import Qwen3_5LRPForCausalLM
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, head_dim=8, linear_num_value_heads=2)
            >>> parts = dict(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2)
            >>> model = Qwen3_5LRPForCausalLM(Qwen3_5TextConfig(**sizes, **heads, **parts))
            >>> model.explain([[1, 2, 3]]).relevance.shape
            torch.Size([1, 3])
        """

    class Qwen3_5LRPForSequenceClassification(MambaLRPMixin, Qwen3_5TextForSequenceClassification):
        """``Qwen3_5TextForSequenceClassification`` of transformers with ``explain``; has the same checkpoints.

        It pools the last token that is not ``config.pad_token_id``, whatever the mask says: that is what is explained.

        Example:
            >>> from transformers import Qwen3_5TextConfig
            >>> from hf_mambalrp import Qwen3_5LRPForSequenceClassification
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, head_dim=8, linear_num_value_heads=2)
            >>> parts = dict(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2)
            >>> model = Qwen3_5LRPForSequenceClassification(Qwen3_5TextConfig(**sizes, **heads, **parts))
            >>> model.explain([[1, 2, 3]]).relevance.shape
            torch.Size([1, 3])
        """

    LANGUAGE_MODELS += (Qwen3_5LRPForCausalLM,)
    CLASSIFIERS += (Qwen3_5LRPForSequenceClassification,)

if has_family("qwen3_5_moe_text"):
    from transformers import Qwen3_5MoeForCausalLM

    from hf_mambalrp.models.classification import Qwen3_5MoeForSequenceClassification

    class Qwen3_5MoeLRPForCausalLM(MambaLRPMixin, Qwen3_5MoeForCausalLM):
        """``Qwen3_5MoeForCausalLM`` with ``explain``; loads and saves the same checkpoints.

        Example:
            >>> from transformers import Qwen3_5MoeTextConfig
            >>> from hf_mambalrp import Qwen3_5MoeLRPForCausalLM
            >>> sizes = dict(vocab_size=50, hidden_size=16, num_experts=2, num_experts_per_tok=1, num_hidden_layers=2)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, head_dim=8, linear_num_value_heads=2)
            >>> parts = dict(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2)
            >>> model = Qwen3_5MoeLRPForCausalLM(Qwen3_5MoeTextConfig(**sizes, **heads, **parts))
            >>> model.explain([[1, 2, 3]]).relevance.shape
            torch.Size([1, 3])
        """

    class Qwen3_5MoeLRPForSequenceClassification(MambaLRPMixin, Qwen3_5MoeForSequenceClassification):
        """``Qwen3_5MoeForSequenceClassification`` with ``explain``; loads and saves the same checkpoints.

        Example:
            >>> from transformers import Qwen3_5MoeTextConfig
            >>> from hf_mambalrp import Qwen3_5MoeLRPForSequenceClassification
            >>> sizes = dict(vocab_size=50, hidden_size=16, num_experts=2, num_experts_per_tok=1, num_hidden_layers=2)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, head_dim=8, linear_num_value_heads=2)
            >>> parts = dict(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2)
            >>> model = Qwen3_5MoeLRPForSequenceClassification(Qwen3_5MoeTextConfig(**sizes, **heads, **parts))
            >>> model.explain([[1, 2, 3]]).relevance.shape
            torch.Size([1, 3])
        """

    LANGUAGE_MODELS += (Qwen3_5MoeLRPForCausalLM,)
    CLASSIFIERS += (Qwen3_5MoeLRPForSequenceClassification,)

if has_family("olmo_hybrid"):
    from transformers import OlmoHybridForCausalLM

    from hf_mambalrp.models.classification import OlmoHybridForSequenceClassification

    class OlmoHybridLRPForCausalLM(MambaLRPMixin, OlmoHybridForCausalLM):
        """``OlmoHybridForCausalLM`` with ``explain``; loads and saves the same checkpoints.

        Example:
            >>> from transformers import OlmoHybridConfig
            >>> from hf_mambalrp import OlmoHybridLRPForCausalLM
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, pad_token_id=0)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, linear_num_value_heads=2)
            >>> parts = dict(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, eos_token_id=1)
            >>> model = OlmoHybridLRPForCausalLM(OlmoHybridConfig(**sizes, **heads, **parts))
            >>> model.explain([[1, 2, 3]]).relevance.shape
            torch.Size([1, 3])
        """

    class OlmoHybridLRPForSequenceClassification(MambaLRPMixin, OlmoHybridForSequenceClassification):
        """``OlmoHybridForSequenceClassification`` with ``explain``; loads and saves the same checkpoints.

        Example:
            >>> from transformers import OlmoHybridConfig
            >>> from hf_mambalrp import OlmoHybridLRPForSequenceClassification
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, pad_token_id=0)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, linear_num_value_heads=2)
            >>> parts = dict(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, eos_token_id=1)
            >>> model = OlmoHybridLRPForSequenceClassification(OlmoHybridConfig(**sizes, **heads, **parts))
            >>> model.explain([[1, 2, 3]]).relevance.shape
            torch.Size([1, 3])
        """

    LANGUAGE_MODELS += (OlmoHybridLRPForCausalLM,)
    CLASSIFIERS += (OlmoHybridLRPForSequenceClassification,)

if has_family("kimi_linear"):
    from transformers import KimiLinearForCausalLM

    from hf_mambalrp.models.classification import KimiLinearForSequenceClassification

    class KimiLinearLRPForCausalLM(MambaLRPMixin, KimiLinearForCausalLM):
        """``KimiLinearForCausalLM`` with ``explain``; loads and saves the same checkpoints.

        Example:
            >>> from transformers import KimiLinearConfig
            >>> from hf_mambalrp import KimiLinearLRPForCausalLM
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, pad_token_id=0)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, linear_num_heads=2, linear_head_dim=8)
            >>> parts = dict(num_local_experts=2, num_experts_per_tok=1, bos_token_id=1, eos_token_id=1)
            >>> model = KimiLinearLRPForCausalLM(KimiLinearConfig(**sizes, **heads, **parts))
            >>> model.explain([[1, 2, 3]]).relevance.shape
            torch.Size([1, 3])
        """

    class KimiLinearLRPForSequenceClassification(MambaLRPMixin, KimiLinearForSequenceClassification):
        """``KimiLinearForSequenceClassification`` with ``explain``; loads and saves the same checkpoints.

        Example:
            >>> from transformers import KimiLinearConfig
            >>> from hf_mambalrp import KimiLinearLRPForSequenceClassification
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, pad_token_id=0)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, linear_num_heads=2, linear_head_dim=8)
            >>> parts = dict(num_local_experts=2, num_experts_per_tok=1, bos_token_id=1, eos_token_id=1)
            >>> model = KimiLinearLRPForSequenceClassification(KimiLinearConfig(**sizes, **heads, **parts))
            >>> model.explain([[1, 2, 3]]).relevance.shape
            torch.Size([1, 3])
        """

    LANGUAGE_MODELS += (KimiLinearLRPForCausalLM,)
    CLASSIFIERS += (KimiLinearLRPForSequenceClassification,)

if has_family("bailing_hybrid"):
    from transformers import BailingHybridForCausalLM

    from hf_mambalrp.models.classification import BailingHybridForSequenceClassification

    class BailingHybridLRPForCausalLM(MambaLRPMixin, BailingHybridForCausalLM):
        """``BailingHybridForCausalLM`` with ``explain``; loads and saves the same checkpoints.

        Example:
            >>> from transformers import BailingHybridConfig
            >>> from hf_mambalrp import BailingHybridLRPForCausalLM
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, pad_token_id=0)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, head_dim=8, layer_group_size=2)
            >>> model = BailingHybridLRPForCausalLM(BailingHybridConfig(**sizes, **heads))
            >>> model.explain([[1, 2, 3]]).relevance.shape
            torch.Size([1, 3])
        """

    class BailingHybridLRPForSequenceClassification(MambaLRPMixin, BailingHybridForSequenceClassification):
        """``BailingHybridForSequenceClassification`` with ``explain``; loads and saves the same checkpoints.

        Example:
            >>> from transformers import BailingHybridConfig
            >>> from hf_mambalrp import BailingHybridLRPForSequenceClassification
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, pad_token_id=0)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, head_dim=8, layer_group_size=2)
            >>> model = BailingHybridLRPForSequenceClassification(BailingHybridConfig(**sizes, **heads))
            >>> model.explain([[1, 2, 3]]).relevance.shape
            torch.Size([1, 3])
        """

    LANGUAGE_MODELS += (BailingHybridLRPForCausalLM,)
    CLASSIFIERS += (BailingHybridLRPForSequenceClassification,)

if has_family("lfm2_moe"):
    from transformers import Lfm2MoeForCausalLM

    from hf_mambalrp.models.classification import Lfm2MoeForSequenceClassification

    class Lfm2MoeLRPForCausalLM(MambaLRPMixin, Lfm2MoeForCausalLM):
        """``Lfm2MoeForCausalLM`` with ``explain``; loads and saves the same checkpoints.

        Example:
            >>> from transformers import Lfm2MoeConfig
            >>> from hf_mambalrp import Lfm2MoeLRPForCausalLM
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
            >>> parts = dict(layer_types=["conv", "full_attention"], num_experts=2, num_experts_per_tok=1)
            >>> model = Lfm2MoeLRPForCausalLM(Lfm2MoeConfig(**sizes, **heads, **parts))
            >>> model.explain([[1, 2, 3]]).relevance.shape
            torch.Size([1, 3])
        """

    class Lfm2MoeLRPForSequenceClassification(MambaLRPMixin, Lfm2MoeForSequenceClassification):
        """``Lfm2MoeForSequenceClassification`` with ``explain``; loads and saves the same checkpoints.

        Example:
            >>> from transformers import Lfm2MoeConfig
            >>> from hf_mambalrp import Lfm2MoeLRPForSequenceClassification
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
            >>> parts = dict(layer_types=["conv", "full_attention"], num_experts=2, num_experts_per_tok=1)
            >>> model = Lfm2MoeLRPForSequenceClassification(Lfm2MoeConfig(**sizes, **heads, **parts))
            >>> model.explain([[1, 2, 3]]).relevance.shape
            torch.Size([1, 3])
        """

    LANGUAGE_MODELS += (Lfm2MoeLRPForCausalLM,)
    CLASSIFIERS += (Lfm2MoeLRPForSequenceClassification,)
