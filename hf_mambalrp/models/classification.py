"""The sequence classifiers that transformers lacks, by their families."""

from typing import Any

from transformers import (
    BambaModel,
    BambaPreTrainedModel,
    FalconH1Model,
    FalconH1PreTrainedModel,
    FalconMambaModel,
    FalconMambaPreTrainedModel,
    GraniteMoeHybridModel,
    GraniteMoeHybridPreTrainedModel,
    Lfm2Model,
    Lfm2PreTrainedModel,
    Mamba2Model,
    Mamba2PreTrainedModel,
    MambaModel,
    MambaPreTrainedModel,
)

from hf_mambalrp.models.pooled import SequenceClassification
from hf_mambalrp.models.releases import has_family


class MambaForSequenceClassification(SequenceClassification, MambaPreTrainedModel):
    """Mamba with a ``score`` head on the rightmost attended token; works with ``Trainer``, ``pipeline`` and AutoModel.

    Checkpoint layout: ``backbone.*`` as written by ``MambaForCausalLM``, and ``score.weight`` (num_labels, D).

    Example:
        >>> from transformers import AutoTokenizer, pipeline
        >>> from hf_mambalrp import DEMO_MODEL, MambaForSequenceClassification
        >>> model = MambaForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> classify = pipeline("text-classification", model, tokenizer=AutoTokenizer.from_pretrained(DEMO_MODEL))
        >>> classify("A dull film.")[0]["label"]
        'negative'
    """

    backbone_class = MambaModel


class FalconMambaForSequenceClassification(SequenceClassification, FalconMambaPreTrainedModel):
    """Falcon-Mamba, likewise.

    Example:
        >>> import torch
        >>> from transformers import FalconMambaConfig
        >>> from hf_mambalrp import FalconMambaForSequenceClassification
        >>> config = FalconMambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2)
        >>> model = FalconMambaForSequenceClassification(config)
        >>> model(torch.tensor([[1, 2, 3]])).logits.shape
        torch.Size([1, 2])
    """

    backbone_class = FalconMambaModel


class Mamba2ForSequenceClassification(SequenceClassification, Mamba2PreTrainedModel):
    """Mamba-2, likewise.

    Example:
        >>> import torch
        >>> from transformers import Mamba2Config
        >>> from hf_mambalrp import Mamba2ForSequenceClassification
        >>> config = Mamba2Config(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_heads=8, head_dim=4)
        >>> model = Mamba2ForSequenceClassification(config)
        >>> model(torch.tensor([[1, 2, 3]])).logits.shape
        torch.Size([1, 2])
    """

    backbone_class = Mamba2Model


class BambaForSequenceClassification(SequenceClassification, BambaPreTrainedModel):
    """Bamba, likewise; its backbone is called ``model``, as in ``BambaForCausalLM``.

    Example:
        >>> import torch
        >>> from transformers import BambaConfig
        >>> from hf_mambalrp import BambaForSequenceClassification
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(mamba_n_heads=4, mamba_d_head=8, attn_layer_indices=[1])
        >>> model = BambaForSequenceClassification(BambaConfig(**sizes, **heads, **parts))
        >>> model(torch.tensor([[1, 2, 3]])).logits.shape
        torch.Size([1, 2])
    """

    backbone_class = BambaModel


class GraniteMoeHybridForSequenceClassification(SequenceClassification, GraniteMoeHybridPreTrainedModel):
    """Granite 4, likewise; its backbone is called ``model``, as in ``GraniteMoeHybridForCausalLM``.

    Example:
        >>> import torch
        >>> from transformers import GraniteMoeHybridConfig
        >>> from hf_mambalrp import GraniteMoeHybridForSequenceClassification
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(mamba_n_heads=4, layer_types=["mamba", "attention"])
        >>> model = GraniteMoeHybridForSequenceClassification(GraniteMoeHybridConfig(**sizes, **heads, **parts))
        >>> model(torch.tensor([[1, 2, 3]])).logits.shape
        torch.Size([1, 2])
    """

    backbone_class = GraniteMoeHybridModel


