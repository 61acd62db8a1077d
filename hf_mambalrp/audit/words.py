"""``words_table`` and ``compare``: which words have the relevance over a corpus, and what another model changed."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from typing import Generic, NamedTuple, TypeVar

from hf_mambalrp.audit.corpus import Source, TextWords, explained_texts, read_again
from hf_mambalrp.audit.wording import Run, occurrences
from hf_mambalrp.errors import InputError
from hf_mambalrp.results.audit_parts import Change, Pattern
from hf_mambalrp.runs.checks import whole_number

PAIRED = 50
"""Pairs are looked for among so many words, those with the largest shares."""
TOGETHER = 0.5
"""Words occur together where the texts with all of them are at least this part of the texts with any of them."""
LIFT = 1.5
"""And, of a pair, where they meet so many times as often as they would by chance."""


class WordRow(NamedTuple):
    """A word, a run of words or a pair, with its relevance over a corpus.

    The relevance of a text speaks for what that text's explanation was of.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
        >>> from hf_mambalrp.audit import words_table
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> first = words_table(model.explain(["A dull film.", "Dull."]), progress=False)[0]
        >>> first.pattern, first.texts, first.mean == first.total / first.texts
        ('dull', 2, True)
    """

    pattern: Pattern
    texts: int
    """How many texts have it."""
    mean: float
    """Mean over these texts of its relevance, summed within a text."""
    total: float
    """Sum of its relevance over all texts."""
    share: float
    """Mean over all texts of its |relevance| as a part of the text's sum of |relevance|; 0 where a text lacks it."""


P = TypeVar("P", bound=Pattern)


class _Sums(Generic[P]):
    """Texts, relevance and shares by pattern."""

    def __init__(self) -> None:
        self.texts: Counter[P] = Counter()
        self.total: dict[P, float] = defaultdict(float)
        self.share: dict[P, float] = defaultdict(float)

    def add(self, pattern: P, relevance: float, size: float, total: float) -> None:
        self.texts[pattern] += 1
        self.total[pattern] += relevance
        self.share[pattern] += size / total if total else 0.0

    def row(self, pattern: P, count: int) -> WordRow:
        texts, total = self.texts[pattern], self.total[pattern]
        return WordRow(pattern, texts, total / texts, total, self.share[pattern] / count)


def words_table(
    explanations: Source, *, ngrams: int = 1, pairs: bool = False, min_texts: int = 1, progress: bool = True
) -> list[WordRow]:
    """Return the words of a corpus with their relevance, those with the largest share of |relevance| first.

    Words are compared without case; punctuation is words too. Runs and pairs of words with letters are there if their
    words occur together: the texts with all of them are at least half of the texts with any of them; and pairs, if they
    meet 1.5 times as often as by chance, among the 50 words with the largest shares, unless they are a run.
    Explanations are read once, and again for runs and pairs; what stays in memory grows with the vocabulary, not with
    the texts.

    A high mean relevance is no finding: the word at which the answer is read carries the verdict whatever it is.
    :func:`delete_effect` asks the model.

    Args:
        explanations: the folder of ``explain_dataset`` or a dataset repository; or explanations of texts.
        ngrams: the longest run of words.
        pairs: whether pairs are looked for.
        min_texts: what fewer texts have is left out.
        progress: show a bar.

    Raises:
        InputError: no explanations, or of something else than texts.
        OptionError: ``ngrams`` or ``min_texts`` below 1.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
        >>> from hf_mambalrp.audit import words_table
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> found = words_table(model.explain(["A dull film.", "A dull and lifeless film."]), progress=False)
        >>> [(row.pattern, row.texts, round(row.share, 2)) for row in found[:2]]
        [('dull', 2, 0.38), ('.', 2, 0.36)]
    """
    whole_number("ngrams", ngrams, 1)
    whole_number("min_texts", min_texts, 1)
    source = read_again(explanations)
    sums, count = _Sums[str](), 0
    for text in explained_texts(source, progress, "words"):
        count += 1
        for word, (relevance, size) in _by_word(text).items():
            sums.add(word, relevance, size, text.size)
    words = [word for word in sums.texts if sums.texts[word] >= min_texts]
    words.sort(key=lambda word: (-sums.share[word], word))
    found = [sums.row(word, count) for word in words]
    if ngrams > 1 or pairs:
        paired = set([*filter(_has_letters, words)][:PAIRED]) if pairs else set()
        found += _together(source, sums.texts, ngrams, paired, min_texts, count, progress)
    return sorted(found, key=lambda row: (-row.share, isinstance(row.pattern, tuple), row.pattern))


