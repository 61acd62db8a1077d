"""The sequence classifiers that transformers lacks for Mamba: backbone, last attended token, linear head.

Deviation from ``GenericForSequenceClassification`` of transformers: the pooled position follows ``attention_mask``,
not ``config.pad_token_id``. Mamba configurations say pad id 0 while tokenizers pad with another id, so a rule on ids
pools at the wrong token.
"""

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    FalconMambaModel,
    FalconMambaPreTrainedModel,
    Mamba2Model,
    Mamba2PreTrainedModel,
    MambaModel,
    MambaPreTrainedModel,
    PretrainedConfig,
)
from transformers.modeling_outputs import SequenceClassifierOutput

logger = logging.getLogger(__name__)

OLD_HEAD_KEYS = {r"^classifier\.(weight|bias)$": r"score.\1"}
"""Older Hub checkpoints name the head ``classifier``; the layout is the same."""


def last_attended(attention_mask: Tensor) -> Tensor:
    """Index of the rightmost attended token of each row. Shape: (B, L) -> (B,).

    Right for both padding sides, unlike ``attention_mask.sum(-1) - 1``.
    """
    positions = torch.arange(attention_mask.shape[-1], device=attention_mask.device)
    return (positions * (attention_mask != 0)).argmax(-1)


if TYPE_CHECKING:
    from transformers import PreTrainedModel as _Base
else:
    _Base = object  # a mixin: the family's PreTrainedModel comes behind it


class SequenceClassification(_Base):
    """Pooled classification for a state-space backbone; one implementation for every family.

    A family's class lists this mixin before its ``PreTrainedModel`` base and sets ``backbone_class``.
    """

    backbone_class: type[nn.Module]
    # Trainer then scales the loss for gradient accumulation itself, which is right for all three problem types.
    accepts_loss_kwargs = False

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.backbone: Any = self.backbone_class(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as every transformers model does; a head that is called ``classifier`` in the file becomes ``score``."""
        kwargs["key_mapping"] = {**OLD_HEAD_KEYS, **(kwargs.get("key_mapping") or {})}
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding of the backbone."""
        embeddings: nn.Module = self.backbone.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the token embedding of the backbone."""
        self.backbone.set_input_embeddings(new_embeddings)

    def pooled_position(self, input_ids: Tensor | None, attention_mask: Tensor | None, batch_size: int) -> Tensor | int:
        """Position that is classified: the rightmost attended token. Shape (B,), or -1 for one full row.

        Without a mask it is the rightmost token that is not ``config.pad_token_id``.

        Raises:
            ValueError: a batch of several rows with neither a mask nor token ids and a pad id to find the ends by.
        """
        if attention_mask is not None:
            return last_attended(attention_mask)
        pad_token_id = self.config.pad_token_id
        if input_ids is not None and pad_token_id is not None:
            return last_attended(input_ids != pad_token_id)
        if batch_size > 1:
            missing = "config.pad_token_id is None" if input_ids is not None else "inputs_embeds carry no token ids"
            raise ValueError(
                f"Cannot tell where the {batch_size} rows of this batch end: no attention_mask and {missing}. "
                "Pass attention_mask=..., as tokenizer(texts, padding=True, return_tensors='pt') returns it."
            )
        return -1

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        token_type_ids: Tensor | None = None,
        output_attentions: bool | None = None,
    ) -> tuple[Tensor, ...] | SequenceClassifierOutput:
        """Classify each row by its rightmost attended token.

        Args:
            input_ids: (B, L) token ids; exactly one of ``input_ids`` and ``inputs_embeds``.
            attention_mask: (B, L), 1 for tokens and 0 for padding, on either side.
            inputs_embeds: (B, L, D).
            labels: (B,) class ids, (B,) or (B, num_labels) floats for regression, (B, num_labels) floats in [0, 1] for
                several labels a row; ``config.problem_type`` decides, as everywhere in transformers.
            output_hidden_states: also return the residual stream after every block.
            return_dict: False returns a tuple.
            token_type_ids: not read; some tokenizers return it and pipelines pass it on.
            output_attentions: not read; PEFT passes it on.

        Returns:
            ``SequenceClassifierOutput`` with ``logits`` (B, num_labels), and ``loss`` where labels were given. No cache
            is returned, so that ``Trainer`` can gather every output.
        """
        return_dict = return_dict if return_dict is not None else getattr(self.config, "return_dict", True)
        outputs = self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            use_cache=False,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        hidden = outputs.last_hidden_state
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        position = self.pooled_position(input_ids, attention_mask, hidden.shape[0])
        if isinstance(position, Tensor):
            position = position.to(hidden.device)
        pooled = hidden[rows, position]
        # Of the weights in it: a quantised or wrapped head may have no weight of its own.
        dtype = next((p.dtype for p in self.score.parameters() if p.is_floating_point()), pooled.dtype)
        logits = self.score(pooled.to(dtype))

        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, pooled_logits=logits, config=self.config)
        if not return_dict:
            return tuple(v for v in (loss, logits, outputs.hidden_states) if v is not None)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


class MambaForSequenceClassification(SequenceClassification, MambaPreTrainedModel):
    """Mamba with a ``score`` head on the rightmost attended token; works with ``Trainer``, ``pipeline`` and AutoModel.

    Checkpoint layout: ``backbone.*`` as written by ``MambaForCausalLM``, and ``score.weight`` (num_labels, D).
    """

    backbone_class = MambaModel


class FalconMambaForSequenceClassification(SequenceClassification, FalconMambaPreTrainedModel):
    """Falcon-Mamba, likewise."""

    backbone_class = FalconMambaModel


class Mamba2ForSequenceClassification(SequenceClassification, Mamba2PreTrainedModel):
    """Mamba-2, likewise."""

    backbone_class = Mamba2Model


def register_for_auto_class(model_class: type[SequenceClassification]) -> None:
    """Let ``AutoModelForSequenceClassification`` find ``model_class``, unless transformers has a class of its own.

    ``register`` is silently ignored for configurations of transformers itself in 5.13 to 5.18 and needs ``exist_ok``
    from 5.19 on, so its effect is checked, and the mapping's own table is the way out.
    """
    config_class: Any = model_class.config_class
    mapping = AutoModelForSequenceClassification._model_mapping
    if config_class in mapping:
        return
    AutoModelForSequenceClassification.register(config_class, model_class, exist_ok=True)
    if config_class not in mapping:
        mapping._extra_content[config_class] = model_class
    if config_class not in mapping:
        logger.warning(
            "AutoModelForSequenceClassification does not accept %s; load with %s.from_pretrained instead.",
            config_class.__name__,
            model_class.__name__,
        )


for _class in (MambaForSequenceClassification, FalconMambaForSequenceClassification, Mamba2ForSequenceClassification):
    register_for_auto_class(_class)
