"""Models that are given, fine-tuned, wrapped or quantised: they get the methods of an explainable class."""

from collections.abc import Callable
from functools import partial, update_wrapper
from inspect import signature
from typing import Any

from transformers import PreTrainedModel

from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.errors import OptionError
from hf_mambalrp.families import FAMILIES, Network
from hf_mambalrp.families.parts import Patches
from hf_mambalrp.models.mixin import MambaLRPMixin
from hf_mambalrp.models.releases import check_release
from hf_mambalrp.models.state_spaces import is_live, through_twin, twin
from hf_mambalrp.models.stock import StockMixin
from hf_mambalrp.models.vision import VisionLRPMixin
from hf_mambalrp.rules.twin import uncompiled

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
