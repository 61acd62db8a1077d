"""Localisation: does relevance fall on the tokens that are known to determine the output?

The metrics rank the allowed positions of a row by their score. Ties count as if they were broken at random, on average:
constant scores are at chance. A row without both evidence and other positions has no metric, which is NaN.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.errors import InputError
from hf_mambalrp.evaluation.tasks import TaskBatch
from hf_mambalrp.runs.checks import check_sizes
from hf_mambalrp.runs.progress import patient_bar

METRICS = ("roc_auc", "average_precision", "recall_at_k", "hit")


def roc_auc(scores: Tensor, evidence: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Probability that an evidence position scores higher than another one, ties counting half.

    AUC = (sum of the evidence's midranks - P (P + 1) / 2) / (P N), P evidence and N other positions (Hanley and McNeil
    1982).

    Args:
        scores: (..., L).
        evidence: (..., L) bool.
        allowed: (..., L) bool, the positions that count; None is all.

    Returns:
        (...), float64.

    Raises:
        InputError: shapes differ, evidence is not boolean, or a score that counts is NaN.
    """
    scores, evidence, allowed = _checked(scores, evidence, allowed)
    below, tied = _counts(scores, allowed)
    midrank = below + (tied + 1) / 2
    positive, all_ = evidence.sum(-1).double(), allowed.sum(-1)
    other = all_ - positive
    area: Tensor = ((midrank * evidence).sum(-1) - positive * (positive + 1) / 2) / (positive * other)
    return area


