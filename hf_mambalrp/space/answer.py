"""From a question to its answer: checked, computed within the time limit, and kept for the next view of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Event
from typing import TYPE_CHECKING, Any

import torch

from hf_mambalrp import MambaLRPError, compare
from hf_mambalrp.space.catalog import PACKAGED, PACKAGED_LANGUAGE, PACKAGED_VISION, Catalog, Entry
from hf_mambalrp.space.limits import Deadline, Limits, RefusedError
from hf_mambalrp.space.pictures import PICTURES, picture
from hf_mambalrp.space.question import WHOLE_GRADIENT, WITH_GAMMA, Question

if TYPE_CHECKING:
    from PIL.Image import Image

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


class Answers:
    """What answers the questions of one app, within its limits, and keeps answers for the next view of them."""

    def __init__(self, catalog: Catalog, limits: Limits) -> None:
        self.catalog, self.limits = catalog, limits
        self.computed = self._compute if spaces is None else spaces.GPU(duration=limits.seconds)(self._compute)
        self.kept = lru_cache(maxsize=KEPT)(self._answered)

    def answer(self, question: Question) -> Answer:
        """Answer a question. RefusedError: it is not allowed, not possible, or takes too long."""
        if question.kind == "image":
            if not question.picture:
                raise RefusedError("There is no picture yet. Choose one, or press an example.")
        else:
            self._check_text(question)
        if question.kind == "compare":
            return self._compared(question)
        # The rule goes with the view of parts, and other views are of one answer.
        view, rule = ("parts", question.rule) if question.ruled() else ("words", "cp")
        found = self.kept(replace(question, level="word", view=view, rule=rule, compared=(), layer=0))
        if question.kind == "attention" and question.layer not in found.result.layers:
            raise RefusedError(_layers(found.result.layers))
        return found

    def _compared(self, question: Question) -> Answer:
        first, second = (self.answer(side) for side in question.sides(self.catalog))
        try:
            return Answer(compare(first.result, second.result), [])
        except MambaLRPError as error:
            raise RefusedError(str(error)) from error

    def warm_up(self, stopped: Event) -> None:
        """Load what is packaged and listed, and let kernels of all lengths compile, before the first visitor comes.

        It leaves off between two of them once ``stopped`` is set.
        """
        first: list[tuple[Entry, dict[str, Any]]] = [
            (PACKAGED, {"kind": "sentence", "text": "A warm film."}),
            (PACKAGED, {"kind": "document", "text": "A warm film. " * 400}),
            (PACKAGED_LANGUAGE, {"kind": "next", "text": "The capital of"}),
            (PACKAGED_LANGUAGE, {"kind": "generation", "text": "The capital of"}),
            (PACKAGED_VISION, {"kind": "image", "picture": next(iter(PICTURES))}),
            (PACKAGED, {"kind": "attention", "text": "A warm film."}),
            (PACKAGED, {"kind": "compare", "text": "A warm film."}),
        ]
        for model, values in first:
            listed = next((entry for entry in self.catalog.entries if entry.id == model.id), None)
            if listed is not None and not stopped.is_set():
                question = Question.asked(self.catalog, self.limits, **values, model=listed.title)
                if question.kind == "compare":  # whose ranks need scipy.stats, half a second of importing
                    compare(*(self._compute_without_limit(side).result for side in question.sides(self.catalog)))
                else:
                    self._compute_without_limit(question)

    def _check_text(self, question: Question) -> None:
        if not question.text.strip():
            raise RefusedError("There is no text yet. Type a sentence, or pick an example.")
        most = self.limits.document_characters if question.kind == "document" else self.limits.characters
        if len(question.text) > most:
            raise RefusedError(f"The text has {len(question.text):,} characters, and at most {most:,} are read here.")

    def _answered(self, question: Question) -> Answer:
        if question.kind != "image":
            self._check_tokens(question)
        found = self.computed(question)
        if isinstance(found, RefusedError):
            raise found
        return found

    def _check_tokens(self, question: Question) -> None:
        limits, (_, tokenizer) = self.limits, self.catalog.get(question.model)
        length = len(tokenizer(question.text, verbose=False)["input_ids"])
        most = {"document": limits.document_tokens, "attention": limits.attention_tokens}.get(
            question.kind, limits.tokens
        )
        if length > most:
            raise RefusedError(
                f"The text has {length:,} tokens, and at most {most:,} are read here. Shorten it a little."
            )

    def _compute(self, question: Question) -> Answer | RefusedError:
        """Return the answer, or why there is none: of an exception, ZeroGPU passes on the name of its class only."""
        model, _ = self.catalog.get(question.model)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        try:
            with Deadline(self.limits.seconds):
                return self._compute_without_limit(question)
        except (MambaLRPError, RefusedError) as error:
            return RefusedError(str(error))

    def _compute_without_limit(self, question: Question) -> Answer:
        model, reader = self.catalog.get(question.model)
        if question.kind == "image":
            return _explain_picture(question, picture(question.picture, self.limits.picture_pixels), model, reader)
        return OF_TEXTS[question.kind](question, model, reader)


def _layers(layers: list[int]) -> str:
    """Which layers have an attention, of which a hybrid's may not be all."""
    numbers = sorted({*layers})
    if numbers == list(range(len(numbers))):
        return f"“layer” can be a whole number from 0 to {numbers[-1]} for this model."
    return f"In that layer no position reads another. “layer” can be one of {', '.join(map(str, numbers))}."


def _explain(question: Question, model: Any, tokenizer: Any) -> Answer:
    result = model.explain(
        question.text,
        tokenizer=tokenizer,
        target=question.target or None,
        contrast=question.contrast or None,
        method=question.method,
        per_layer=question.method in WHOLE_GRADIENT and question.kind != "document",
        **({"attention_rule": question.rule} if question.ruled() else {}),
    )
    return Answer(result, [] if question.kind == "document" else _chances(question, model, tokenizer))


def _generate(question: Question, model: Any, tokenizer: Any) -> Answer:
    result = model.explain_generation(
        question.text,
        tokenizer=tokenizer,
        max_new_tokens=question.tokens,
        contrast=question.contrast or None,
        method=question.method,
    )
    return Answer(result, [])


def _attend(question: Question, model: Any, tokenizer: Any) -> Answer:
    return Answer(model.hidden_attention(question.text, tokenizer=tokenizer, kind=question.attention), [])


def _explain_picture(question: Question, asked: "Image", model: Any, processor: Any) -> Answer:
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


OF_TEXTS: dict[str, Callable[[Question, Any, Any], Answer]] = {
    "sentence": _explain,
    "next": _explain,
    "document": _explain,
    "generation": _generate,
    "attention": _attend,
}
