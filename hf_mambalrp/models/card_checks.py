"""Whether what a card is to show is of the model that is pushed."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from hf_mambalrp.calls.image_inputs import as_read
from hf_mambalrp.calls.own_forward import OwnForward
from hf_mambalrp.errors import InputError, UnknownArchitectureError
from hf_mambalrp.families import FAMILIES, Network
from hf_mambalrp.families.parts import Patches
from hf_mambalrp.models.beside import reader_beside
from hf_mambalrp.models.fingerprint import fingerprint
from hf_mambalrp.results.audit import Audit
from hf_mambalrp.results.card import AnyExplanation
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.results.generation_explanation import GenerationExplanation
from hf_mambalrp.results.image_explanation import ImageExplanation

TOLERANCE = 0.05
"""The allowed difference, as a share of the size of the logits.

Half precision rounds them to a percent or two; another model's differ by far more.
"""
CHECKED_LENGTH = 2048
"""Tokens of a row whose score is computed once more; transformers' forward of a longer one takes much memory."""
Side = tuple[tuple[int, ...], Any]
"""Ids up to the position whose prediction is explained, and what is explained there."""


def check_evaluation(results: Mapping[str, Any], model: Any) -> None:
    """Raise :class:`InputError` for figures that were measured on other weights, by their fingerprint."""
    _check_weights(results.get("weights"), results.get("model"), model, "evaluation", "evaluate_faithfulness")


def check_audit(audit: Audit, model: Any) -> None:
    """Raise :class:`InputError` for an audit of other weights, by their fingerprint."""
    _check_weights(audit.weights, audit.model, model, "audit", "hf_mambalrp.audit.audit")


def _check_weights(measured: Any, name: Any, model: Any, what: str, call: str) -> None:
    own = fingerprint(model)
    if measured == own:
        return
    on = f"of fingerprint {str(measured)[:12]}" if measured else "that it does not name"
    raise InputError(
        f"{what} was measured on weights {on} (model {name!r}), and this model's are {own[:12]}: a card shows figures "
        f"of its own model only. Measure this one with {call}, as it is pushed."
    )


def check_explanations(shown: Iterable[tuple[AnyExplanation, int]], model: Any) -> None:
    """Raise :class:`InputError` for rows whose score is not what the model itself gives.

    The score says it as well as a fingerprint in every explanation would, which is a hash of all weights for each call
    of ``explain``. Functions of logits, embeddings, pixel values and rows beyond ``CHECKED_LENGTH`` are not checked.
    """
    try:
        network = Network(model, FAMILIES)
    except UnknownArchitectureError:
        return
    forward = OwnForward(model, network)
    for number, (one, row) in enumerate(shown):
        if isinstance(one, ImageExplanation) != isinstance(network.stem, Patches):
            parts = [float("nan")]
        elif isinstance(one, ImageExplanation):
            parts = _of_image(network, forward, model, one, row)
        else:
            parts = [sum(_logits(network, forward, *side)) for side in _sides(one, row)]
        if not parts:
            continue
        score = float(one.score[row, 0] if isinstance(one, GenerationExplanation) else one.score[row])
        found = parts[0] - sum(parts[1:])
        if not abs(found - score) <= TOLERANCE * max(1.0, *map(abs, parts)):
            raise InputError(
                f"Row {number} of the explanations has the score {score:.4g}, and of the same input this model gives "
                f"{found:.4g}: it was explained on another model ({one.model_id!r}), on other weights, or with another "
                "image processor. Explain it with the model that is pushed."
            )


def _of_image(network: Network, forward: OwnForward, model: Any, one: ImageExplanation, row: int) -> list[float]:
    """The logit of the target, and of the contrast, of what the model saw; [] where pixel values were explained, of
    which only what can be seen is known, or a function.
    """
    wanted = [target for target in _targets(one, row) if target is not None]
    if one.sources is None or len(wanted) < len(_targets(one, row)):
        return []
    config, image = network.config, one.images[row : row + 1]
    if image.shape[1:3] != (config.image_size,) * 2 or max(wanted) >= network.num_outputs:
        return [float("nan")]
    pixels = as_read(image, reader_beside(model)(), config.num_channels)
    logits = forward(pixel_values=pixels.to(forward.device))[0]
    return [logits[target].item() for target in wanted]


def _targets(one: Explanation | ImageExplanation, row: int) -> list[Any]:
    return [one.target[row], *([] if one.contrast is None else [one.contrast[row]])]


def _sides(one: Explanation | GenerationExplanation, row: int) -> list[Side]:
    """The target's side of the score, and the contrast's; [] where it cannot be computed from ids."""
    if one.input_ids is None:
        return []
    mask = one.attention_mask[row] != 0
    if not isinstance(one, Explanation):
        mask = mask[: one.prompt_length]
        ids = tuple(one.input_ids[row, : one.prompt_length][mask].tolist())
        return [(ids, int(one.input_ids[row, one.prompt_length]))] if len(ids) <= CHECKED_LENGTH else []
    if one.position is not None:
        mask = mask[: int(one.position[row]) + 1]
    ids = tuple(one.input_ids[row, : len(mask)][mask].tolist())
    targets = _targets(one, row)
    known = len(ids) <= CHECKED_LENGTH and all(target is not None for target in targets)
    return [(ids, target) for target in targets] if known else []


def _logits(network: Network, forward: OwnForward, ids: tuple[int, ...], target: int | tuple[int, ...]) -> list[float]:
    """The logit of every token of a target, those before it fed back."""
    tokens = (target,) if isinstance(target, int) else target
    found = []
    for place, token in enumerate(tokens):
        read = ids + tokens[:place]
        if max(read) >= network.config.vocab_size or token >= network.num_outputs:
            return [float("nan")]
        found.append(forward(input_ids=torch.tensor([read], device=forward.device))[0, token].item())
    return found
