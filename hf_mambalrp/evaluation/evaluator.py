"""One example after another: explain it by every method, perturb it, read the model's output."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from hf_mambalrp.calls.explain import Options, explain_batch, model_id, versions
from hf_mambalrp.calls.inputs import TokenizerSource
from hf_mambalrp.calls.subject import Subject
from hf_mambalrp.calls.targets import Outputs
from hf_mambalrp.errors import InputError, TargetError
from hf_mambalrp.evaluation.dataset import Example, drawn, read_examples
from hf_mambalrp.evaluation.outputs import ModelOutput
from hf_mambalrp.evaluation.perturbation import Perturbation, Row, counts_of, order_of
from hf_mambalrp.evaluation.settings import Settings, resolve_replacement
from hf_mambalrp.models.fingerprint import fingerprint
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.runs.rows import Columns


class Evaluator:
    """One model, its examples and settings: what is needed to examine one example after another."""

    def __init__(
        self,
        model: nn.Module,
        dataset: "str | Path | Iterable[Any]",
        settings: Settings,
        columns: Columns,
        tokenizer: Any,
        batch_size: int | None,
    ) -> None:
        self.model, self.tokenizer, self.subject = model, tokenizer, Subject(model)
        self.output = ModelOutput(model, batch_size)
        network = self.output.network
        tokenizers = TokenizerSource(tokenizer, self.subject.place())
        self.replacement, called = resolve_replacement(settings.replacement, tokenizers, network.vocabulary_size)
        found = read_examples(dataset, columns, settings.target, Outputs(network, tokenizers))
        self.examples = drawn(found, settings.samples, settings.seed)
        self.settings = replace(
            settings,
            replacement=called,
            samples=len(self.examples),
            target=[example.target for example in found] if columns.target else settings.target,
        )
        self.weights = fingerprint(model)

    def about(self) -> dict[str, Any]:
        """What was evaluated, as it stands in the results."""
        return {
            "model": model_id(self.output.network),
            "weights": self.weights,
            "versions": versions(),
            "settings": self.settings.to_dict(),
        }

    def header(self) -> dict[str, Any]:
        """What finished examples depend on: a run may go on with them only if this is the same."""
        texts = json.dumps([[example.id, example.text] for example in self.examples])
        return {
            **self.about(),
            "data": fingerprint(texts),
            "batch_size": self.output.batch_size,
        }

    def examine(self, example: Example) -> dict[str, Any]:
        """Explain one example by every method, perturb it, and measure; plain JSON types."""
        settings = self.settings
        first = self._explain(example, example.target, settings.methods[0])
        target = _single(first, example)
        ids, places = _tokens(first, example)
        others = {method: self._explain(example, target, method) for method in settings.methods[1:]}
        found = {settings.methods[0]: first, **others}

        counts = counts_of(len(places), settings.step)
        relevance = {method: explanation.relevance[0].tolist() for method, explanation in found.items()}
        perturbed = {
            method: Perturbation(ids, order_of(relevance[method], places), counts, self.replacement, settings.insertion)
            for method in settings.methods
        }
        inputs = {row for each in perturbed.values() for rows in each.rows().values() for row in rows} | {ids}
        logits, probabilities = self.output(inputs, target)
        output = logits if settings.measure == "logit" else probabilities
        return {
            "id": example.id,
            "tokens": len(places),
            "target": first.target_text[0],
            "score": logits[ids],
            "probability": probabilities[ids],
            "methods": {
                method: {
                    **perturbed[method].measures(output, probabilities),
                    "relevance": [relevance[method][place] for place in places],
                    "sum": explanation.conservation.relevance.item(),
                    "biases": explanation.conservation.biases.item(),
                }
                for method, explanation in found.items()
            },
        }

    def _explain(self, example: Example, target: Any, method: str) -> Explanation:
        options = Options(method, False, "auto", "auto", self.settings.options_of(method))
        try:
            return explain_batch(
                self.subject,
                example.text,
                input_ids=None,
                attention_mask=None,
                inputs_embeds=None,
                tokenizer=self.tokenizer,
                target=target,
                contrast=None,
                position=None,
                options=options,
            )
        except InputError as error:
            raise InputError(f"Row {example.row} of the dataset cannot be explained: {error}") from error


def _single(explanation: Explanation, example: Example) -> int:
    """The one class or token that was explained."""
    target = explanation.target[0]
    if not isinstance(target, int):
        raise TargetError(
            f"target {explanation.target_text[0]!r} of row {example.row} has several tokens; faithfulness is evaluated "
            "for one class or one next token."
        )
    return target


def _tokens(explanation: Explanation, example: Example) -> tuple[Row, list[int]]:
    """Ids of the example, and the positions that may be perturbed."""
    assert explanation.input_ids is not None
    assert explanation.special_tokens_mask is not None
    places = (~explanation.special_tokens_mask[0]).nonzero().flatten().tolist()
    if not places:
        raise InputError(f"Row {example.row} of the dataset has special tokens only; there is nothing to perturb.")
    return tuple(explanation.input_ids[0].tolist()), places
