"""What the sequence classifiers that transformers lacks are: a backbone, the last attended token, a linear head.

Deviation from ``GenericForSequenceClassification`` of transformers: the pooled position follows ``attention_mask``,
not ``config.pad_token_id``. Mamba configurations say pad id 0 while tokenizers pad with another id, so a rule on ids
pools at the wrong token.
"""

import re
from collections import Counter
from collections.abc import Mapping
from contextvars import ContextVar
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.modeling_utils import load_state_dict
from transformers.utils import logging

from hf_mambalrp.errors import UnexpectedWeightsError
from hf_mambalrp.families.padding import last_attended

logger = logging.get_logger(__name__)

OLD_HEAD_KEYS = {r"^classifier\.(weight|bias)$": r"score.\1"}
"""Older Hub checkpoints name the head ``classifier``; the layout is the same."""

STATE_OF_BEFORE = ("cache", "cache_params", "past_key_values", "cache_position")
"""What backbones call the states behind the tokens that came before these, in one release or another."""

_loading: ContextVar[Mapping[str, Any] | None] = ContextVar("loading", default=None)
"""Options of the ``from_pretrained`` that runs; None where adapters are loaded into a model."""


def _renamed(key: str, key_mapping: Mapping[str, str]) -> str:
    """What ``from_pretrained`` calls a weight of the checkpoint: every pattern that matches renames it."""
    for pattern, replacement in key_mapping.items():
        key = re.sub(pattern, replacement, key)
    return key


def _renames_as(key_mapping: Mapping[str, str], conversion: Any) -> bool:
    return not key_mapping.keys().isdisjoint(getattr(conversion, "_original_source_patterns", ()))


if TYPE_CHECKING:
    from transformers import PreTrainedModel as _Base
else:
    _Base = object  # a mixin: the family's PreTrainedModel comes behind it


