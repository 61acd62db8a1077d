"""The texts of an audit by a column of the data: errors, scores, and what is relied on in each group."""

from collections.abc import Sequence
from typing import Any

from hf_mambalrp.audit.effects import effect_of
from hf_mambalrp.audit.scores import PREDICTED, Named, Scored
from hf_mambalrp.audit.statistics import mean_over_classes, share
from hf_mambalrp.results.audit_parts import Group


def groups_of(
    scores: Named,
    texts: Scored,
    values: Sequence[str],
    labelled: bool,
    relied: Sequence[Sequence[Any]],
    confidence: float,
    min_texts: int,
) -> tuple[tuple[Group, ...], tuple[str, ...]]:
    """Return the groups, the largest first, and the values that fewer than ``min_texts`` texts have.

    Args:
        scores: what names the model's classes.
        texts: scored.
        values: of the column, one a text.
        labelled: whether the texts' classes are their labels, so that there are errors.
        relied: of each confirmed candidate its :class:`Effect`, the :class:`Changed` texts and their scores.
        confidence: of the intervals.
        min_texts: of a group.
    """
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        rows.setdefault(value, []).append(row)
    decided = texts.decisions
    target = texts.most_predicted(range(len(values)))
    names = scores.names
    found, few = [], []
    for value, own in sorted(rows.items(), key=lambda item: (-len(item[1]), item[0])):
        score = texts.score(texts.log_odds[own], own, target)
        mean = mean_over_classes(score.tolist(), [None] * len(own), confidence)
        if len(own) < min_texts or mean is None:
            few.append(value)
            continue
        wrong = sum(texts.classes[row] != decision for row, decision in zip(own, decided[own].tolist(), strict=True))
        low, high = share(wrong, len(own), confidence) if labelled else (None, None)
        effects = (
            effect_of(scores, texts, change, after, None if texts.own else names.index(effect.target), confidence, own)
            for effect, change, after in relied
        )
        found.append(
            Group(
                value=value,
                texts=len(own),
                errors=wrong if labelled else None,
                error_low=low,
                error_high=high,
                target=PREDICTED if target is None else names[target],
                score=mean.mean,
                low=mean.low,
                high=mean.high,
                relied=tuple(effect for effect in effects if effect is not None),
            )
        )
    return tuple(found), tuple(few)
