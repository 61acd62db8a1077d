"""The explainable model classes: the mixin on transformers' own, and on the classifiers of this package."""

from typing import Any

from transformers import (
    BambaForCausalLM,
    FalconH1ForCausalLM,
    FalconMambaForCausalLM,
    GraniteMoeHybridForCausalLM,
    JambaForCausalLM,
    JambaForSequenceClassification,
    Mamba2ForCausalLM,
    MambaForCausalLM,
    Zamba2ForCausalLM,
    Zamba2ForSequenceClassification,
    ZambaForCausalLM,
    ZambaForSequenceClassification,
)

from hf_mambalrp.models.classification import (
    BambaForSequenceClassification,
    FalconH1ForSequenceClassification,
    FalconMambaForSequenceClassification,
    GraniteMoeHybridForSequenceClassification,
    Mamba2ForSequenceClassification,
    MambaForSequenceClassification,
)
from hf_mambalrp.models.mixin import MambaLRPMixin
from hf_mambalrp.models.releases import has_family


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


class BambaLRPForCausalLM(MambaLRPMixin, BambaForCausalLM):
    """``BambaForCausalLM`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import BambaConfig
        >>> from hf_mambalrp import BambaLRPForCausalLM
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(mamba_n_heads=4, mamba_d_head=8, attn_layer_indices=[1])
        >>> model = BambaLRPForCausalLM(BambaConfig(**sizes, **heads, **parts))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class BambaLRPForSequenceClassification(MambaLRPMixin, BambaForSequenceClassification):
    """``BambaForSequenceClassification`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import BambaConfig
        >>> from hf_mambalrp import BambaLRPForSequenceClassification
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(mamba_n_heads=4, mamba_d_head=8, attn_layer_indices=[1])
        >>> model = BambaLRPForSequenceClassification(BambaConfig(**sizes, **heads, **parts))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class GraniteMoeHybridLRPForCausalLM(MambaLRPMixin, GraniteMoeHybridForCausalLM):
    """``GraniteMoeHybridForCausalLM`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import GraniteMoeHybridConfig
        >>> from hf_mambalrp import GraniteMoeHybridLRPForCausalLM
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(mamba_n_heads=4, layer_types=["mamba", "attention"])
        >>> model = GraniteMoeHybridLRPForCausalLM(GraniteMoeHybridConfig(**sizes, **heads, **parts))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class GraniteMoeHybridLRPForSequenceClassification(MambaLRPMixin, GraniteMoeHybridForSequenceClassification):
    """``GraniteMoeHybridForSequenceClassification`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import GraniteMoeHybridConfig
        >>> from hf_mambalrp import GraniteMoeHybridLRPForSequenceClassification
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(mamba_n_heads=4, layer_types=["mamba", "attention"])
        >>> model = GraniteMoeHybridLRPForSequenceClassification(GraniteMoeHybridConfig(**sizes, **heads, **parts))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class FalconH1LRPForCausalLM(MambaLRPMixin, FalconH1ForCausalLM):
    """``FalconH1ForCausalLM`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import FalconH1Config
        >>> from hf_mambalrp import FalconH1LRPForCausalLM
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(mamba_n_heads=4, mamba_d_head=8, mamba_d_ssm=32)
        >>> model = FalconH1LRPForCausalLM(FalconH1Config(**sizes, **heads, **parts))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class FalconH1LRPForSequenceClassification(MambaLRPMixin, FalconH1ForSequenceClassification):
    """``FalconH1ForSequenceClassification`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import FalconH1Config
        >>> from hf_mambalrp import FalconH1LRPForSequenceClassification
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(mamba_n_heads=4, mamba_d_head=8, mamba_d_ssm=32)
        >>> model = FalconH1LRPForSequenceClassification(FalconH1Config(**sizes, **heads, **parts))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class JambaLRPForCausalLM(MambaLRPMixin, JambaForCausalLM):
    """``JambaForCausalLM`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import JambaConfig
        >>> from hf_mambalrp import JambaLRPForCausalLM
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(num_experts=2, attn_layer_period=2, attn_layer_offset=1)
        >>> model = JambaLRPForCausalLM(JambaConfig(**sizes, **heads, **parts))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class JambaLRPForSequenceClassification(MambaLRPMixin, JambaForSequenceClassification):
    """``JambaForSequenceClassification`` of transformers with ``explain``; loads and saves the same checkpoints.

    It pools the last token that is not ``config.pad_token_id``, whatever the mask says, and that is what is explained.

    Example:
        >>> from transformers import JambaConfig
        >>> from hf_mambalrp import JambaLRPForSequenceClassification
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(num_experts=2, attn_layer_period=2, attn_layer_offset=1)
        >>> model = JambaLRPForSequenceClassification(JambaConfig(**sizes, **heads, **parts))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class Zamba2LRPForCausalLM(MambaLRPMixin, Zamba2ForCausalLM):
    """``Zamba2ForCausalLM`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import Zamba2Config
        >>> from hf_mambalrp import Zamba2LRPForCausalLM
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(n_mamba_heads=4, layers_block_type=["mamba", "hybrid"])
        >>> model = Zamba2LRPForCausalLM(Zamba2Config(**sizes, **heads, **parts))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class Zamba2LRPForSequenceClassification(MambaLRPMixin, Zamba2ForSequenceClassification):
    """``Zamba2ForSequenceClassification`` of transformers with ``explain``; loads and saves the same checkpoints.

    It pools the last token that is not ``config.pad_token_id``, whatever the mask says, and that is what is explained.

    Example:
        >>> from transformers import Zamba2Config
        >>> from hf_mambalrp import Zamba2LRPForSequenceClassification
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(n_mamba_heads=4, layers_block_type=["mamba", "hybrid"])
        >>> model = Zamba2LRPForSequenceClassification(Zamba2Config(**sizes, **heads, **parts))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class ZambaLRPForCausalLM(MambaLRPMixin, ZambaForCausalLM):
    """``ZambaForCausalLM`` with ``explain``; loads and saves the same checkpoints.

    Example:
        >>> from transformers import ZambaConfig
        >>> from hf_mambalrp import ZambaLRPForCausalLM
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=3)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(mamba_dt_rank=2, layers_block_type=["mamba", "hybrid", "hybrid"])
        >>> model = ZambaLRPForCausalLM(ZambaConfig(**sizes, **heads, **parts))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


class ZambaLRPForSequenceClassification(MambaLRPMixin, ZambaForSequenceClassification):
    """``ZambaForSequenceClassification`` of transformers with ``explain``; loads and saves the same checkpoints.

    It pools the last token that is not ``config.pad_token_id``, whatever the mask says, and that is what is explained.

    Example:
        >>> from transformers import ZambaConfig
        >>> from hf_mambalrp import ZambaLRPForSequenceClassification
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=3)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(mamba_dt_rank=2, layers_block_type=["mamba", "hybrid", "hybrid"])
        >>> model = ZambaLRPForSequenceClassification(ZambaConfig(**sizes, **heads, **parts))
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """


LANGUAGE_MODELS: tuple[Any, ...] = (
    MambaLRPForCausalLM,
    FalconMambaLRPForCausalLM,
    Mamba2LRPForCausalLM,
    BambaLRPForCausalLM,
    GraniteMoeHybridLRPForCausalLM,
    FalconH1LRPForCausalLM,
    JambaLRPForCausalLM,
    Zamba2LRPForCausalLM,
    ZambaLRPForCausalLM,
)
"""By their families."""
CLASSIFIERS: tuple[Any, ...] = (
    MambaLRPForSequenceClassification,
    FalconMambaLRPForSequenceClassification,
    Mamba2LRPForSequenceClassification,
    BambaLRPForSequenceClassification,
    GraniteMoeHybridLRPForSequenceClassification,
    FalconH1LRPForSequenceClassification,
    JambaLRPForSequenceClassification,
    Zamba2LRPForSequenceClassification,
    ZambaLRPForSequenceClassification,
)
"""Likewise."""

if has_family("nemotron_h"):
    from transformers import NemotronHForCausalLM

    from hf_mambalrp.models.classification import NemotronHForSequenceClassification

    class NemotronHLRPForCausalLM(MambaLRPMixin, NemotronHForCausalLM):
        """``NemotronHForCausalLM`` with ``explain``; loads and saves the same checkpoints.

        Example:
            >>> from transformers import NemotronHConfig
            >>> from hf_mambalrp import NemotronHLRPForCausalLM
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
            >>> parts = dict(mamba_num_heads=4, mamba_head_dim=8, n_groups=2, hybrid_override_pattern="M*")
            >>> model = NemotronHLRPForCausalLM(NemotronHConfig(**sizes, **heads, **parts))
            >>> model.explain([[1, 2, 3]]).relevance.shape
            torch.Size([1, 3])
        """

    class NemotronHLRPForSequenceClassification(MambaLRPMixin, NemotronHForSequenceClassification):
        """``NemotronHForSequenceClassification`` with ``explain``; loads and saves the same checkpoints.

        Example:
            >>> from transformers import NemotronHConfig
            >>> from hf_mambalrp import NemotronHLRPForSequenceClassification
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
            >>> parts = dict(mamba_num_heads=4, mamba_head_dim=8, n_groups=2, hybrid_override_pattern="M*")
            >>> model = NemotronHLRPForSequenceClassification(NemotronHConfig(**sizes, **heads, **parts))
            >>> model.explain([[1, 2, 3]]).relevance.shape
            torch.Size([1, 3])
        """

    LANGUAGE_MODELS += (NemotronHLRPForCausalLM,)
    CLASSIFIERS += (NemotronHLRPForSequenceClassification,)
