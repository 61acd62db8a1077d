"""Whether a checkpoint holds just the weights of its class: what is missing, left over, or random by choice."""

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from hf_mambalrp.errors import MissingHeadError, UnexpectedWeightsError
from hf_mambalrp.families.modules import base_model
from hf_mambalrp.models.fingerprint import weight_fingerprint

LEFT_OUT = re.compile(r"(^|\.)unused\.")
"""Weights that the caller leaves out, by ``key_mapping={r"^v_head\\.": "unused."}``."""
LEFT_OUT_OF_CLASSIFIERS = re.compile(r"^lm_head\.|" + LEFT_OUT.pattern)
"""And the head of the language model that a classifier was made of."""


def check_loaded(model: Any, stock: type, info: Mapping[str, Any], source: Any, saved_by: str) -> None:
    """Raise where the explanations of ``model`` would not be those of the checkpoint.

    Args:
        model: what ``from_pretrained`` built.
        stock: the class behind the model's.
        info: its loading info.
        source: the checkpoint's folder or Hub id.
        saved_by: the class that its configuration names.

    Raises:
        MissingHeadError: weights of the model are not in the checkpoint, and so random; or it is a classifier's.
        UnexpectedWeightsError: the checkpoint has weights for which the model has no place.
    """
    cls, language_model = type(model).__name__, stock.__name__.endswith("ForCausalLM")
    unexpected = sorted(map(str, info["unexpected_keys"]))
    if language_model and (saved_by.endswith("Classification") or "score.weight" in unexpected):
        right = stock.__name__.replace("ForCausalLM", "LRPForSequenceClassification")
        raise MissingHeadError(
            f"{source} is a classifier's checkpoint; it has no head for {cls}, a language model. Load it with {right} "
            "or AutoMambaLRPForSequenceClassification."
        )
    left_out = LEFT_OUT if language_model else LEFT_OUT_OF_CLASSIFIERS
    left = [name for name in unexpected if not left_out.search(name)]
    missing = sorted(map(str, info["missing_keys"]))
    if missing:
        besides = f" It has {brief_names(left)}, which this class has no place for." if left else ""
        raise MissingHeadError(
            f"{source} has no weights that fit {brief_names(missing)} of {cls}, so these would be random and so would "
            f"their explanation.{besides} Load a checkpoint that was trained with this head; to train one, use "
            f"{stock.__name__}. Other names are mapped by key_mapping={{...}}."
        )
    if left:
        raise UnexpectedWeightsError(
            f"{source} has weights that {cls} has no place for, {brief_names(left)}: without them another model than "
            "the one that was trained would be explained. Weights with other names are mapped by key_mapping={...}; "
            f'those that may be left out, by key_mapping={{r"^{re.escape(left[0].partition(".")[0])}\\.": "unused."}}.'
        )
    # transformers 4 gives names, newer releases names with both shapes; they are there on ignore_mismatched_sizes=True
    random = sorted(key if isinstance(key, str) else key[0] for key in info["mismatched_keys"])
    if random:
        model._random_weights = {name: _digest(model, name) for name in random}
        warnings.warn(
            f"{brief_names(random)} of this {cls} are random, for the weights in {source} have another shape "
            "(ignore_mismatched_sizes=True). Train before you explain.",
            stacklevel=3,
        )


def warn_of_random_weights(model: Any) -> None:
    """Say once of a model that weights which :func:`check_loaded` left random are what is explained.

    Weights that have changed since then were trained, or loaded, and nothing is said of them.
    """
    explained: Any = base_model(model)
    random = vars(explained).pop("_random_weights", {})
    still = [name for name, digest in random.items() if _digest(explained, name) == digest]
    if still:
        warnings.warn(
            f"{brief_names(still)} of this {type(explained).__name__} are random, as they were loaded "
            "(ignore_mismatched_sizes=True), and so is what they say. Train the model before you explain it.",
            stacklevel=3,
        )


def brief_names(names: Iterable[str]) -> str:
    """The first few of them, and how many there are."""
    names = list(names)
    return str(names) if len(names) <= 5 else f"{names[:5]} ... ({len(names)} in all)"


def _digest(model: Any, name: str) -> str:
    """Fingerprint of a weight; "" of one that is not there any more."""
    try:
        return weight_fingerprint(model, name)
    except AttributeError:
        return ""