class FalconH1ForSequenceClassification(SequenceClassification, FalconH1PreTrainedModel):
    """Falcon-H1, likewise; its backbone is called ``model``, as in ``FalconH1ForCausalLM``.

    Example:
        >>> import torch
        >>> from transformers import FalconH1Config
        >>> from hf_mambalrp import FalconH1ForSequenceClassification
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(mamba_n_heads=4, mamba_d_head=8, mamba_d_ssm=32)
        >>> model = FalconH1ForSequenceClassification(FalconH1Config(**sizes, **heads, **parts))
        >>> model(torch.tensor([[1, 2, 3]])).logits.shape
        torch.Size([1, 2])
    """

    backbone_class = FalconH1Model


class Lfm2ForSequenceClassification(SequenceClassification, Lfm2PreTrainedModel):
    """LFM2, likewise; its backbone is called ``model``, as in ``Lfm2ForCausalLM``.

    Example:
        >>> import torch
        >>> from transformers import Lfm2Config
        >>> from hf_mambalrp import Lfm2ForSequenceClassification
        >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
        >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
        >>> parts = dict(layer_types=["conv", "full_attention"])
        >>> model = Lfm2ForSequenceClassification(Lfm2Config(**sizes, **heads, **parts))
        >>> model(torch.tensor([[1, 2, 3]])).logits.shape
        torch.Size([1, 2])
    """

    backbone_class = Lfm2Model


CLASSIFIERS: tuple[Any, ...] = (
    MambaForSequenceClassification,
    FalconMambaForSequenceClassification,
    Mamba2ForSequenceClassification,
    BambaForSequenceClassification,
    GraniteMoeHybridForSequenceClassification,
    FalconH1ForSequenceClassification,
    Lfm2ForSequenceClassification,
)
"""What ``AutoModelForSequenceClassification`` finds where transformers has no class of its own."""

if has_family("nemotron_h"):
    from transformers import NemotronHModel, NemotronHPreTrainedModel

    class NemotronHForSequenceClassification(SequenceClassification, NemotronHPreTrainedModel):
        """Nemotron-H, likewise; its backbone is called ``model``, as in ``NemotronHForCausalLM``.

        Example:
            >>> import torch
            >>> from transformers import NemotronHConfig
            >>> from hf_mambalrp import NemotronHForSequenceClassification
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
            >>> parts = dict(mamba_num_heads=4, mamba_head_dim=8, n_groups=2, hybrid_override_pattern="M*")
            >>> model = NemotronHForSequenceClassification(NemotronHConfig(**sizes, **heads, **parts))
            >>> model(torch.tensor([[1, 2, 3]])).logits.shape
            torch.Size([1, 2])
        """

        backbone_class = NemotronHModel

    CLASSIFIERS += (NemotronHForSequenceClassification,)

if has_family("qwen3_5_moe_text"):
    from transformers import Qwen3_5MoePreTrainedModel, Qwen3_5MoeTextConfig, Qwen3_5MoeTextModel

    class Qwen3_5MoeForSequenceClassification(SequenceClassification, Qwen3_5MoePreTrainedModel):
        """Qwen3.5 with experts, likewise; its backbone is called ``model``, as in ``Qwen3_5MoeForCausalLM``.

        Example:
            >>> import torch
            >>> from transformers import Qwen3_5MoeTextConfig
            >>> from hf_mambalrp import Qwen3_5MoeForSequenceClassification
            >>> sizes = dict(vocab_size=50, hidden_size=16, num_experts=2, num_experts_per_tok=1, num_hidden_layers=2)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, head_dim=8, linear_num_value_heads=2)
            >>> parts = dict(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2)
            >>> model = Qwen3_5MoeForSequenceClassification(Qwen3_5MoeTextConfig(**sizes, **heads, **parts))
            >>> model(torch.tensor([[1, 2, 3]])).logits.shape
            torch.Size([1, 2])
        """

        config: Qwen3_5MoeTextConfig
        config_class = Qwen3_5MoeTextConfig
        backbone_class = Qwen3_5MoeTextModel

    CLASSIFIERS += (Qwen3_5MoeForSequenceClassification,)

if has_family("olmo_hybrid"):
    from transformers import OlmoHybridModel, OlmoHybridPreTrainedModel

    class OlmoHybridForSequenceClassification(SequenceClassification, OlmoHybridPreTrainedModel):
        """OLMo-Hybrid, likewise; its backbone is called ``model``, as in ``OlmoHybridForCausalLM``.

        Example:
            >>> import torch
            >>> from transformers import OlmoHybridConfig
            >>> from hf_mambalrp import OlmoHybridForSequenceClassification
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, pad_token_id=0)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, linear_num_value_heads=2)
            >>> parts = dict(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, eos_token_id=1)
            >>> model = OlmoHybridForSequenceClassification(OlmoHybridConfig(**sizes, **heads, **parts))
            >>> model(torch.tensor([[1, 2, 3]])).logits.shape
            torch.Size([1, 2])
        """

        backbone_class = OlmoHybridModel

    CLASSIFIERS += (OlmoHybridForSequenceClassification,)

