"""What every explainable class has: it loads, saves and pushes as the class of transformers behind it, with a card."""

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.errors import OptionError, UnknownArchitectureError
from hf_mambalrp.families import FAMILIES
from hf_mambalrp.hub.model import push_model, write_card
from hf_mambalrp.hub.model_card import Contents
from hf_mambalrp.models.beside import reader_beside, reader_given
from hf_mambalrp.models.checkpoints import check_loaded
from hf_mambalrp.models.releases import check_release
from hf_mambalrp.models.sharing import card_contents
from hf_mambalrp.models.state_spaces import load
from hf_mambalrp.models.weight_files import HUB_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAMES_BY_TASK = {
    "CausalLM": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "SequenceClassification": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "ImageClassification": MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
}
"""transformers' names of classes by model type, for each of our tasks."""


class StockMixin:
    """Checkpoints stay interchangeable with the class behind an explainable one; no ``__init__``, no weights."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Name the class where transformers looks up what a class is for: pipelines, ``Trainer``, model cards.

        The key is no model type, so that no Auto class finds it.
        """
        super().__init_subclass__(**kwargs)
        names: Any = NAMES_BY_TASK.get(stock_class(cls).__name__.partition("For")[2])
        if names is not None:
            names[cls.__name__] = cls.__name__

    # Of a class that is not its own transformers takes no converted weights, leaves buffers as they were in memory, and
    # reads the file to see which attention and experts it can have. All of this is as in the class behind.

    @classmethod
    def is_custom_code(cls) -> bool:
        """As the class behind.

        Example:
            >>> from hf_mambalrp import MambaLRPForCausalLM
            >>> MambaLRPForCausalLM.is_custom_code()
            False
        """
        asked = getattr(stock_class(cls), "is_custom_code", None)  # None before transformers 5
        return asked is not None and bool(asked())

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return bool(stock_class(cls)._can_set_attn_implementation())

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return bool(stock_class(cls)._can_set_experts_implementation())

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint as every transformers model does; weights that are missing or left over are an error.

        A checkpoint in mamba_ssm's own format (``state-spaces/mamba-130m``) is converted as it is loaded. With
        ``ignore_mismatched_sizes=True`` weights of another shape, such as the head of another number of labels, are
        random, with a warning, to be trained; :meth:`explain` before that warns once more.

        Raises:
            MissingHeadError: the checkpoint lacks weights, most often the head: its explanations would be of random
                numbers. Or it is a classifier's, and this class is a language model.
            UnexpectedWeightsError: the checkpoint has weights that this class has no place for, such as a bias of
                ``lm_head`` or more layers of a head: without them another model would be explained.
            UnknownArchitectureError: a checkpoint of another ``model_type``, or in mamba_ssm's format one that
                transformers' class cannot express.
            CheckpointError: a checkpoint in mamba_ssm's format without weights, or with a damaged or unsafe file.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, MambaLRPForSequenceClassification
            >>> model = MambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> model.config.id2label
            {0: 'negative', 1: 'positive'}
        """
        wants_info = kwargs.pop("output_loading_info", False)
        saved_by = _check_family(cls, pretrained_model_name_or_path, kwargs)
        loader: Any = super()
        model, info = load(loader.from_pretrained, cls, pretrained_model_name_or_path, *args, **kwargs) or (
            loader.from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        )
        check_loaded(model, stock_class(cls), info, pretrained_model_name_or_path, saved_by)
        subject_of(model).place()
        return (model, info) if wants_info else model

    def push_to_hub(
        self,
        repo_id: str,
        *,
        explanations: Any = None,
        evaluation: Any = None,
        audit: Any = None,
        tokenizer: Any = None,
        image_processor: Any = None,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        tags: "Sequence[str] | None" = None,
        **save_options: Any,
    ) -> Any:
        """Push the model, as transformers writes it, with a card that says how to explain it and shows explanations.

        A card that is there is extended between two markers and by missing keys of its front matter; the rest stays
        byte for byte. It is one commit, or none where nothing is new. Explanations, an evaluation or an audit that are
        not given stay as an earlier push left them.

        Args:
            repo_id: "user/name", or "name" for one of your own; created if it is not there.
            explanations: what :meth:`explain` or :meth:`explain_generation` returned, or a list of it; the first 8
                rows, of images the first 3, become pictures and tables.
            evaluation: what ``evaluate_faithfulness`` returned, or its ``results``: a table, and as ``model-index``
                the figures of the first method. Of this model, as its fingerprint in them says.
            audit: what ``hf_mambalrp.audit.audit`` returned: what the model relies on, with the data, the number of
                texts and the thresholds. Of this model, as its fingerprint in it says.
            tokenizer: saved with the model; by default, where the repository has none, the one beside the model.
            image_processor: the same of an image classifier, which has no tokenizer.
            commit_message: title of the commit.
            commit_description: its text.
            private: visibility of a repository that is created.
            token: by default the one of ``hf auth login`` or ``HF_TOKEN``.
            revision: the branch; created if it is not there.
            create_pr: propose the change instead of making it.
            tags: more tags for the card.
            **save_options: passed to ``save_pretrained``, such as ``max_shard_size``.

        Returns:
            ``CommitInfo`` of huggingface_hub, a str: the address of the commit.

        Raises:
            InputError: explanations, an evaluation or an audit of another kind or of another model, a name that no
                repository can have.
            OptionError: a tokenizer for an image classifier, or an image processor for another model.
            MissingExtraError: explanations without matplotlib.
            NotLoggedInError: no token, or a wrong one.
            RepositoryAccessError: a token that may not write there.
            OfflineError, HubConnectionError, HubError: the Hub cannot be reached or refuses; nothing is half-written.
            CardError: the card that is there cannot be extended.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> model.push_to_hub("me/explained-model", explanations=ex)  # doctest: +SKIP
        """
        return push_model(
            self,
            _contents(self, explanations, evaluation, audit, tags or ()),
            repo_id,
            reader=reader_given(module_of(self), tokenizer=tokenizer, image_processor=image_processor),
            beside=reader_beside(module_of(self)),
            private=private,
            token=token,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
            commit_description=commit_description,
            save_options=save_options,
        )

    def save_pretrained(
        self,
        save_directory: Any,
        *args: Any,
        explanations: Any = None,
        evaluation: Any = None,
        audit: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Save as the class behind this one: ``architectures`` names that class, and no ``auto_map`` is written.

        With ``explanations``, ``evaluation`` or ``audit`` also the card of :meth:`push_to_hub`, ``README.md``, with its
        pictures; one that is there is extended. The tokenizer is saved too where the folder has none. Other arguments
        are those of transformers.

        Raises:
            OptionError: these together with ``push_to_hub=True``.
            InputError, MissingExtraError, CardError: as for :meth:`push_to_hub`.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> model.save_pretrained("out/explained-model", explanations=ex)
            >>> model.from_pretrained("out/explained-model").config.architectures
            ['MambaForSequenceClassification']
        """
        carded = any(given is not None for given in (explanations, evaluation, audit))
        if carded and kwargs.get("push_to_hub"):
            raise OptionError(
                "save_pretrained(push_to_hub=True) pushes no explanations: call model.push_to_hub(repo_id, "
                "explanations=...)."
            )
        if carded:  # first, because it checks what was given before it writes
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            contents = _contents(self, explanations, evaluation, audit, ())
            write_card(contents, save_directory, beside=reader_beside(module_of(self)))
        stock: Any = object.__new__(stock_class(type(self)))
        # The same weights seen as the stock class. The configuration is a copy, because saving writes into it.
        stock.__dict__ = {**vars(self), "config": copy.deepcopy(vars(self)["config"])}
        if hasattr(stock.config, "auto_map"):
            del stock.config.auto_map
        return type(stock).save_pretrained(stock, save_directory, *args, **kwargs)


