"""``delete_effect`` and ``swap_effect``: what the model's own answer does when words are not there, or are others."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hf_mambalrp.audit.scores import PREDICTED, Named, Scored, Scores, scored
from hf_mambalrp.audit.statistics import mean_over_classes
from hf_mambalrp.audit.wording import delete, normalised, places, runs_of, swap
from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.results.audit_parts import Effect, Pattern, named
from hf_mambalrp.runs.checks import check_confidence

HE_SHE = (
    ("he", "she"),
    ("his", "her"),
    ("him", "her"),
    ("himself", "herself"),
    ("he's", "she's"),
    ("he'd", "she'd"),
    ("he'll", "she'll"),
)
"""Words of two sides; of a word that is there twice, the first other one is taken: "her" becomes "his"."""


def delete_effect(
    model: Any,
    texts: Sequence[str],
    pattern: Pattern,
    *,
    target: int | str | None = None,
    contrast: int | str | None = None,
    classes: Sequence[int | str] | None = None,
    tokenizer: Any = None,
    confidence: float = 0.95,
    batch_tokens: int | None = None,
    progress: bool = True,
) -> Effect:
    """Delete some words from the texts that have them, and return what that does to the model's score.

    ``d_i = s(x_i) - s(x_i without the words)`` with ``s`` the log-odds of the target; the effect is the mean of the
    classes' means of d, in standard deviations of s over all texts, with a t test (Welch's between classes). What is
    left of a text keeps its form: spaces, punctuation, a capital at the beginning of a sentence; its grammar is not
    repaired. A text without other words is not compared.

    Args:
        model: an explainable classifier or language model, or one that ``make_explainable`` knows.
        texts: with the words and without; those without only count for the standard deviation.
        pattern: words in a row, such as ``"via mobile"``; a tuple of such is deleted from the texts that have all.
        target: the class whose log-odds are read; by default the one predicted for most of the texts with the words. Of
            a language model the next token, a text or an id.
        contrast: of a language model the token that it is compared with; the score is the difference of their logits.
        classes: of every text, by id or name, which weigh the same; by default the predicted ones. Of a language model
            "target" or "contrast", whichever is right.
        tokenizer: by default the one beside the model.
        confidence: of the interval.
        batch_tokens: tokens of one forward.
        progress: show bars.

    Raises:
        InputError: a pattern without words; no texts; fewer than two texts of every class that have it; a score that
            does not vary.
        OptionError: a ``confidence`` outside 0 to 1, another number of classes than texts, a classifier's ``contrast``.
        TargetError: a class that the model has not; of a language model one side is missing, or has several tokens.
        UnknownArchitectureError: a regression.
        MissingExtraError: scipy is not installed.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
        >>> from hf_mambalrp.audit import delete_effect
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> texts = ["A dull film.", "A dull and lifeless film.", "Dull, but warm.", "A lovely film."]
        >>> found = delete_effect(model, texts, "dull", target="negative", progress=False)
        >>> found.texts, found.effect > 0
        (3, True)
    """
    runs_of(pattern)
    check_confidence(confidence)
    scores = Scores("delete_effect", model, tokenizer, batch_tokens, progress)
    known, wanted = _asked(scores, texts, classes, target, contrast)
    change = deleted(known.texts, pattern)
    found = effect_of(scores, known, change, scores_of(scores, [change])[0], wanted, confidence)
    if found is None:
        raise InputError(
            f"Fewer than two texts of any class have {named(pattern)!r} beside other words; give more texts that do."
        )
    return found


def _asked(
    scores: Scores, texts: Sequence[str], classes: Sequence[Any] | None, target: Any, contrast: Any
) -> tuple[Scored, int | None]:
    """The texts with their scores, and the number of the class or side that is asked for."""
    if scores.network.is_language_model:
        return scored(scores, texts, classes, (target, contrast)), 0
    if contrast is not None:
        raise OptionError(f"contrast={contrast!r} is for language models; the score of a class is against all others.")
    wanted = None if target is None else scores.outputs.ids_of(target, "target", 0)[0]
    return scored(scores, texts, classes), wanted


class Changed(NamedTuple):
    """Texts in the place of others, by their numbers, and the sign of each difference of scores."""

    pattern: Pattern
    others: Mapping[int, str]
    signs: Mapping[int, float]


def deleted(texts: Sequence[str], pattern: Pattern, among: Sequence[int] | None = None) -> Changed:
    """The texts that have a pattern, or those ``among`` them, without it; a text of nothing else is left out."""
    runs = runs_of(pattern)
    left = {i: delete(texts[i], runs) for i in (range(len(texts)) if among is None else among)}
    others = {i: text for i, text in left.items() if text is not None}
    return Changed(pattern, others, dict.fromkeys(others, 1.0))


def swap_effect(
    model: Any,
    texts: Sequence[str],
    pairs: Sequence[tuple[str, str]] = HE_SHE,
    *,
    target: int | str | None = None,
    contrast: int | str | None = None,
    classes: Sequence[int | str] | None = None,
    tokenizer: Any = None,
    confidence: float = 0.95,
    batch_tokens: int | None = None,
    progress: bool = True,
) -> Effect:
    """Put the words of one side in the place of the other's, and return what that does to the model's score.

    ``d_i = s(x_i with the second side's words) - s(x_i with the first side's)``, whichever of the two x_i is; texts
    with words of both sides are not compared. Case is kept. A p-value alone says little, since every swap moves the
    score somewhat: compare the effect with that of other swaps.

    Args:
        model: an explainable classifier or language model, or one that ``make_explainable`` knows.
        texts: with the words and without, as for :func:`delete_effect`.
        pairs: words of the first side and of the second, ``HE_SHE`` by default.
        target: the class whose log-odds are read; by default the one predicted for most of the texts with the words. Of
            a language model the next token, a text or an id.
        contrast: of a language model the token that it is compared with; the score is the difference of their logits.
        classes: of every text, by id or name, which weigh the same; by default the predicted ones. Of a language model
            "target" or "contrast", whichever is right.
        tokenizer: by default the one beside the model.
        confidence: of the interval.
        batch_tokens: tokens of one forward.
        progress: show bars.

    Raises:
        InputError: as :func:`delete_effect`, or pairs that are none.
        OptionError, TargetError, UnknownArchitectureError, MissingExtraError: as :func:`delete_effect`.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
        >>> from hf_mambalrp.audit import swap_effect
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> texts = ["He is a dull lead.", "His film is dull.", "She is wonderful.", "A lovely film."]
        >>> found = swap_effect(model, texts, target="negative", classes=["negative"] * 4, progress=False)
        >>> found.texts, found.name
        (3, 'he + she')
    """
    sides = both_sides(pairs)
    check_confidence(confidence)
    scores = Scores("swap_effect", model, tokenizer, batch_tokens, progress)
    known, wanted = _asked(scores, texts, classes, target, contrast)
    change = swapped(known.texts, sides)
    found = effect_of(scores, known, change, scores_of(scores, [change])[0], wanted, confidence)
    if found is None:
        raise InputError(
            f"Fewer than two texts of any class have words of one side of {list(pairs)}; give more texts that do."
        )
    return found


Sides = tuple[Mapping[str, str], Mapping[str, str]]
"""What becomes of the words of the first side, and of the second."""


def both_sides(pairs: Sequence[tuple[str, str]]) -> Sides:
    """The words of each side with those of the other. InputError: pairs that are no pairs of single words."""
    forth: dict[str, str] = {}
    back: dict[str, str] = {}
    for pair in pairs:
        is_pair = isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(word, str) for word in pair)
        if not is_pair or any(len(places(word)) != 1 for word in pair) or normalised(pair[0]) == normalised(pair[1]):
            raise InputError(f"{pair!r} is no pair of two single words; give such as ('he', 'she').")
        forth.setdefault(normalised(pair[0]), pair[1])
        back.setdefault(normalised(pair[1]), pair[0])
    if not forth or forth.keys() & back.keys():
        raise InputError(f"pairs={list(pairs)!r}: give at least one pair, and no word on both sides.")
    return forth, back


def swapped(texts: Sequence[str], sides: Sides, among: Sequence[int] | None = None) -> Changed:
    """The texts that have words of one side, or those ``among`` them, with the other side's."""
    forth, back = sides
    others: dict[int, str] = {}
    signs: dict[int, float] = {}
    for i in range(len(texts)) if among is None else among:
        words = {place.word for place in places(texts[i])}
        has_first, has_second = not words.isdisjoint(forth), not words.isdisjoint(back)
        if has_first != has_second:
            others[i] = swap(texts[i], forth if has_first else back)
            signs[i] = -1.0 if has_first else 1.0
    return Changed((next(iter(forth)), next(iter(back))), others, signs)