class SequenceClassification(_Base):
    """Pooled classification for a state-space backbone; one implementation for every family.

    A family's class lists this mixin before its ``PreTrainedModel`` base and sets ``backbone_class``.
    """

    backbone_class: Any
    # Trainer then scales the loss for gradient accumulation itself, which is right for all three problem types.
    accepts_loss_kwargs = False

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        setattr(self, self.base_model_prefix, self.backbone_class(config))
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()

    # What transformers does with the weights of its own classes and not with those of others' goes by the backbone's.

    @classmethod
    def is_custom_code(cls) -> bool:
        """As the backbone's class.

        Example:
            >>> from hf_mambalrp import MambaForSequenceClassification
            >>> MambaForSequenceClassification.is_custom_code()
            False
        """
        asked = getattr(cls.backbone_class, "is_custom_code", None)  # None before transformers 5
        return asked is not None and bool(asked())

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return bool(cls.backbone_class._can_set_attn_implementation())

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return bool(cls.backbone_class._can_set_experts_implementation())

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as every transformers model does; a head that is called ``classifier`` in the file becomes ``score``.

        A bias that was trained with the head is loaded with it: ``score`` has one where the checkpoint has one.
        Whatever names ``key_mapping`` mapped, the model is saved under its own.

        Raises:
            UnexpectedWeightsError: the checkpoint has two heads.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, MambaForSequenceClassification
            >>> model = MambaForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> model.score.out_features
            2
        """
        kwargs["key_mapping"] = {**(kwargs.get("key_mapping") or {}), **OLD_HEAD_KEYS}
        token = _loading.set(dict(kwargs))
        try:
            loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        finally:
            _loading.reset(token)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # From transformers 5 on saving renames backwards, which no other class can load and not every pattern allows.
        if conversions := vars(model).get("_weight_conversions"):
            model._weight_conversions = [c for c in conversions if not _renames_as(kwargs["key_mapping"], c)]
        return loaded

    @classmethod
    def _load_pretrained_model(cls, model: Any, state_dict: Any, checkpoint_files: Any, *args: Any, **kw: Any) -> Any:
        """Load into the empty ``model``, as transformers calls it, once the head has the shape of the checkpoint's."""
        options = _loading.get()
        if options is not None:
            keys = list(state_dict or ())
            for file in checkpoint_files or () if state_dict is None else ():
                if str(file).endswith((".safetensors", ".bin")):
                    safe = options.get("weights_only", True)
                    keys += load_state_dict(file, map_location="meta", weights_only=safe)
            model._fit_head({key: _renamed(key, options["key_mapping"]) for key in keys})
        return super()._load_pretrained_model(model, state_dict, checkpoint_files, *args, **kw)

    def _fit_head(self, names: Mapping[str, str]) -> None:
        """Give ``score`` a bias, without a value yet, where the checkpoint that is being loaded has one.

        Args:
            names: what the checkpoint's weights are called here, by their names in it.

        Raises:
            UnexpectedWeightsError: several of them would be the same weight of ``score``.
        """
        head = {key: name for key, name in names.items() if name.startswith("score.")}
        twice = [name for name, count in Counter(head.values()).items() if count > 1]
        if twice:
            raise UnexpectedWeightsError(
                f"The checkpoint has several heads: {sorted(key for key in head if head[key] in twice)} would each be "
                f"{sorted(twice)} of {type(self).__name__}. Say which are to be left out: "
                r'key_mapping={r"^classifier\.": "unused."}.'
            )
        if "score.bias" in head.values() and self.score.bias is None:
            empty = torch.empty(self.num_labels, dtype=self.dtype, device=self.score.weight.device)
            self.score.bias = nn.Parameter(empty)

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding of the backbone.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, MambaForSequenceClassification
            >>> model = MambaForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> model.get_input_embeddings() is model.backbone.embeddings
            True
        """
        embeddings: nn.Module = self.base_model.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the token embedding of the backbone.

        Example:
            >>> import torch
            >>> from hf_mambalrp import DEMO_MODEL, MambaForSequenceClassification
            >>> model = MambaForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> model.set_input_embeddings(torch.nn.Embedding(99, model.config.hidden_size))
            >>> model.get_input_embeddings().num_embeddings
            99
        """
        self.base_model.set_input_embeddings(new_embeddings)

    def pooled_position(self, input_ids: Tensor | None, attention_mask: Tensor | None, batch_size: int) -> Tensor | int:
        """Position that is classified: the rightmost attended token. Shape (B,), or -1 for the last of every row.

        Without a mask it is the rightmost token that is not ``config.pad_token_id``. Embeddings without a mask are read
        as full rows, with a warning where there are several, as in transformers' own classifiers.

        Raises:
            ValueError: several rows without a mask, where ``config.pad_token_id`` is None.

        Example:
            >>> import torch
            >>> from hf_mambalrp import DEMO_MODEL, MambaForSequenceClassification
            >>> model = MambaForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> model.pooled_position(None, torch.tensor([[1, 1, 1], [1, 1, 0]]), batch_size=2)
            tensor([2, 1])
        """
        if attention_mask is not None:
            return last_attended(attention_mask)
        pad_token_id = self.config.pad_token_id
        if pad_token_id is None and batch_size > 1:
            raise ValueError(
                f"Cannot tell where the {batch_size} rows of this batch end: no attention_mask, and "
                "config.pad_token_id is None. Pass attention_mask=..., as tokenizer(texts, padding=True, "
                "return_tensors='pt') returns it."
            )
        if input_ids is not None and pad_token_id is not None:
            return last_attended(input_ids != pad_token_id)
        if batch_size > 1:
            logger.warning_once(
                f"{type(self).__name__} reads the last position of every row: inputs_embeds tell no padding. Pass "
                "attention_mask=... where rows are padded."
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
        use_cache: bool | None = None,
        **kwargs: Any,
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
            use_cache: not read: a row is classified once, and without a cache ``Trainer`` can gather every output.
            **kwargs: a cache of what came before (``cache``, in older releases ``cache_params`` or
                ``past_key_values``) goes to the backbone, and ``position_ids`` to one with attention; others
                (``token_type_ids``, ``output_attentions``) are not read.

        Returns:
            ``SequenceClassifierOutput`` with ``logits`` (B, num_labels), and ``loss`` where labels were given.

        Example:
            >>> import torch
            >>> from hf_mambalrp import DEMO_MODEL, MambaForSequenceClassification
            >>> model = MambaForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> model(torch.tensor([[1, 2, 3]])).logits.shape
            torch.Size([1, 2])
        """
        return_dict = return_dict if return_dict is not None else getattr(self.config, "return_dict", True)
        before = {name: kwargs[name] for name in STATE_OF_BEFORE if kwargs.get(name) is not None}
        reads_positions = "position_ids" in signature(self.base_model.forward).parameters
        given = {"position_ids": kwargs.get("position_ids")} if reads_positions else {}
        if output_hidden_states is not None:  # where it is not given the configuration decides
            given["output_hidden_states"] = output_hidden_states
        outputs = self.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            use_cache=bool(before),  # transformers 4 drops the states otherwise
            return_dict=True,
            **before,
            **given,
        )
        hidden = outputs.last_hidden_state
        if attention_mask is not None:  # beside a cache of attention it is of the tokens in that as well
            attention_mask = attention_mask[:, -hidden.shape[1] :]
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
