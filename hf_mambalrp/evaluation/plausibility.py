"""Plausibility: does relevance agree with how people rate words?"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from string import punctuation
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hf_mambalrp.errors import InputError, MissingExtraError
from hf_mambalrp.evaluation.localisation import roc_auc
from hf_mambalrp.evaluation.statistics import interval, mean_with_interval, rank_correlation, resampled
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.runs.checks import check_confidence, whole_number

Words = list[tuple[str, float]]
"""Words of one example with their relevance."""
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


MEASURES = ("spearman", "sign_agreement", "rated_auc")
ELEMENTS = 2**22
"""Numbers that a tensor of resamples has at most: all words of some resamples at a time."""


@dataclass(frozen=True)
class Plausibility:
    """Agreement of relevance with human ratings, for every example and over the words of all."""

    examples: list[Agreement]
    pooled: Agreement
    intervals: dict[str, tuple[float, float] | None]
    """The bootstrap intervals of ``pooled`` over examples: a text's words are drawn together."""
    confidence: float
    """Mass of the intervals."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types: what is pooled, and the means over the examples, both with bootstrap intervals."""
        pooled: dict[str, Any] = asdict(self.pooled)
        for name, ends in self.intervals.items():
            low, high = ends or (None, None)
            pooled[name] = {"mean": pooled[name], "low": low, "high": high}
        values = {name: [getattr(each, name) for each in self.examples] for name in MEASURES}
        return {
            "pooled": pooled,
            "mean": {name: mean_with_interval(found, self.confidence) for name, found in values.items()},
            "examples": [asdict(each) for each in self.examples],
        }


def plausibility(
    explanations: Explanation | Iterable[Explanation],
    ratings: Mapping[str, Rating],
    *,
    positive: str = "positive",
    negative: str = "negative",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
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
        confidence: mass of the intervals.
        resamples: how often as many examples are drawn again.
        seed: of these draws.

    Raises:
        InputError: no explanation, or a target that is neither class.
        OptionError: a confidence or a number of resamples that is not allowed.
    """
    batches = [explanations] if isinstance(explanations, Explanation) else list(explanations)
    rows = [words_for(row, positive, negative) for batch in batches for row in batch]
    return plausibility_of_words(rows, ratings, confidence=confidence, resamples=resamples, seed=seed)


def plausibility_of_words(
    rows: Sequence[Words],
    ratings: Mapping[str, Rating],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Plausibility:
    """What :func:`plausibility` does, from what :func:`words_for` gives for every example; errors as there."""
    check_confidence(confidence)
    whole_number("resamples", resamples, 1)
    if not rows:
        raise InputError("There is no explanation to compare with ratings; give at least one.")
    each = [_agreement(_table(row, ratings)) for row in rows]
    table = _table([word for row in rows for word in row], ratings)
    counts = torch.tensor([len(row) for row in rows])
    intervals = _ends(table, counts, confidence, resamples, seed)
    return Plausibility(each, _agreement(table), intervals, confidence)


def words_for(ex: Explanation, positive: str = "positive", negative: str = "negative") -> Words:
    """Every word of a single row with its relevance for the positive class; errors as :func:`plausibility`."""
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


def _table(words: Words, ratings: Mapping[str, Rating]) -> Tensor:
    """Relevance and rating of every word, NaN for one that has none. Shape: (2, words)."""
    nowhere = Rating(math.nan, math.nan)
    columns = [(relevance, ratings.get(text, nowhere).mean) for text, relevance in words]
    return torch.tensor(columns, dtype=torch.float64).reshape(-1, 2).T


def _agreement(table: Tensor) -> Agreement:
    relevance, rating = table
    is_rated = ~rating.isnan()
    rated, rating = relevance[is_rated], rating[is_rated]
    return Agreement(
        words=len(relevance),
        rated=len(rated),
        spearman=rank_correlation(rated, rating) if len(rated) > 1 else None,
        sign_agreement=float((rated.sign() == rating.sign()).double().mean()) if len(rated) else None,
        rated_auc=_defined(roc_auc(relevance.abs(), is_rated)),
    )


def _ends(
    table: Tensor, counts: Tensor, confidence: float, resamples: int, seed: int
) -> dict[str, tuple[float, float] | None]:
    """The interval of every measure over the words of resampled examples, of ``counts`` words each."""
    of_word = torch.arange(len(counts)).repeat_interleave(counts)
    times = resampled(len(counts), resamples, seed).split(max(1, ELEMENTS // max(1, len(of_word))))
    parts = [_measures(table, some[:, of_word]) for some in times]
    ends: dict[str, tuple[float, float] | None] = {}
    for name, values in zip(MEASURES, torch.cat(parts).T, strict=True):
        known = values[~values.isnan()]
        ends[name] = tuple(interval(known, confidence).tolist()) if len(known) else None
    return ends


def _measures(table: Tensor, times: Tensor) -> Tensor:
    """The measures of :func:`_agreement` where every word stands there ``times`` (resamples, words) often.

    Of all resamples at once, NaN where one has none. Shape: (resamples, len(MEASURES)).
    """
    relevance, rating = table
    is_rated = ~rating.isnan()
    rated, others = times[:, is_rated], times[:, ~is_rated]
    number, number_of_others = rated.sum(1), others.sum(1)
    sizes = relevance.abs()
    below, tied = _weighed(sizes[is_rated], sizes[~is_rated], others)
    auc = (rated * (below + tied / 2)).sum(1) / (number * number_of_others)
    relevance, rating = relevance[is_rated], rating[is_rated]
    centred = []
    for values in (relevance, rating):
        below, tied = _weighed(values, values, rated)
        ranks = below + (tied + 1) / 2
        centred.append(ranks - (rated * ranks).sum(1, keepdim=True) / number[:, None])
    norms = torch.stack([(rated * each.square()).sum(1).sqrt() for each in centred])
    spearman = (rated * centred[0] * centred[1]).sum(1) / norms.prod(0)
    spearman = spearman.where((norms > 1e-9 * number).all(0), torch.nan)
    same_sign = rated @ (relevance.sign() == rating.sign()).double() / number
    return torch.stack([spearman, same_sign, auc], 1)


def _weighed(values: Tensor, among: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """How many of ``among``, each so many ``times`` (resamples, words), are below each value, and how many equal."""
    levels, which = torch.unique(torch.cat([values, among]), return_inverse=True)
    place, of_them = which.split([len(values), len(among)])
    level = times.new_zeros(len(times), len(levels)).index_add_(1, of_them, times)
    return (level.cumsum(1) - level)[:, place], level[:, place]


def _defined(value: Tensor) -> float | None:
    return None if bool(value.isnan()) else float(value)
