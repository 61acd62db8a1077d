"""``compare``: two explanations of one text side by side, their difference, and how far they rank words alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.results.comparison_document import comparison_document, comparison_summary, names_of
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.results.figures import bars_of_pairs
from hf_mambalrp.results.serialization import Column, Rows, row_indices
from hf_mambalrp.results.shown import ShownWords
from hf_mambalrp.runs.scipy_stats import stats
from hf_mambalrp.viz.document import Document
from hf_mambalrp.viz.pairs import Alone, WordPair, one_by_one, overlapping
from hf_mambalrp.viz.wording import shorten, visible
from hf_mambalrp.viz.words import Level, checked_level

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RANKS = "Rank agreement", "compare"
"""What needs scipy here, and the extra that brings it."""
SAID = 60
"""Characters of a text in an error."""


class Agreement(NamedTuple):
    """How far two explanations rank words alike, by their relevance with its sign: 1 alike, 0 unrelated, -1 reversed.

    Each is None where one of the two has fewer than two different relevances, and so no ranks.
    """

    spearman: float | None
    """Spearman's rho."""
    kendall: float | None
    """Kendall's tau-b, which takes account of ties."""
    words: int


@dataclass(eq=False, repr=False)
class Comparison(ShownWords, Rows):
    """Two explanations of the same texts, row by row: what :func:`compare` returns.

    Args:
        first: an explanation.
        second: another one of the same texts; differences are its relevance less that of the first.
        names: what the two are called.

    Raises:
        InputError: not as many rows in both, or other texts.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, compare
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> found = compare(model.explain("A dull film."), model.explain("A dull film.", method="lrp_ln"))
        >>> found.names
        ('mambalrp', 'lrp_ln')
    """

    first: Explanation
    second: Explanation
    names: tuple[str, str]

    _columns: ClassVar[dict[str, Column]] = {"first": Column("BL"), "second": Column("BM")}
    _parts: ClassVar[dict[str, type[Rows]]] = {"first": Explanation, "second": Explanation}
    _decoders: ClassVar[dict[str, Callable[[Any], Any]]] = {"names": tuple}

    def __post_init__(self) -> None:
        super().__post_init__()
        for row in range(len(self)):
            texts = [_text_read(ex, row) for ex in (self.first, self.second)]
            if texts[0] != texts[1]:
                one, other = (shorten(visible(text), SAID) for text in texts)
                raise InputError(
                    f"Row {row} is of two texts, {one!r} and {other!r}: only explanations of one text can be compared. "
                    "Explain the same text by both."
                )

    @property
    def _title(self) -> str:
        return " and ".join(self.names)

    def __repr__(self) -> str:
        return comparison_summary(self)

    def words(self, row: int = 0, *, level: Level = "word") -> list[WordPair]:
        """Return the words of a row in reading order, each with both relevances and ``difference``, second - first.

        Where the tokenizers differ, words that share a character of the text are one piece, so that each piece has all
        that both say about it; special tokens, and what a target of several tokens fed back, stand in :meth:`alone`.
        ``pandas.DataFrame(found.words())`` is a table of them.

        Raises:
            IndexError: no such row.
            OptionError: an unknown level; ``level="token"`` where the tokens differ.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, compare
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> sides = [model.explain("A dull film.", target=name) for name in ("positive", "negative")]
            >>> [(word.text, round(word.difference, 2)) for word in compare(*sides).words()]
            [('A', 0.15), ('dull', 1.5), ('film', 0.29), ('.', 1.11)]
        """
        return self._paired(row, level)[0]

    def alone(self, row: int = 0) -> Alone:
        """Return the words that only the first has, and those that only the second has.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, compare
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> sides = [model.explain("A dull film.", target=name) for name in ("positive", "negative")]
            >>> compare(*sides).alone()
            ([], [])
        """
        return self._paired(row, "word")[1]

    def _paired(self, row: int, level: Level) -> tuple[list[WordPair], Alone]:
        row = row_indices(row, len(self))[0]
        first, second = (ex.words(row, level=checked_level(level)) for ex in (self.first, self.second))
        if _tokens(self.first, row) == _tokens(self.second, row):
            return one_by_one(first, second), ([], [])
        if level == "token" and _read(self.first, row) != _read(self.second, row):
            raise OptionError(
                f"level={level!r} is not allowed where the two have other tokens in row {row}; give level='word'."
            )
        return overlapping(first, second, _text_read(self.first, row))

    def agreement(self, row: int = 0, *, level: Level = "word") -> Agreement:
        """Return how far both rank the words of a row alike, by scipy's ``spearmanr`` and ``kendalltau``.

        Raises:
            MissingExtraError: scipy is not installed.
            IndexError, OptionError: as of :meth:`words`.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, compare
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> sides = [model.explain("A dull film.", target=name) for name in ("positive", "negative")]
            >>> found = compare(*sides).agreement()
            >>> round(found.spearman, 3), round(found.kendall, 3), found.words
            (-1.0, -1.0, 4)
        """
        words = self.words(row, level=level)
        sides = [word.first for word in words], [word.second for word in words]
        scipy_stats = stats(*RANKS)
        if min(len({*side}) for side in sides) < 2:
            return Agreement(None, None, len(words))
        return Agreement(
            float(scipy_stats.spearmanr(*sides).statistic), float(scipy_stats.kendalltau(*sides).statistic), len(words)
        )

    def document(self, *, level: Level = "word", rows: int | None = None) -> Document:
        """Return what every rendering shows of the first ``rows``, or of all. Errors are those of :meth:`agreement`.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, compare
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> found = compare(model.explain("A dull film."), model.explain("A dull film.", method="lrp_ln"))
            >>> found.document().sections[0].blocks[0]
            Heading(text='mambalrp and lrp_ln side by side')
        """
        return comparison_document(self, checked_level(level), rows)

    def plot(
        self, row: int = 0, *, level: Level = "word", top: int | None = None, ax: "Axes | None" = None
    ) -> "Figure":
        """Draw two bars a word in reading order, or of the ``top`` that differ most.

        A long text shows those that differ most and says so. The figure belongs to the caller and is not registered
        with pyplot; ``ax`` draws into axes of your own.

        Raises:
            MissingExtraError: matplotlib or scipy is not installed.
            IndexError, OptionError: as of :meth:`words`; ``top`` < 1.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, compare
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> found = compare(model.explain("A dull film."), model.explain("A dull film.", method="lrp_ln"))
            >>> found.plot().savefig("both.png")
        """
        return bars_of_pairs(self, row_indices(row, len(self))[0], level, top, ax)


