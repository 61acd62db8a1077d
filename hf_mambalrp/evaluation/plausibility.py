"""Plausibility: does relevance agree with how people rate words?"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from string import punctuation
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hf_mambalrp.errors import InputError, MissingExtraError
from hf_mambalrp.evaluation.localisation import roc_auc
from hf_mambalrp.evaluation.statistics import rank_agreement
from hf_mambalrp.results.explanation import Explanation

STRIPPED = punctuation + "–—…‘’“”«»"
"""Taken from both ends of a word."""


class Rating(NamedTuple):
    """How people rate a word, from -4, most negative, to 4, most positive."""

    mean: float
    std: float
    """Over the people who rated it."""


def vader_ratings() -> dict[str, Rating]:
    """Return the sentiment lexicon of VADER (Hutto and Gilbert 2014): word, in lower case, to the rating by ten people.

    It is read from the installed package vaderSentiment, which is not imported.

    Raises:
        MissingExtraError: the package is not installed.
    """
    found = find_spec("vaderSentiment")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(
            "vader_ratings needs the lexicon of vaderSentiment: pip install 'hf_mambalrp[evaluation]'"
        )
    lexicon = Path(next(iter(found.submodule_search_locations))) / "vader_lexicon.txt"
    lines = (line.split("\t") for line in lexicon.read_text(encoding="utf-8").splitlines())
    return {fields[0]: Rating(float(fields[1]), float(fields[2])) for fields in lines if len(fields) >= 3}


@dataclass(frozen=True)
class Agreement:
    """Agreement of relevance with ratings over some words; None where it is not defined."""

    words: int
    rated: int
    spearman: float | None
    """Rank correlation of relevance and rating over the rated words."""
    sign_agreement: float | None
    """Share of the rated words whose relevance has the sign of the rating."""
    rated_auc: float | None
    """Probability that a rated word has a larger |R| than another word, ties counting half."""


@dataclass(frozen=True)
class Plausibility:
    """Agreement of relevance with human ratings, for every example and over the words of all."""

    examples: list[Agreement]
    pooled: Agreement

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types, with the mean over the examples where it is defined."""
        means: dict[str, float | None] = {}
        for name in ("spearman", "sign_agreement", "rated_auc"):
            values = [value for each in self.examples if (value := getattr(each, name)) is not None]
            means[name] = sum(values) / len(values) if values else None
        return {"pooled": asdict(self.pooled), "mean": means, "examples": [asdict(each) for each in self.examples]}


def plausibility(
    explanations: Explanation | Iterable[Explanation],
    ratings: Mapping[str, Rating],
    *,
    positive: str = "positive",
    negative: str = "negative",
) -> Plausibility:
    """Compare the relevance of words with how people rate them.

    Relevance is taken as evidence for the positive class: with its sign turned where the negative class was explained.
    Words are those of ``Explanation.words()`` in lower case and without punctuation at their ends; special tokens and
    punctuation by itself are no words. Pooling takes relevances in logits as they are.

    Args:
        explanations: of a sentiment classifier; one, or several.
        ratings: word to rating, such as :func:`vader_ratings`.
        positive: ``target_text`` of the positive class.
        negative: ``target_text`` of the negative class.

    Raises:
        InputError: no explanation, or a target that is neither class.
    """
    batches = [explanations] if isinstance(explanations, Explanation) else list(explanations)
    rows = [_words(row, positive, negative) for batch in batches for row in batch]
    if not rows:
        raise InputError("There is no explanation to compare with ratings; give at least one.")
    return Plausibility(
        [_agreement(row, ratings) for row in rows], _agreement([w for row in rows for w in row], ratings)
    )


def _words(ex: Explanation, positive: str, negative: str) -> list[tuple[str, float]]:
    """Every word of a single row with its relevance for the positive class."""
    (target,) = ex.target_text
    if target not in (positive, negative):
        raise InputError(
            f"The explained target is {target!r}; give explanations of {positive!r} or {negative!r}, or name the "
            "classes by positive=... and negative=...."
        )
    sign = 1.0 if target == positive else -1.0
    special = ex.special_tokens_mask
    words = []
    for word in ex.words():
        text = word.text.lower().strip(STRIPPED)
        if text and word.tokens and not (special is not None and bool(special[0, list(word.tokens)].all())):
            words.append((text, sign * word.relevance))
    return words


def _agreement(words: list[tuple[str, float]], ratings: Mapping[str, Rating]) -> Agreement:
    relevance = torch.tensor([value for _, value in words], dtype=torch.float64)
    is_rated = torch.tensor([text in ratings for text, _ in words], dtype=torch.bool)
    rating = torch.tensor([ratings[text].mean for text, _ in words if text in ratings], dtype=torch.float64)
    rated = relevance[is_rated]
    return Agreement(
        words=len(words),
        rated=len(rating),
        spearman=_defined(rank_agreement([torch.stack([rated, rating])])[0, 1]) if len(rating) > 1 else None,
        sign_agreement=float((rated.sign() == rating.sign()).double().mean()) if len(rating) else None,
        rated_auc=_defined(roc_auc(relevance.abs(), is_rated)),
    )


def _defined(value: Tensor) -> float | None:
    return None if bool(value.isnan()) else float(value)