if has_family("kimi_linear"):
    from transformers import KimiLinearModel, KimiLinearPreTrainedModel

    class KimiLinearForSequenceClassification(SequenceClassification, KimiLinearPreTrainedModel):
        """Kimi-Linear, likewise; its backbone is called ``model``, as in ``KimiLinearForCausalLM``.

        Example:
            >>> import torch
            >>> from transformers import KimiLinearConfig
            >>> from hf_mambalrp import KimiLinearForSequenceClassification
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, pad_token_id=0)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, linear_num_heads=2, linear_head_dim=8)
            >>> parts = dict(num_local_experts=2, num_experts_per_tok=1, bos_token_id=1, eos_token_id=1)
            >>> model = KimiLinearForSequenceClassification(KimiLinearConfig(**sizes, **heads, **parts))
            >>> model(torch.tensor([[1, 2, 3]])).logits.shape
            torch.Size([1, 2])
        """

        backbone_class = KimiLinearModel

    CLASSIFIERS += (KimiLinearForSequenceClassification,)

if has_family("bailing_hybrid"):
    from transformers import BailingHybridModel, BailingHybridPreTrainedModel

    class BailingHybridForSequenceClassification(SequenceClassification, BailingHybridPreTrainedModel):
        """Ling 3, likewise; its backbone is called ``model``, as in ``BailingHybridForCausalLM``.

        Example:
            >>> import torch
            >>> from transformers import BailingHybridConfig
            >>> from hf_mambalrp import BailingHybridForSequenceClassification
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, pad_token_id=0)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2, head_dim=8, layer_group_size=2)
            >>> model = BailingHybridForSequenceClassification(BailingHybridConfig(**sizes, **heads))
            >>> model(torch.tensor([[1, 2, 3]])).logits.shape
            torch.Size([1, 2])
        """

        backbone_class = BailingHybridModel

    CLASSIFIERS += (BailingHybridForSequenceClassification,)

if has_family("lfm2_moe"):
    from transformers import Lfm2MoeModel, Lfm2MoePreTrainedModel

    class Lfm2MoeForSequenceClassification(SequenceClassification, Lfm2MoePreTrainedModel):
        """LFM2 with experts, likewise; its backbone is called ``model``, as in ``Lfm2MoeForCausalLM``.

        Example:
            >>> import torch
            >>> from transformers import Lfm2MoeConfig
            >>> from hf_mambalrp import Lfm2MoeForSequenceClassification
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
            >>> heads = dict(num_attention_heads=2, num_key_value_heads=2)
            >>> parts = dict(layer_types=["conv", "full_attention"], num_experts=2, num_experts_per_tok=1)
            >>> model = Lfm2MoeForSequenceClassification(Lfm2MoeConfig(**sizes, **heads, **parts))
            >>> model(torch.tensor([[1, 2, 3]])).logits.shape
            torch.Size([1, 2])
        """

        backbone_class = Lfm2MoeModel

    CLASSIFIERS += (Lfm2MoeForSequenceClassification,)

if has_family("recurrent_gemma"):
    from transformers import RecurrentGemmaModel, RecurrentGemmaPreTrainedModel

    class RecurrentGemmaForSequenceClassification(SequenceClassification, RecurrentGemmaPreTrainedModel):
        """RecurrentGemma, likewise; its backbone is called ``model``, as in ``RecurrentGemmaForCausalLM``.

        On the left its recurrence would read the padding: pad on the right.

        Example:
            >>> import torch
            >>> from transformers import RecurrentGemmaConfig
            >>> from hf_mambalrp import RecurrentGemmaForSequenceClassification
            >>> sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=3)
            >>> model = RecurrentGemmaForSequenceClassification(RecurrentGemmaConfig(**sizes, num_attention_heads=2))
            >>> model(torch.tensor([[1, 2, 3]])).logits.shape
            torch.Size([1, 2])
        """

        backbone_class = RecurrentGemmaModel

    CLASSIFIERS += (RecurrentGemmaForSequenceClassification,)