def average_precision(scores: Tensor, evidence: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Mean over the evidence of the precision at its score: evidence among the positions that score at least as high.

    The step-wise area under the precision-recall curve; tied positions enter together. Arguments as :func:`roc_auc`.
    """
    scores, evidence, allowed = _checked(scores, evidence, allowed)
    below, _ = _counts(scores, allowed)
    below_evidence, _ = _counts(scores, evidence)
    all_, positive = allowed.sum(-1, keepdim=True), evidence.sum(-1, keepdim=True).double()
    # Positions that do not count may lie above all others, where nothing remains to divide by.
    precision = (positive - below_evidence) / (all_ - below).clamp(min=1)
    mean: Tensor = (precision * evidence).sum(-1) / positive[..., 0]
    return torch.where(positive[..., 0] < all_[..., 0], mean, torch.nan)


def recall_at_k(scores: Tensor, evidence: Tensor, allowed: Tensor | None = None, k: int | None = None) -> Tensor:
    """Share of the evidence among the k highest scores; k = None is the number of evidence positions of each row.

    Of positions tied around rank k each counts with the probability that it is among the k. Arguments as
    :func:`roc_auc`. OptionError: k below 1.
    """
    scores, evidence, allowed = _checked(scores, evidence, allowed)
    check_sizes(k=k)
    positive = evidence.sum(-1).double()
    found = (_among_highest(scores, allowed, positive if k is None else torch.full_like(positive, k)) * evidence).sum(
        -1
    )
    return torch.where(positive < allowed.sum(-1), found / positive, torch.nan)


def hit(scores: Tensor, evidence: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Whether the highest score is on evidence, or the share of evidence among several highest. See :func:`roc_auc`."""
    scores, evidence, allowed = _checked(scores, evidence, allowed)
    positive = evidence.sum(-1).double()
    found = (_among_highest(scores, allowed, torch.ones_like(positive)) * evidence).sum(-1)
    return torch.where((positive > 0) & (positive < allowed.sum(-1)), found, torch.nan)


@dataclass(frozen=True)
class Localisation:
    """Metrics of every output token, (n, T) float64, NaN where a row has no evidence or nothing else."""

    method: str
    absolute: bool
    roc_auc: Tensor
    average_precision: Tensor
    recall_at_k: Tensor
    """k is the number of evidence positions."""
    hit: Tensor
    distance: Tensor
    """(n, T) int64: columns from the last evidence to the explained position."""
    correct: Tensor
    """(n, T) bool: whether the model predicts the target; where it does not, there is no evidence that it used."""

    def mean(self, *, correct_only: bool = False) -> dict[str, float | None]:
        """Mean of each metric over output tokens; None where none has it."""
        return self._mean(self.correct if correct_only else torch.ones_like(self.correct))

    def by_distance(self, *, correct_only: bool = False) -> dict[int, dict[str, float | None]]:
        """Means over the output tokens of each distance, from the nearest on."""
        counted = self.correct if correct_only else torch.ones_like(self.correct)
        each = self.distance[counted].unique().tolist()
        return {distance: self._mean(counted & (self.distance == distance)) for distance in each}

    def _mean(self, chosen: Tensor) -> dict[str, float | None]:
        means = {}
        for name in METRICS:
            values = getattr(self, name)[chosen]
            values = values[~values.isnan()]
            means[name] = float(values.mean()) if len(values) else None
        return means

    def to_dict(self) -> dict[str, Any]:
        """Return means, means by distance and sample counts as plain JSON types."""
        return {
            "method": self.method,
            "absolute": self.absolute,
            "outputs": self.correct.numel(),
            "accuracy": float(self.correct.double().mean()),
            "mean": self.mean(),
            "by_distance": {str(distance): means for distance, means in self.by_distance().items()},
        }


def localise(
    model: Any,
    task: TaskBatch,
    *,
    method: str = "mambalrp",
    absolute: bool = False,
    method_options: Mapping[str, Any] | None = None,
    batch_tokens: int = 8192,
) -> Localisation:
    """Explain every output token of every sequence, and score its relevance against the evidence.

    An output token is explained as the logit of its target behind the tokens up to its position; later ones are not
    read, and only positions up to it are ranked.

    Args:
        model: an explainable language model.
        task: sequences, output positions, targets and evidence, for example of
            :mod:`hf_mambalrp.evaluation.tasks`.
        method: name of the method.
        absolute: rank by |R| instead of R.
        method_options: options of the method.
        batch_tokens: tokens that are explained together, at least one sequence.

    Raises:
        InputError: shapes that do not fit, or evidence behind the position that it is evidence for.
        OptionError: ``batch_tokens`` below 1.
        Errors of ``explain``.
    """
    check_sizes(batch_tokens=batch_tokens)
    ids, positions, targets, evidence = task.input_ids, task.positions, task.targets, task.evidence
    _check_task(ids, positions, targets, evidence)
    columns = torch.arange(ids.shape[1])
    allowed = columns <= positions[..., None]
    if bool((evidence & ~allowed).any()):
        row, output, column = (evidence & ~allowed).nonzero()[0].tolist()
        raise InputError(
            f"evidence is True at column {column} for output {output} of row {row}, whose position is "
            f"{int(positions[row, output])}: the model has not read it there. Evidence lies at or before the position."
        )
    scores, correct = torch.zeros(evidence.shape), torch.zeros(targets.shape, dtype=torch.bool)
    batches = torch.arange(len(ids)).split(max(batch_tokens // ids.shape[1], 1))
    asked = [(output, rows) for output in range(positions.shape[1]) for rows in batches]
    for output, rows in patient_bar(asked, "localisation", "batch"):
        end = int(positions[rows, output].max()) + 1
        read: dict[str, Any] = {
            "input_ids": ids[rows, :end],
            "attention_mask": allowed[rows, output, :end].long(),
            "position": positions[rows, output],
        }
        found = model.explain(**read, target=targets[rows, output], method=method, **(method_options or {}))
        scores[rows, output, :end] = found.relevance.abs() if absolute else found.relevance
        predicted = model.explain(**read, method="random").target
        correct[rows, output] = torch.tensor(predicted) == targets[rows, output]
    return Localisation(
        method=method,
        absolute=absolute,
        roc_auc=roc_auc(scores, evidence, allowed),
        average_precision=average_precision(scores, evidence, allowed),
        recall_at_k=recall_at_k(scores, evidence, allowed),
        hit=hit(scores, evidence, allowed),
        distance=positions - (columns * evidence).amax(-1),
        correct=correct,
    )


def _checked(scores: Tensor, evidence: Tensor, allowed: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Scores in float64, evidence among the allowed positions, and the allowed positions."""
    for name, mask in (("evidence", evidence), ("allowed", allowed)):
        if mask is not None and (mask.dtype != torch.bool or mask.shape != scores.shape):
            raise InputError(
                f"{name} has dtype {mask.dtype} and shape {tuple(mask.shape)}; it must be boolean and of the scores' "
                f"shape {tuple(scores.shape)}."
            )
    allowed = torch.ones_like(evidence) if allowed is None else allowed
    if bool(scores[allowed].isnan().any()):
        raise InputError("A score is NaN, so its rank is not defined. Give finite scores.")
    return scores.double(), evidence & allowed, allowed


def _counts(scores: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """How many of the positions ``among`` score lower than each position, and how many the same. Shape: (..., L)."""
    ordered = scores.masked_fill(~among, torch.inf).sort(-1).values
    scores = scores.contiguous()
    number = among.sum(-1, keepdim=True)
    below = torch.searchsorted(ordered, scores)
    through = torch.searchsorted(ordered, scores, right=True).minimum(number)
    return below.double(), (through - below).double()


def _among_highest(scores: Tensor, allowed: Tensor, k: Tensor) -> Tensor:
    """Probability that a position is among the k highest, ties broken at random. Shapes: (..., L), (...)."""
    below, tied = _counts(scores, allowed)
    above = allowed.sum(-1, keepdim=True) - below - tied
    return ((k[..., None] - above) / tied.clamp(min=1)).clamp(0, 1)


def _check_task(ids: Tensor, positions: Tensor, targets: Tensor, evidence: Tensor) -> None:
    shapes = [tuple(each.shape) for each in (ids, positions, targets, evidence)]
    fits = ids.ndim == positions.ndim == 2 and len(ids) == len(positions) and positions.shape == targets.shape
    if not fits or evidence.shape != (*positions.shape, ids.shape[-1]) or evidence.dtype != torch.bool:
        raise InputError(
            "Expected input_ids (n, L), positions (n, T), targets (n, T) and boolean evidence (n, T, L); got "
            f"{', '.join(map(str, shapes))}, evidence as {evidence.dtype}."
        )
