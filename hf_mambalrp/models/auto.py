"""Choose the explainable class by ``config.model_type``, or make a loaded model explainable."""

from collections.abc import Callable
from functools import partial, update_wrapper
from inspect import signature
from typing import Any, ClassVar

from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.errors import OptionError, UnknownArchitectureError
from hf_mambalrp.families import FAMILIES, Network
from hf_mambalrp.families.parts import Patches
from hf_mambalrp.models import explainable, explainable_delta, explainable_linear
from hf_mambalrp.models.mixin import MambaLRPMixin
from hf_mambalrp.models.releases import check_release
from hf_mambalrp.models.state_spaces import find_config, is_live, through_twin, twin
from hf_mambalrp.models.stock import StockMixin
from hf_mambalrp.models.vision import VimLRPForImageClassification, VisionLRPMixin
from hf_mambalrp.models.weight_files import HUB_OPTIONS
from hf_mambalrp.rules.twin import uncompiled


def configuration(source: Any, **options: Any) -> Any:
    """Configuration of a folder or Hub id, in transformers' format or mamba_ssm's; options as ``from_pretrained``'s.

    Raises:
        MissingReleaseError: of a family that the installed transformers lacks.
    """
    where = {name: options[name] for name in HUB_OPTIONS if name in options}
    found = find_config(source, where)
    if found is not None:
        return found
    try:
        return AutoConfig.from_pretrained(source, **where)
    except ValueError:  # a model type that it does not know, among others
        config, _ = PretrainedConfig.get_config_dict(source, **where)
        model_type = config.get("text_config", config).get("model_type", "")
        check_release(model_type, f"{source}, a {model_type!r} checkpoint,")
        raise


