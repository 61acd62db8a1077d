"""From a question to its answer: checked, computed within the time limit, and kept for the next view of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from hf_mambalrp import MambaLRPError
from hf_mambalrp.space.catalog import LOADED
from hf_mambalrp.space.limits import LIMITS, Deadline, RefusedError
from hf_mambalrp.space.pictures import PICTURES, picture
from hf_mambalrp.space.question import WHOLE_GRADIENT, WITH_GAMMA, Question

try:
    import spaces
except ImportError:
    spaces = None

KEPT = 64
"""Answers in memory; one of the longest document takes about a megabyte."""
LIKELY = 5
"""Next tokens shown with their probabilities."""


@dataclass(frozen=True)
class Answer:
    """A result of the library, and the probabilities of the model's outputs, most likely first."""

    result: Any
    chances: list[tuple[str, float]]


def answer(question: Question) -> Answer:
    """Answer a question. RefusedError: it is not allowed, not possible, or takes too long."""
    if question.kind == "image":
        if not question.picture:
            raise RefusedError("There is no picture yet. Choose one, or press an example.")
    else:
        _check_text(question)
    found = _answered(replace(question, level="word", view="words", compared=(), layer=0))
    if question.kind == "attention" and question.layer not in found.result.layers:
        raise RefusedError(_layers(found.result.layers))
    return found


def _layers(layers: list[int]) -> str:
    """Which layers have an attention, of which a hybrid's may not be all."""
    numbers = sorted({*layers})
    if numbers == list(range(len(numbers))):
        return f"“layer” can be a whole number from 0 to {numbers[-1]} for this model."
    return f"In that layer no position reads another. “layer” can be one of {', '.join(map(str, numbers))}."


def _check_text(question: Question) -> None:
    if not question.text.strip():
        raise RefusedError("There is no text yet. Type a sentence, or pick an example.")
    most = LIMITS.document_characters if question.kind == "document" else LIMITS.characters
    if len(question.text) > most:
        raise RefusedError(f"The text has {len(question.text):,} characters, and at most {most:,} are read here.")


@lru_cache(maxsize=KEPT)
def _answered(question: Question) -> Answer:
    if question.kind != "image":
        _check_tokens(question)
    found = _computed(question)
    if isinstance(found, RefusedError):
        raise found
    return found


def _check_tokens(question: Question) -> None:
    _, tokenizer = LOADED.get(question.entry)
    length = len(tokenizer(question.text, verbose=False)["input_ids"])
    most = {"document": LIMITS.document_tokens, "attention": LIMITS.attention_tokens}.get(question.kind, LIMITS.tokens)
    if length > most:
        raise RefusedError(f"The text has {length:,} tokens, and at most {most:,} are read here. Shorten it a little.")


def _compute(question: Question) -> Answer | RefusedError:
    """Return the answer, or why there is none: of an exception, ZeroGPU passes on the name of its class only."""
    model, tokenizer = LOADED.get(question.entry)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with Deadline(LIMITS.seconds):
            return COMPUTE[question.kind](question, model, tokenizer)
    except (MambaLRPError, RefusedError) as error:
        return RefusedError(str(error))


def _explain(question: Question, model: Any, tokenizer: Any) -> Answer:
    result = model.explain(
        question.text,
        tokenizer=tokenizer,
        target=question.target or None,
        contrast=question.contrast or None,
        method=question.method,
        per_layer=question.method in WHOLE_GRADIENT and question.kind != "document",
    )
    return Answer(result, [] if question.kind == "document" else _chances(question, model, tokenizer))


def _generate(question: Question, model: Any, tokenizer: Any) -> Answer:
    result = model.explain_generation(
        question.text, tokenizer=tokenizer, max_new_tokens=question.tokens, method=question.method
    )
    return Answer(result, [])


def _attend(question: Question, model: Any, tokenizer: Any) -> Answer:
    return Answer(model.hidden_attention(question.text, tokenizer=tokenizer, kind=question.attention), [])


def _explain_picture(question: Question, model: Any, processor: Any) -> Answer:
    asked = picture(question.picture)
    result = model.explain(
        asked,
        processor=processor,
        target=question.target or None,
        contrast=question.contrast or None,
        method=question.method,
        **({"gamma": question.gamma} if question.method in WITH_GAMMA else {}),
    )
    with torch.inference_mode():
        pixels = processor(images=asked, return_tensors="pt")["pixel_values"].to(model.device)
        logits = model(pixel_values=pixels).logits[0].float()
    return Answer(result, _classes(model, logits))


def _chances(question: Question, model: Any, tokenizer: Any) -> list[tuple[str, float]]:
    """What the model says by itself: all classes, or the likeliest next tokens."""
    with torch.inference_mode():
        encoded = tokenizer(question.text, return_tensors="pt", verbose=False).to(model.device)
        logits = model(encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits[0].float()
    if question.kind == "next":
        top = logits[-1].softmax(-1).topk(min(LIKELY, logits.shape[-1]))
        return [(tokenizer.decode([i]), p) for i, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)]
    return _classes(model, logits)


def _classes(model: Any, logits: torch.Tensor) -> list[tuple[str, float]]:
    """The likeliest classes with their probabilities."""
    if model.config.problem_type == "regression":
        return []
    independent = model.config.problem_type == "multi_label_classification"
    chances = (logits.sigmoid() if independent else logits.softmax(-1)).tolist()
    named = [(str(model.config.id2label[i]), p) for i, p in enumerate(chances)]
    return sorted(named, key=lambda pair: -pair[1])[:LIKELY]


COMPUTE: dict[str, Callable[[Question, Any, Any], Answer]] = {
    "sentence": _explain,
    "next": _explain,
    "document": _explain,
    "generation": _generate,
    "attention": _attend,
    "image": _explain_picture,
}

_computed = _compute if spaces is None else spaces.GPU(duration=LIMITS.seconds)(_compute)


def warm_up() -> None:
    """Load the packaged models and let the kernels of short and long texts compile, before the first visitor comes."""
    for kind, text in (("sentence", "A warm film."), ("document", "A warm film. " * 400)):
        _compute_without_limit(Question.asked(kind=kind, text=text))
    _compute_without_limit(Question.asked(kind="image", picture=next(iter(PICTURES))))


def _compute_without_limit(question: Question) -> None:
    model, tokenizer = LOADED.get(question.entry)
    COMPUTE[question.kind](question, model, tokenizer)