def compare(first: Explanation, second: Explanation, *, names: Sequence[str] | None = None) -> Comparison:
    """Set two explanations of the same texts side by side: of two models, targets, methods, before and after training.

    Rows are compared with rows, words with words: each has both relevances and their difference, second less first,
    in units of the scores. Rank agreement (Spearman, Kendall) needs no common unit. Where the tokenizers differ, words
    that share a character are one piece. Two targets of one model differ, word by word, by the explanation of the one
    target in contrast to the other. Over whole corpora it is :func:`hf_mambalrp.audit.compare`.

    Args:
        first: of one or more rows.
        second: of as many, of the same texts in the same order.
        names: what the two are called; by default what they differ in: model, method, target.

    Raises:
        InputError: something else than explanations of text; not as many rows in both; other texts.
        OptionError: ``names`` that are no two texts.
        MissingExtraError: scipy is not installed.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, compare
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> sides = [model.explain("A dull film.", method=name) for name in ("mambalrp", "gradient_x_input")]
        >>> found = compare(*sides)
        >>> found.show()
        mambalrp and gradient_x_input side by side
        ...
        >>> max(found.words(), key=lambda word: abs(word.difference)).text
        'dull'
    """
    for ex in (first, second):
        if not isinstance(ex, Explanation):
            raise InputError(
                f"compare() got a {type(ex).__name__}; it takes two explanations of text, as explain() returns them. "
                "Of a generation compare .step(t); over corpora use hf_mambalrp.audit.compare."
            )
    if len(first) != len(second):
        raise InputError(
            f"compare() got {len(first)} and {len(second)} rows; give as many explanations of the same texts in both."
        )
    stats(*RANKS)
    if names is None:
        return Comparison(first, second, names_of(first, second))
    if isinstance(names, str) or len(names) != 2 or not all(isinstance(name, str) for name in names):
        raise OptionError(f"names={names!r} is not allowed; give two texts.")
    return Comparison(first, second, (names[0], names[1]))


def _tokens(ex: Explanation, row: int) -> list[Any]:
    """The tokens of a row that are attended, each with its place in the text."""
    places = [None] * len(ex.tokens[row]) if ex.offsets is None else ex.offsets[row]
    return [(ex.tokens[row][i], places[i]) for i in ex.attention_mask[row].nonzero().flatten().tolist()]


def _read(ex: Explanation, row: int) -> list[Any]:
    """Those of :func:`_tokens` that were there before a target was fed back."""
    return _tokens(ex, row)[: _count_read(ex, row)]


def _count_read(ex: Explanation, row: int) -> int | None:
    """How many attended tokens are the input; None for all."""
    if ex.position is None or not any(_is_several(ids, row) for ids in (ex.target, ex.contrast)):
        return None
    return int(ex.attention_mask[row, : int(ex.position[row]) + 1].sum())


def _is_several(ids: Any, row: int) -> bool:
    return ids is not None and isinstance(ids[row], tuple) and len(ids[row]) > 1


def _text_read(ex: Explanation, row: int) -> str:
    """The text of a row that was the input: without what a target of several tokens fed back behind it."""
    count = _count_read(ex, row)
    tokens = _tokens(ex, row)[:count]
    if ex.texts is None or ex.offsets is None:
        return "".join(token for token, _ in tokens)
    return ex.texts[row] if count is None else ex.texts[row][: max(end for _, (_, end) in tokens)]