class _AutoClass:
    """Not instantiated itself: ``from_pretrained`` and ``from_config`` return a model of the right class."""

    classes: ClassVar[dict[str, type[PreTrainedModel]]]

    def __init__(self) -> None:
        raise TypeError(f"Use {type(self).__name__}.from_pretrained(...) or {type(self).__name__}.from_config(...).")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint into the explainable class of its ``model_type``; arguments as in transformers.

        Raises:
            UnknownArchitectureError: no rules for this ``model_type``.
            MissingReleaseError: a family that the installed transformers lacks.
            MissingHeadError: the checkpoint lacks weights of the head.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> type(model).__name__
            'MambaLRPForSequenceClassification'
        """
        config = kwargs.get("config") or configuration(pretrained_model_name_or_path, **kwargs)
        return cls._class_for(config).from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @classmethod
    def from_config(cls, config: Any, **kwargs: Any) -> Any:
        """Build a model with random weights from a configuration.

        Example:
            >>> from transformers import FalconMambaConfig
            >>> from hf_mambalrp import AutoMambaLRPForCausalLM
            >>> config = FalconMambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2)
            >>> type(AutoMambaLRPForCausalLM.from_config(config)).__name__
            'FalconMambaLRPForCausalLM'
        """
        return cls._class_for(config)._from_config(config.get_text_config(), **kwargs)

    @classmethod
    def _class_for(cls, config: Any) -> Any:
        model_type = config.get_text_config().model_type  # of images and texts the texts'
        found = cls.classes.get(model_type)
        if found is None:
            check_release(model_type, f"{cls.__name__} of a {model_type!r} model")
            raise UnknownArchitectureError(
                f"{cls.__name__} has no class for model_type {model_type!r}. Known: {sorted(cls.classes)}."
            )
        return found


def _by_model_type(*classes: Any) -> dict[str, type[PreTrainedModel]]:
    return {cls.config_class.model_type: cls for cls in classes}


class AutoMambaLRPForCausalLM(_AutoClass):
    """The explainable language model of a checkpoint.

    Example:
        >>> from transformers import MambaConfig
        >>> from hf_mambalrp import AutoMambaLRPForCausalLM
        >>> config = MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2)
        >>> model = AutoMambaLRPForCausalLM.from_config(config)
        >>> model.explain([[1, 2, 3]]).relevance.shape
        torch.Size([1, 3])
    """

    classes: ClassVar = _by_model_type(
        *explainable.LANGUAGE_MODELS, *explainable_delta.LANGUAGE_MODELS, *explainable_linear.LANGUAGE_MODELS
    )


class AutoMambaLRPForSequenceClassification(_AutoClass):
    """The explainable classifier of a checkpoint.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> model.explain(["A dull film.", "A lovely film."]).target_text
        ['negative', 'positive']
    """

    classes: ClassVar = _by_model_type(
        *explainable.CLASSIFIERS, *explainable_delta.CLASSIFIERS, *explainable_linear.CLASSIFIERS
    )


class AutoMambaLRPForImageClassification(_AutoClass):
    """The explainable image classifier of a checkpoint.

    Example:
        >>> from hf_mambalrp import AutoMambaLRPForImageClassification, VimConfig
        >>> config = VimConfig(image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2)
        >>> type(AutoMambaLRPForImageClassification.from_config(config)).__name__
        'VimLRPForImageClassification'
    """

    classes: ClassVar = _by_model_type(VimLRPForImageClassification)


TEXT_METHODS: tuple[Callable[..., Any], ...] = (
    *(MambaLRPMixin.explain, MambaLRPMixin.explain_generation, MambaLRPMixin.hidden_attention),
)
VISION_METHODS: tuple[Callable[..., Any], ...] = (VisionLRPMixin.explain, VisionLRPMixin.hidden_attention)


def make_explainable(model: Any) -> Any:
    """Give a loaded model (fine-tuned, PEFT-wrapped, quantised) the methods of :class:`MambaLRPMixin`; returns it.

    An image classifier gets those of :class:`VisionLRPMixin`.

    Its class, weights and forward stay what they are. Of what ``torch.compile`` returned, the model inside is explained
    and not changed. A live ``MambaLMHeadModel`` of the package mamba_ssm is explained through a model of transformers
    that shares its parameters; see :func:`hf_mambalrp.models.state_spaces.twin`. A model in a PEFT wrapper is saved and
    pushed by PEFT, without a card of explanations.

    Raises:
        UnknownArchitectureError: no rules for this model.
        MissingReleaseError: the installed transformers has its family with a forward that is wrong.

    Example:
        >>> from transformers import AutoModelForSequenceClassification
        >>> from hf_mambalrp import DEMO_MODEL, make_explainable
        >>> model = AutoModelForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> make_explainable(model).explain("A dull film.").target_text
        ['negative']
    """
    own = uncompiled(model)
    explained = twin(own) if is_live(own) else own
    network = Network(explained, FAMILIES)  # raises before anything is put into the model
    check_release(network.family.model_type, type(network.model).__name__)
    owner = model if explained is own else explained  # what torch.compile returned, not the model inside
    subject_of(owner).place()
    if not isinstance(model, StockMixin):
        for method in VISION_METHODS if isinstance(network.stem, Patches) else TEXT_METHODS:
            # A partial, unlike a bound method in an instance, survives pickling; a copy explains the copy.
            bound = partial(method, model) if explained is own else partial(through_twin, method, own, explained)
            _give(model, bound, method)
        for saver in (StockMixin.save_pretrained, StockMixin.push_to_hub):
            if isinstance(own, PreTrainedModel):
                _give(model, partial(saver, own), saver)
            elif hasattr(own, "get_base_model"):
                theirs = getattr(type(own), saver.__name__)
                _give(model, partial(_without_card, theirs, own), theirs)
    return model


def _give(model: Any, bound: Any, method: Callable[..., Any]) -> None:
    """Set the method in ``model`` itself: setattr on what ``torch.compile`` returned would reach the model inside."""
    update_wrapper(bound, method)
    del bound.__wrapped__  # whose signature has the model in it
    _, *others = signature(method).parameters.values()
    bound.__signature__ = signature(method).replace(parameters=others)
    vars(model)[method.__name__] = bound


def _without_card(
    method: Callable[..., Any],
    model: Any,
    *args: Any,
    explanations: Any = None,
    evaluation: Any = None,
    audit: Any = None,
    **options: Any,
) -> Any:
    """PEFT's own ``save_pretrained`` or ``push_to_hub``, of the adapters alone."""
    if any(given is not None for given in (explanations, evaluation, audit)):
        raise OptionError(
            f"{method.__name__} of a PEFT model saves adapters alone, without a card of explanations. Merge them "
            f"first: make_explainable(model.merge_and_unload()).{method.__name__}(..., explanations=...)."
        )
    return method(model, *args, **options)