def _by_word(text: TextWords) -> dict[str, tuple[float, float]]:
    """The relevance and |relevance| of each word of a text, summed over where it stands."""
    found: dict[str, tuple[float, float]] = {}
    for word, relevance in zip(text.words, text.relevance, strict=True):
        before = found.get(word, (0.0, 0.0))
        found[word] = before[0] + relevance, before[1] + abs(relevance)
    return found


def _together(
    source: Source, texts: Counter[str], ngrams: int, paired: set[str], min_texts: int, count: int, progress: bool
) -> Iterator[WordRow]:
    """Runs and pairs of words that occur together."""
    runs, pairs = _Sums[Run](), _Sums[tuple[str, str]]()
    for text in explained_texts(source, progress, "runs and pairs"):
        words = _by_word(text)
        for run in {*_runs(text.words, ngrams, texts, min_texts)}:
            starts = [start + i for start in occurrences(text.words, run) for i in range(len(run))]
            values = [text.relevance[place] for place in starts]
            runs.add(run, sum(values), sum(map(abs, values)), text.size)
        for pair in combinations(sorted(paired & words.keys()), 2):
            (a, a_size), (b, b_size) = words[pair[0]], words[pair[1]]
            pairs.add(pair, a + b, a_size + b_size, text.size)
    shown: set[Pattern] = set()
    for run in runs.texts:
        # At least as many texts have any of the words as have the most frequent one.
        if runs.texts[run] >= max(min_texts, TOGETHER * max(texts[word] for word in run)):
            shown.add(tuple(sorted(run)))
            yield runs.row(run, count)._replace(pattern=" ".join(run))
    for pair, both in pairs.texts.items():
        a, b = texts[pair[0]], texts[pair[1]]
        meet = both >= TOGETHER * (a + b - both) and both * count >= LIFT * a * b
        if both >= min_texts and meet and pair not in shown:
            yield pairs.row(pair, count)


def _runs(words: list[str], longest: int, texts: Counter[str], min_texts: int) -> Iterator[Run]:
    """Runs of two to ``longest`` words that may occur together; those with unlike frequencies do not."""
    for size in range(2, longest + 1):
        for start in range(len(words) - size + 1):
            run = tuple(words[start : start + size])
            frequencies = [texts[word] for word in run]
            is_frequent = min(frequencies) >= max(min_texts, TOGETHER * max(frequencies))
            if is_frequent and all(map(_has_letters, run)):
                yield run


def _has_letters(word: str) -> bool:
    """Whether it is a word or number, not punctuation."""
    return any(map(str.isalnum, word))


def compare(explanations: Source, base: Source, *, min_texts: int = 1, progress: bool = True) -> list[Change]:
    """Return what became of the share of |relevance| of each word between two models, the largest rise first.

    Of a model and of the one that it was fine-tuned from, over the same texts in the same order: a shortcut that was
    learned in between is among the words that rise. Shares are those of :func:`words_table`.

    Args:
        explanations: of the model, as :func:`words_table` takes them.
        base: of the other model.
        min_texts: words that fewer texts have are left out.
        progress: show a bar.

    Raises:
        InputError: as :func:`words_table`; or the texts are not the same.
        OptionError: ``min_texts`` below 1.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
        >>> from hf_mambalrp.audit import compare
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> mambalrp = model.explain("A dull film.")
        >>> other = model.explain("A dull film.", method="gradient_x_input")
        >>> [change.word for change in compare(mambalrp, other, progress=False)]
        ['.', ...]
    """
    whole_number("min_texts", min_texts, 1)
    sums, before, count = _Sums[str](), _Sums[str](), 0
    ours = explained_texts(read_again(explanations), progress, "compare")
    theirs = explained_texts(read_again(base), False, "")
    while True:
        one, other = next(ours, None), next(theirs, None)
        if one is None and other is None:
            break
        if one is None or other is None or one.text != other.text:
            raise InputError(
                f"The texts differ at number {count}: both models must have explained the same texts in the same "
                "order. Explain the same dataset by both."
            )
        count += 1
        for into, text in ((sums, one), (before, other)):
            for word, (relevance, size) in _by_word(text).items():
                into.add(word, relevance, size, text.size)
    changes = []
    for word in {**sums.texts, **before.texts}:
        texts, share = max(sums.texts[word], before.texts[word]), sums.share[word] / count
        if texts >= min_texts:
            old = before.share[word] / count
            changes.append(Change(word, texts, share, old, share - old))
    return sorted(changes, key=lambda change: (-change.change, change.word))