def scores_of(scores: Scores, changes: Sequence[Changed]) -> list[Tensor]:
    """Log-odds of the changed texts of every change; texts of one length share a forward, whatever was changed."""
    rows = [row for change in changes for row in change.others]
    after = scores([text for change in changes for text in change.others.values()], "changed texts", rows)
    return list(torch.split(after, [len(change.others) for change in changes]))


def effect_of(
    scores: Named,
    texts: Scored,
    change: Changed,
    after: Tensor,
    target: int | None,
    confidence: float,
    among: Collection[int] | None = None,
) -> Effect | None:
    """The effect of a change on texts that are scored, or on those ``among`` them; None where too few of a class are.

    ``after`` are the scores of the changed texts; without a target it is the class predicted for most of the texts.
    """
    counted = [place for place, row in enumerate(change.others) if among is None or row in among]
    if not counted:
        return None
    numbers = [*change.others]
    rows = [numbers[place] for place in counted]
    before, after = texts.log_odds[rows], after[counted]
    decided, now = before.argmax(1), after.argmax(1)
    if target is None:
        target = texts.most_predicted(rows)
    deviation = texts.deviation(target)
    sign = torch.tensor([change.signs[row] for row in rows], dtype=torch.float64)
    differences = (texts.score(before, rows, target) - texts.score(after, rows, target)) * sign / deviation
    mean = mean_over_classes(differences.tolist(), [texts.classes[row] for row in rows], confidence)
    if mean is None:
        return None
    names = scores.names
    return Effect(
        pattern=change.pattern,
        target=PREDICTED if target is None else names[target],
        texts=len(rows),
        effect=mean.mean,
        low=mean.low,
        high=mean.high,
        p=mean.p,
        by_class={names[int(name)]: of for name, of in sorted(mean.of.items())},  # type: ignore[call-overload]
        changed=int((decided != now).sum()),
        deviation=deviation,
    )
