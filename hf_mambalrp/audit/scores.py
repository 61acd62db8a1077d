"""What a model says of many texts, by forwards alone: log-odds of classes, or of one next token against another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate.utils import gather_object
from torch import Tensor

from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.calls.targets import Outputs
from hf_mambalrp.datasets.together import everywhere, launched
from hf_mambalrp.errors import InputError, OptionError, TargetError
from hf_mambalrp.evaluation.outputs import ModelOutput
from hf_mambalrp.evaluation.perturbation import Ids
from hf_mambalrp.models.given import make_explainable
from hf_mambalrp.runs.progress import progress_bar

SIDES = ("target", "contrast")
PREDICTED = "the predicted class"
"""What the target is called where each input has its own."""
WINDOW = 4096
"""Texts that are tokenized, and sorted into batches of one length, at a time."""


Side = tuple[int, int]
"""Token ids of a target and a contrast."""


class Named(Protocol):
    """What has names for the classes of its log-odds."""

    @property
    def names(self) -> list[str]:
        """One a class."""


class Scores:
    """The scores of one model: of a classifier's classes, or of a language model's two sides, target and contrast.

    Of a language model the score of a text is ``logit(target) - logit(contrast)`` of the next token, which is the
    log-odds of the one against the other; and with its sign changed that of the other side.

    UnknownArchitectureError: a classifier of a single number.
    """

    def __init__(self, call: str, model: Any, tokenizer: Any, batch_tokens: int | None, progress: bool) -> None:
        model = make_explainable(model)
        self.model = model  # its subject holds it weakly
        subject = subject_of(model)
        self._call = subject.begin(call, tokenizer)
        self.network = self._call.network
        self._output, self._progress = ModelOutput(subject, batch_tokens), progress
        self.outputs = Outputs(self.network, self._call.tokenizers)
        self._sides: Sequence[Side] = ()

    def take_sides(self, sides: Sequence[Side]) -> None:
        """Say what a language model's texts are asked, one pair a text."""
        self._sides = sides

    def sides(self, texts: Sequence[str], target: Any, contrast: Any) -> list[Side]:
        """Token ids of a target and a contrast behind every text.

        TargetError: one is missing, the model has it not, or it has several tokens.
        """
        if target is None or contrast is None:
            raise TargetError(
                f"target={target!r}, contrast={contrast!r}: a language model is asked for one next token rather than "
                "another. Give both."
            )
        batch = self._call.read(list(texts), None, None)
        outputs = Outputs(self.network, self._call.tokenizers, batch, batch.attention_mask.sum(1) - 1)
        return [
            (
                single(outputs.ids_of(target, "target", row), "target"),
                single(outputs.ids_of(contrast, "contrast", row), "contrast"),
            )
            for row in range(len(texts))
        ]

    @property
    def names(self) -> list[str]:
        """Names of the classes; of a language model the tokens of both sides, or what they are where texts differ."""
        if not self.network.is_language_model:
            return [self.outputs.text_of((number,)) for number in range(self.outputs.size)]
        return [self.outputs.text_of((side,)) for side in self._sides[0]] if len({*self._sides}) == 1 else [*SIDES]

    def class_of(self, value: Any) -> int:
        """The number of a class, by id or name; of a side, by the name or token. TargetError: there is no such one."""
        if not self.network.is_language_model:
            return self.outputs.ids_of(value, "classes", 0)[0]
        for names in (SIDES, tuple(name.strip() for name in self.names)):
            if isinstance(value, str) and value.strip() in names:
                return names.index(value.strip())
        raise TargetError(f"{value!r} is no side of a language model; give 'target' or 'contrast', or their tokens.")

    def __call__(self, texts: Sequence[str], said: str, rows: Sequence[int] | None = None) -> Tensor:
        """Log-odds of each class, ``log p / (1 - p)`` under the softmax; with independent classes their logits.

        Shape: n texts -> (n, V), float64; (n, 2) of a language model. ``said`` stands beside the bar of progress;
        ``rows`` are the texts that these were made of, whose sides they have. Of several processes each computes a
        share, and all get the whole. InputError: a text that has no tokens.
        """
        state = launched()
        numbers = range(len(texts)) if rows is None else rows
        size = min(WINDOW, max(1, math.ceil(len(texts) / state.num_processes)))

        def own() -> dict[int, Tensor]:
            """This process's share of the windows, by where they start."""
            found = {}
            shown = self._progress and state.is_main_process
            with progress_bar(total=len(texts), desc=said, unit="text", shown=shown) as bar:
                for number, start in enumerate(range(0, len(texts), size)):
                    window = slice(start, start + size)
                    if number % state.num_processes == state.process_index:
                        found[start] = self._window(list(texts[window]), numbers[window])
                    bar.update(len(texts[window]))
            return found

        shares = [own()] if state.num_processes == 1 else gather_object([everywhere(own)])
        found = {start: scores for share in shares for start, scores in share.items()}
        nothing = torch.empty(0, len(self.names), dtype=torch.float64)
        return torch.cat([nothing, *(found[start] for start in sorted(found))])

    def _window(self, texts: list[str], numbers: Sequence[int]) -> Tensor:
        batch = self._call.read(texts, None, None)
        assert batch.input_ids is not None, "texts have ids"
        rows: list[Ids] = [
            tuple(ids[mask != 0].tolist()) for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
        ]
        if self.network.is_language_model:
            return self._between(rows, [self._sides[number] for number in numbers])
        by_row: dict[Ids, Tensor] = {}
        for same, logits in self._output.logits(rows):
            by_row.update(zip(same, logits if self._output.independent else log_odds(logits), strict=True))
        return torch.stack([by_row[row] for row in rows])

    def _between(self, rows: list[Ids], sides: Sequence[Side]) -> Tensor:
        """Target less contrast, and contrast less target, of inputs; of their logits no more is kept."""
        asked: dict[Ids, set[Side]] = {}
        for row, side in zip(rows, sides, strict=True):
            asked.setdefault(row, set()).add(side)
        found: dict[tuple[Ids, Side], Tensor] = {}
        for same, logits in self._output.logits(rows):
            for row, values in zip(same, logits, strict=True):
                found.update({(row, side): values[side[0]] - values[side[1]] for side in asked[row]})
        differences = torch.stack([found[row, side] for row, side in zip(rows, sides, strict=True)])
        return torch.stack([differences, -differences], 1)