def stock_class(cls: type) -> Any:
    """The class of transformers behind an explainable one."""
    return next(base for base in cls.__mro__ if not issubclass(base, StockMixin))


def _check_family(cls: type, source: Any, options: "Mapping[str, Any]") -> str:
    """Name of the class that saved the checkpoint, where its configuration says it.

    Raises:
        UnknownArchitectureError: a checkpoint of another family than the class's.
        MissingReleaseError: and of one that the installed transformers lacks.
    """
    try:
        config, _ = PretrainedConfig.get_config_dict(source, **{k: options[k] for k in HUB_OPTIONS if k in options})
    except (OSError, ValueError, TypeError):
        return ""  # transformers meets the same and says so in its own words
    stock: Any = stock_class(cls)
    family, own = config.get("model_type"), stock.config_class.model_type
    if family in FAMILIES and family != own:
        check_release(family, f"{source}, a {family!r} checkpoint,")
        task = stock.__name__.partition("For")[2]
        right = re.sub("(Text)?Config", f"LRPFor{task}", CONFIG_MAPPING[family].__name__)
        raise UnknownArchitectureError(
            f"{source} is a {family!r} checkpoint, {cls.__name__} is for {own!r}. Load it with {right} or "
            f"AutoMambaLRPFor{task}."
        )
    return str((config.get("architectures") or [""])[0])


def _contents(model: Any, explanations: Any, evaluation: Any, audit: Any, tags: "Sequence[str]") -> Contents:
    name = stock_class(type(model)).__name__
    return card_contents(model, name, explanations=explanations, evaluation=evaluation, audit=audit, tags=tags)


def module_of(model: Any) -> nn.Module:
    """The module that an explainable class's object is."""
    module: nn.Module = model
    return module
