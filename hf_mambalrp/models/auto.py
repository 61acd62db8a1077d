"""Choose the explainable class by ``config.model_type``."""

from typing import Any, ClassVar

from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from hf_mambalrp.errors import UnknownArchitectureError
from hf_mambalrp.models import explainable, explainable_delta, explainable_linear
from hf_mambalrp.models.releases import check_release
from hf_mambalrp.models.state_spaces import find_config
from hf_mambalrp.models.vision import VimLRPForImageClassification
from hf_mambalrp.models.weight_files import HUB_OPTIONS


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