def single(ids: tuple[int, ...], name: str) -> int:
    """The one token of a side. TargetError: there are several."""
    if len(ids) != 1:
        raise TargetError(
            f"{name} has {len(ids)} tokens, and an audit compares single ones. Give a continuation of one token."
        )
    return ids[0]


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
    own: bool = False
    """Whether the score of each is that of the class predicted for it, rather than of one class for all."""

    @property
    def decisions(self) -> Tensor:
        """The predicted class of each text. Shape: (n,)."""
        return self.log_odds.argmax(1)

    def most_predicted(self, rows: Sequence[int]) -> int | None:
        """The class predicted for most of some texts; None where each has its own."""
        return None if self.own else int(torch.bincount(self.decisions[list(rows)]).argmax())

    def score(self, log_odds: Tensor, rows: Sequence[int], target: int | None) -> Tensor:
        """The log-odds (n, V) of some texts, or of what they became, for the target or each one's own class."""
        places = list(rows)
        columns = self.decisions[places] if target is None else torch.full((len(places),), target)
        return log_odds.gather(1, columns[:, None])[:, 0]

    def deviation(self, target: int | None) -> float:
        """Return the standard deviation of the score over the texts. InputError: there is none."""
        every = range(len(self.texts))
        deviation = self.score(self.log_odds, every, target).std().item() if len(every) > 1 else 0.0
        if not deviation > 0:
            raise InputError(
                f"The score is the same on all {len(self.texts)} texts, so effects have no scale. Give more texts."
            )
        return deviation


def scored(
    scores: Scores,
    texts: Sequence[str],
    classes: Sequence[Any] | None,
    between: tuple[Any, Any] | None = None,
    sides: Sequence[Side] | None = None,
) -> Scored:
    """Score texts, whose classes are given by id or name, one a text, or are the predicted ones.

    A language model is asked for the first of ``between`` rather than the second behind every text, or for ``sides``.

    InputError: no texts, or something else. OptionError: another number of classes. TargetError: one that the model
    has not.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise InputError("Give a list of texts, none of them empty.")
    if classes is not None and len(classes) != len(texts):
        raise OptionError(f"classes has {len(classes)} entries for {len(texts)} texts; give one a text.")
    if between is not None:
        sides = scores.sides(texts, *between)
    if sides is not None:
        scores.take_sides(sides)
    found = scores(texts, "scores")
    if classes is None:
        return Scored(texts, found, found.argmax(1).tolist())
    return Scored(texts, found, [scores.class_of(value) for value in classes])
