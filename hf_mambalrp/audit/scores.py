"""What a classifier says of many texts: the log-odds of each class against the rest, by forwards alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.calls.targets import Outputs
from hf_mambalrp.errors import InputError, OptionError, UnknownArchitectureError
from hf_mambalrp.evaluation.outputs import ModelOutput
from hf_mambalrp.evaluation.perturbation import Ids
from hf_mambalrp.models.auto import make_explainable
from hf_mambalrp.runs.progress import progress_bar

WINDOW = 4096
"""Texts that are tokenized, and sorted into batches of one length, at a time."""


class Scores:
    """The scores of one model. UnknownArchitectureError: it is no classifier, or one of a single number."""

    def __init__(self, call: str, model: Any, tokenizer: Any, batch_tokens: int | None, progress: bool) -> None:
        model = make_explainable(model)
        self.model = model  # its subject holds it weakly
        subject = subject_of(model)
        self._call = subject.begin(call, tokenizer)
        self.network = network = self._call.network
        if network.is_language_model:
            raise UnknownArchitectureError(
                f"{type(model).__name__} is a language model; {call}() reads the classes of a classifier. "
                "words_table() and compare() read explanations of language models too."
            )
        self._output, self._progress = ModelOutput(subject, batch_tokens), progress
        self.outputs = Outputs(network, self._call.tokenizers)

    def label(self, target: int) -> str:
        """Return the name of a class."""
        return self.outputs.text_of((target,))

    def __call__(self, texts: Sequence[str], said: str) -> Tensor:
        """Log-odds of each class, ``log p / (1 - p)`` under the softmax; with independent classes their logits.

        Shape: n texts -> (n, V), float64. ``said`` stands beside the bar of progress. InputError: a text that has no
        tokens.
        """
        found = [torch.empty(0, self.network.config.num_labels, dtype=torch.float64)]
        with progress_bar(total=len(texts), desc=said, unit="text", shown=self._progress) as bar:
            for start in range(0, len(texts), WINDOW):
                window = texts[start : start + WINDOW]
                found.append(self._window(list(window)))
                bar.update(len(window))
        return torch.cat(found)

    def _window(self, texts: list[str]) -> Tensor:
        batch = self._call.read(texts, None, None)
        assert batch.input_ids is not None, "texts have ids"
        rows: list[Ids] = [
            tuple(ids[mask != 0].tolist()) for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
        ]
        by_row: dict[Ids, Tensor] = {}
        for same, logits in self._output.logits(rows):
            by_row.update(zip(same, logits if self._output.independent else log_odds(logits), strict=True))
        return torch.stack([by_row[row] for row in rows])


def log_odds(logits: Tensor) -> Tensor:
    """Logit of each class less the log-sum-exp of the others. Shape: (n, V) -> (n, V)."""
    others = torch.eye(logits.shape[1], dtype=torch.bool)
    rest = [logits.masked_fill(own, -torch.inf).logsumexp(1) for own in others]
    return logits - torch.stack(rest, 1)


@dataclass(frozen=True)
class Scored:
    """Texts with the log-odds of each class (n, V), and of which class each text is."""

    texts: Sequence[str]
    log_odds: Tensor
    classes: Sequence[int]

    @property
    def decisions(self) -> Tensor:
        """The predicted class of each text. Shape: (n,)."""
        return self.log_odds.argmax(1)

    def deviation(self, target: int) -> float:
        """Return the standard deviation of a class's log-odds over the texts. InputError: there is none."""
        deviation = self.log_odds[:, target].std().item() if len(self.texts) > 1 else 0.0
        if not deviation > 0:
            raise InputError(
                f"The score is the same on all {len(self.texts)} texts, so effects have no scale. Give more texts."
            )
        return deviation


def scored(scores: Scores, texts: Sequence[str], classes: Sequence[Any] | None) -> Scored:
    """Score texts, whose classes are given by id or name, one a text, or are the predicted ones.

    InputError: no texts, or something else. OptionError: another number of classes. TargetError: one that the model
    has not.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise InputError("Give a list of texts, none of them empty.")
    if classes is not None and len(classes) != len(texts):
        raise OptionError(f"classes has {len(classes)} entries for {len(texts)} texts; give one a text.")
    found = scores(texts, "scores")
    if classes is None:
        return Scored(texts, found, found.argmax(1).tolist())
    return Scored(texts, found, [scores.outputs.ids_of(value, "classes", 0)[0] for value in classes])
