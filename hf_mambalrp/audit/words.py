"""``words_table`` and ``compare``: which words have the relevance over a corpus, and what another model changed."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, Generic, NamedTuple, TypeVar

from hf_mambalrp.audit.corpus import Source, TextWords, column_of, explained_texts, read_again
from hf_mambalrp.audit.wording import Run, occurrences
from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.results.audit_parts import Change, Pattern
from hf_mambalrp.runs.checks import whole_number

PAIRED = 50
"""Pairs are looked for among so many words, those with the largest shares."""
TOGETHER = 0.5
"""Words occur together where the texts with all of them are at least this part of the texts with any of them."""
LIFT = 1.5
"""And, of a pair, where they meet so many times as often as they would by chance."""


WHOLE = 0.9
"""A part of a run that so many of its texts have in the run is no candidate of its own: without it the rest is torn."""


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
    columns: tuple[Any, ...] = ()
    """Values of the columns that the texts were told apart by: of those texts are the numbers."""


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

    def row(self, pattern: P, count: int, columns: tuple[Any, ...] = ()) -> WordRow:
        texts, total = self.texts[pattern], self.total[pattern]
        return WordRow(pattern, texts, total / texts, total, self.share[pattern] / count, columns)


class _Table:
    """Words, runs and pairs of the texts that have the same values in some columns."""

    def __init__(self, columns: tuple[Any, ...]) -> None:
        self.columns, self.count = columns, 0
        self.words, self.runs, self.pairs = _Sums[str](), _Sums[Run](), _Sums[tuple[str, str]]()
        self.paired: set[str] = set()

    def add(self, text: TextWords) -> None:
        self.count += 1
        for word, (relevance, size) in _by_word(text).items():
            self.words.add(word, relevance, size, text.size)

    def frequent(self, min_texts: int) -> list[str]:
        """Words that enough texts have, those with the largest shares first."""
        words = [word for word in self.words.texts if self.words.texts[word] >= min_texts]
        return sorted(words, key=lambda word: (-self.words.share[word], word))

    def add_together(self, text: TextWords, ngrams: int, min_texts: int) -> None:
        """Add the runs of a text, and its pairs of words among those ``paired``."""
        words = _by_word(text)
        for run in {*_runs(text.words, ngrams, self.words.texts, min_texts)}:
            starts = [start + i for start in occurrences(text.words, run) for i in range(len(run))]
            values = [text.relevance[place] for place in starts]
            self.runs.add(run, sum(values), sum(map(abs, values)), text.size)
        for pair in combinations(sorted(self.paired & words.keys()), 2):
            (a, a_size), (b, b_size) = words[pair[0]], words[pair[1]]
            self.pairs.add(pair, a + b, a_size + b_size, text.size)

    def rows(self, min_texts: int) -> Iterator[WordRow]:
        """Words, and what of runs and pairs occurs together."""
        texts, shown = self.words.texts, set[Pattern]()
        for word in self.frequent(min_texts):
            yield self.words.row(word, self.count, self.columns)
        for run in self.runs.texts:
            # At least as many texts have any of the words as have the most frequent one.
            if self.runs.texts[run] >= max(min_texts, TOGETHER * max(texts[word] for word in run)):
                shown.add(tuple(sorted(run)))
                yield self.runs.row(run, self.count, self.columns)._replace(pattern=" ".join(run))
        for pair, both in self.pairs.texts.items():
            a, b = texts[pair[0]], texts[pair[1]]
            meet = both >= TOGETHER * (a + b - both) and both * self.count >= LIFT * a * b
            if both >= min_texts and meet and pair not in shown:
                yield self.pairs.row(pair, self.count, self.columns)


class WordTables:
    """Tables of the texts by what they have in some columns; :func:`words_table` documents the arguments."""

    def __init__(self, columns: Sequence[str], ngrams: int, pairs: bool, min_texts: int) -> None:
        self._columns, self._ngrams, self._pairs, self._min_texts = columns, ngrams, pairs, min_texts
        self._tables: dict[str, _Table] = {}

    def add(self, text: TextWords) -> None:
        """Add the words of a text."""
        values = self._values(text)
        self._tables.setdefault(repr(values), _Table(values)).add(text)  # a list or a mapping of JSON has no hash

    def rows(self, source: Source, progress: bool) -> list[WordRow]:
        """Return the rows, the largest share first, when every text was added; for runs and pairs it is read again."""
        if self._ngrams > 1 or self._pairs:
            for table in self._tables.values():
                frequent = filter(_has_letters, table.frequent(self._min_texts))
                table.paired = {*[*frequent][:PAIRED]} if self._pairs else set()
            for text in explained_texts(source, progress, "runs and pairs"):
                self._tables[repr(self._values(text))].add_together(text, self._ngrams, self._min_texts)
        found = [row for table in self._tables.values() for row in table.rows(self._min_texts)]
        return sorted(
            found,
            key=lambda row: (-row.share, isinstance(row.pattern, tuple), row.pattern, list(map(str, row.columns))),
        )

    def _values(self, text: TextWords) -> tuple[Any, ...]:
        return tuple(column_of(text.explanation, name) for name in self._columns)


def words_table(
    explanations: Source,
    *,
    columns: Sequence[str] = (),
    ngrams: int = 1,
    pairs: bool = False,
    min_texts: int = 1,
    progress: bool = True,
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
        columns: of the data, which travelled with the explanations; texts with other values in them are told apart, and
            every row is of one combination, ``WordRow.columns``.
        ngrams: the longest run of words.
        pairs: whether pairs are looked for.
        min_texts: what fewer texts have is left out.
        progress: show a bar.

    Raises:
        InputError: no explanations, or of something else than texts; a text without one of the columns.
        OptionError: ``ngrams`` or ``min_texts`` below 1; ``columns`` that are no list of names.

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
    if isinstance(columns, str) or not all(isinstance(name, str) for name in columns):
        raise OptionError(f"columns={columns!r} is not allowed; give a list of names.")
    source = read_again(explanations)
    tables = WordTables(columns, ngrams, pairs, min_texts)
    for text in explained_texts(source, progress, "words"):
        tables.add(text)
    return tables.rows(source, progress)


def whole(rows: Sequence[WordRow]) -> list[WordRow]:
    """Leave out words and runs that hardly occur but in a longer run that is there: "via" where "via mobile" is."""
    texts = {row.pattern: row.texts for row in rows}
    parts = set()
    for row in rows:
        words = row.pattern.split(" ") if isinstance(row.pattern, str) else []
        for start, end in combinations(range(len(words) + 1), 2):
            part = " ".join(words[start:end])
            if end - start < len(words) and row.texts >= WHOLE * texts.get(part, math.inf):
                parts.add(part)
    return [row for row in rows if row.pattern not in parts]


def _by_word(text: TextWords) -> dict[str, tuple[float, float]]:
    """The relevance and |relevance| of each word of a text, summed over where it stands."""
    found: dict[str, tuple[float, float]] = {}
    for word, relevance in zip(text.words, text.relevance, strict=True):
        before = found.get(word, (0.0, 0.0))
        found[word] = before[0] + relevance, before[1] + abs(relevance)
    return found


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
    learned in between is among the words that rise. Shares are those of :func:`words_table`. Two explanations of
    one text are set side by side by :func:`hf_mambalrp.compare`.

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
