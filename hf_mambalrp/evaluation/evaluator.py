"""One example after another: explain it by every method, perturb it, read the model's output."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from hf_mambalrp.calls.explain import Options, explain_batch
from hf_mambalrp.calls.inputs import TokenizerSource
from hf_mambalrp.calls.targets import Outputs
from hf_mambalrp.errors import InputError, RowMemoryError, TargetError
from hf_mambalrp.evaluation.ceiling import best_orders
from hf_mambalrp.evaluation.dataset import drawn, read_examples
from hf_mambalrp.evaluation.examiner import Examiner
from hf_mambalrp.evaluation.outputs import ModelOutput
from hf_mambalrp.evaluation.perturbation import Ids, Perturbation, counts_of, order_of
from hf_mambalrp.evaluation.settings import Settings, resolve_replacement
from hf_mambalrp.methods.memory import out_of_memory
from hf_mambalrp.models.fingerprint import fingerprint
from hf_mambalrp.results.explanation import Conservation, Explanation
from hf_mambalrp.runs.bad_rows import ROW_ERRORS, bad_row
from hf_mambalrp.runs.rows import Columns, Row, digest


class Evaluator(Examiner):
    """One model, its examples and settings."""

    unit = "text"

    def __init__(
        self,
        model: nn.Module,
        dataset: "str | Path | Iterable[Any]",
        settings: Settings,
        columns: Columns,
        tokenizer: Any,
        batch_tokens: int | None,
    ) -> None:
        self.tokenizer, self.batch_tokens = tokenizer, batch_tokens
        super().__init__(model)
        network = self.subject.network()
        tokenizers = TokenizerSource(tokenizer, self.subject.place())
        self.replacement, called = resolve_replacement(settings.replacement, tokenizers, network.vocabulary_size)
        found, self.unreadable = read_examples(dataset, columns, settings.target, Outputs(network, tokenizers))
        self.examples = drawn(found, settings.samples, settings.seed)
        self.settings = replace(
            settings,
            replacement=called,
            samples=len(self.examples) or None,
            target=[example.target for example in found] if columns.target else settings.target,
        )
        self.searched = {example.index for example in self.examples[: settings.ceiling]}
        """The examples whose best order is searched."""
        self.weights = fingerprint(model)
        self.on_error: str | None = "raise"

    def look(self) -> None:
        """Look at the model and its output."""
        super().look()
        self.output = ModelOutput(self.subject, self.batch_tokens)

    def depends_on(self) -> dict[str, Any]:
        """What finished examples depend on: a run may go on with them only if this is the same."""
        about = self.about()
        data = digest(self.examples).decode()
        return {**about.pop("settings"), **about, "data": data, "batch_tokens": self.batch_tokens}

    def examine(self, example: Row) -> dict[str, Any]:
        """Explain one example by every method, perturb it, and measure; plain JSON types.

        Of an example that cannot be explained it is what :func:`hf_mambalrp.runs.bad_rows.bad_row` makes of it.
        """
        try:
            return self._examined(example)
        except ROW_ERRORS as error:
            return bad_row(example, error, self.on_error)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            too_large = RowMemoryError(f"It does not fit into memory ({error}).")
            too_large.__cause__ = error
            return bad_row(example, too_large, self.on_error)

    def _examined(self, example: Row) -> dict[str, Any]:
        settings = self.settings
        first = self._explain(example, example.target, settings.methods[0])
        target = _single(first)
        ids, places = _tokens(first)
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
        first_order = perturbed[settings.methods[0]]
        ceiling = {"ceiling": self._ceiling(first_order, target)} if example.index in self.searched else {}
        return {
            "id": example.id,
            "tokens": len(places),
            "target": first.target_text[0],
            "score": logits[ids],
            "probability": probabilities[ids],
            **ceiling,
            "methods": {
                method: {
                    **perturbed[method].measures(output, probabilities),
                    "relevance": [relevance[method][place] for place in places],
                    "sum": explanation.conservation.relevance.item(),
                    **_absorbed(explanation.conservation),
                }
                for method, explanation in found.items()
            },
        }

    def _ceiling(self, given: Perturbation, target: int) -> dict[str, float]:
        """What the best orders that a greedy search finds reach, at the same steps as the methods' orders."""

        def output(rows: Iterable[Ids]) -> Mapping[Ids, float]:
            logits, probabilities = self.output(rows, target)
            return logits if self.settings.measure == "logit" else probabilities

        found = {}
        for metric, order in best_orders(given, output).items():
            best = replace(given, order=order)
            found[metric] = best.areas(output({row for rows in best.rows().values() for row in rows}))[metric]
        return found

    def _explain(self, example: Row, target: Any, method: str) -> Explanation:
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
            options=Options(method, False, "auto", "auto", self.settings.options_of(method)),
        ).result()


def _absorbed(conservation: Conservation) -> dict[str, float]:
    """What went to no token, of a softmax under a rule with which it absorbs."""
    softmax = {} if conservation.softmax is None else {"softmax": conservation.softmax.item()}
    return {"biases": conservation.biases.item(), **softmax}


def _single(explanation: Explanation) -> int:
    """The one class or token that was explained."""
    target = explanation.target[0]
    if not isinstance(target, int):
        raise TargetError(
            f"target {explanation.target_text[0]!r} has several tokens; faithfulness is evaluated for one class or one "
            "next token."
        )
    return target


def _tokens(explanation: Explanation) -> tuple[Ids, list[int]]:
    """Ids of the example, and the positions that may be perturbed."""
    assert explanation.input_ids is not None
    assert explanation.special_tokens_mask is not None
    places = (~explanation.special_tokens_mask[0]).nonzero().flatten().tolist()
    if not places:
        raise InputError("The text has special tokens only; there is nothing to perturb.")
    return tuple(explanation.input_ids[0].tolist()), places
