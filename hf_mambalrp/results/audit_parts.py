"""What an audit finds: effects of words, and where relevance is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

Pattern = str | tuple[str, ...]
"""Words in a row, ``"via mobile"``; or a tuple of such, which occur in one text wherever they stand in it."""


def named(pattern: Pattern) -> str:
    """Return a pattern as it is called in what a person reads: the parts of a pair with a plus between them."""
    return pattern if isinstance(pattern, str) else " + ".join(pattern)


@dataclass(frozen=True)
class Effect:
    """How much a change of words moves the score, in standard deviations of the score over the texts given.

    The score is the log-odds of ``target`` against the other classes, by the model's own forward.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
        >>> from hf_mambalrp.audit import delete_effect
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> texts = ["A dull film.", "A dull and lifeless film.", "Dull, but warm.", "A lovely film."]
        >>> found = delete_effect(model, texts, "dull", target="negative", progress=False)
        >>> found.name, found.target, found.low < found.effect < found.high
        ('dull', 'negative', True)
    """

    pattern: Pattern
    """What was deleted; of a swap the two sides."""
    target: str
    """The class whose log-odds are the score."""
    texts: int
    """Texts that were changed and compared."""
    effect: float
    """Mean of the paired differences, the classes weighing the same: the score with the words less that without."""
    low: float
    high: float
    p: float
    """Of the t test that the effect is 0."""
    by_class: Mapping[str, tuple[int, float]]
    """Texts and mean difference of every class that counts: of a single text there is no variance."""
    changed: int
    """Texts whose predicted class changed."""
    deviation: float
    """The standard deviation of the score, in logits."""

    @property
    def name(self) -> str:
        """The pattern in words."""
        return named(self.pattern)


class Candidate(NamedTuple):
    """Words with much relevance, and what deleting them does.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL
        >>> from hf_mambalrp.audit import Audit
        >>> found = Audit.load(f"{DEMO_MODEL}/audit.json")
        >>> [(one.found.name, one.confirmed) for one in found.candidates][:3]
        [('.', False), ('too', True), ('bad', False)]
    """

    share: float
    """As in :class:`WordRow`."""
    mean: float
    found: Effect
    q: float
    """Of Benjamini and Hochberg over all candidates."""
    confirmed: bool
    """q < .05, and |effect| of at least ``min_effect``."""


class Swap(NamedTuple):
    """Words of two sides, what putting one in the place of the other does, and what swaps of other words do.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL
        >>> from hf_mambalrp.audit import Audit
        >>> found = Audit.load(f"{DEMO_MODEL}/audit.json")
        >>> one = found.swaps[0]
        >>> one.found.name, len(one.controls), one.confirmed
        ('he + she', 10, False)
    """

    found: Effect
    q: float
    """Of Benjamini and Hochberg over all swaps."""
    controls: tuple[tuple[str, float], ...]
    """Pairs of words of like frequency, and the effect of swapping each."""
    confirmed: bool
    """q < .05, |effect| of at least ``min_effect``, and larger than that of every control."""


class Change(NamedTuple):
    """A word whose share of |relevance| differs between two models; ``change = share - before``.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
        >>> from hf_mambalrp.audit import compare
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> one, other = (model.explain("A dull film.", method=name) for name in ("mambalrp", "gradient_x_input"))
        >>> first = compare(one, other, progress=False)[0]
        >>> first.change == first.share - first.before
        True
    """

    word: str
    texts: int
    share: float
    before: float
    change: float


class Positions(NamedTuple):
    """Where the relevance is, means over the texts.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL
        >>> from hf_mambalrp.audit import Audit
        >>> found = Audit.load(f"{DEMO_MODEL}/audit.json")
        >>> f"{found.positions.last_word:.0%} at the last word"
        '26% at the last word'
    """

    last_word: float
    """Share of |relevance| of the last word, at which the answer is read."""
    last_words: float
    """Of the last 5 % of the words."""
    distances: tuple[int, int, int]
    """Quartiles of the distance, in tokens, of each text's ten most relevant tokens from the one that is read."""


class Group(NamedTuple):
    """The texts with one value of a column: errors, scores, and what the model relies on in them.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
        >>> from hf_mambalrp.audit import audit
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> reviews = f"{DEMO_MODEL}/reviews.jsonl"
        >>> found = audit(model, reviews, label="label", groups="predicted", min_texts=5, progress=False)
        >>> [(one.value, one.texts, one.errors) for one in found.groups]
        [...]
    """

    value: str
    texts: int
    errors: int | None
    """Texts whose predicted class is not their label; None without labels."""
    error_low: float | None
    """Wilson's interval of the share of errors."""
    error_high: float | None
    target: str
    """The class that most texts of the corpus are predicted as."""
    score: float
    """Mean log-odds of it, in logits."""
    low: float
    """Its interval by Student's t."""
    high: float
    relied: tuple[Effect, ...]
    """Of deleting each confirmed candidate from these texts; those that too few of them have are left out."""
