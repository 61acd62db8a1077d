"""The result of ``explain``: relevance per token, what was explained, where the score went, and how to show it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from hf_mambalrp.errors import InputError, MissingExtraError, OptionError
from hf_mambalrp.results.explanation_document import explanation_document, explanation_summary
from hf_mambalrp.results.figures import bars_of_words, map_of_layers, map_of_parts
from hf_mambalrp.results.parts import PartRelevance
from hf_mambalrp.results.sentences import share_of_the_end
from hf_mambalrp.results.serialization import Column, Rows, row_indices
from hf_mambalrp.results.shown import ShownWords
from hf_mambalrp.runs.checks import one_of, whole_number
from hf_mambalrp.viz.document import Document
from hf_mambalrp.viz.passages import grouped
from hf_mambalrp.viz.wording import signed, unsigned
from hf_mambalrp.viz.words import Level, Word, checked_level, merge_words, strongest, token_words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Ids = list[int | tuple[int, ...] | None]


@dataclass(frozen=True, eq=False)
class Conservation(Rows):
    """Where the score went: ``score = relevance + biases + softmax + gap``, float32, (B,); (B, T) for a generation.

    Args:
        score: the explained score, in logits.
        relevance: the sum over the tokens of a row.
        biases: the relevance that additive biases on the content path absorbed.
        softmax: what the softmax of attention absorbed (Achtibat et al. 2024, proposition 3.1), under a rule with which
            it does, ``attention_rule="attnlrp"``; None where it absorbs nothing.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> ex = model.explain("A dull film.")
        >>> ex.conservation.gap.abs().item() < 1e-5
        True
        >>> f"{ex.conservation.ratio.item():.0%} of the score went to the words"
        '96% of the score went to the words'
    """

    score: Tensor
    relevance: Tensor
    biases: Tensor
    softmax: Tensor | None = None

    _columns: ClassVar[dict[str, Column]] = {
        **{name: Column("B*", torch.float32) for name in ("score", "relevance", "biases")},
        "softmax": Column("B*", torch.float32, optional=True),
    }

    @property
    def ratio(self) -> Tensor:
        """``relevance / score``: 1 for a conserving method where nothing is absorbed, undefined at score 0."""
        return self.relevance / self.score

    @property
    def absorbed(self) -> Tensor:
        """``biases + softmax``: what went to no token."""
        return self.biases if self.softmax is None else self.biases + self.softmax

    @property
    def gap(self) -> Tensor:
        """``score - relevance - biases - softmax``: about 0 for a conserving method."""
        return self.score - self.relevance - self.absorbed

    def __str__(self) -> str:
        """Return one line per row (per row and step for a generation)."""
        given = {"sum of relevance": self.relevance, "biases": self.biases, "softmax": self.softmax}
        terms = {name: part.flatten().tolist() for name, part in given.items() if part is not None}
        totals = ((self.relevance + self.absorbed).flatten().tolist(), self.score.flatten().tolist())
        return "\n".join(
            f"{' + '.join(f'{name} {signed(value)}' for name, value in zip(terms, values, strict=True))} = "
            f"{unsigned(total)} of score {unsigned(score)} (gap {unsigned(gap)})"
            for *values, total, score, gap in zip(*terms.values(), *totals, self.gap.flatten().tolist(), strict=True)
        )


def decode_spans(rows: Any) -> Any:
    """Turn the lists that JSON gives for spans back into tuples."""
    return rows and [[(start, end) for start, end in row] for row in rows]


def given_or_none_given(options: Any) -> Any:
    """Options of a method; {} of a result that was saved without."""
    return options or {}


def _ids(targets: Any) -> Any:
    return targets and [tuple(target) if isinstance(target, list) else target for target in targets]


@dataclass(eq=False, repr=False)
class Explanation(ShownWords, Rows):
    """Relevance of every token for one score per row, with what is needed to read, store and show it.

    ``relevance[b].sum() + biases[b] + softmax[b] = score[b]`` for a conserving method; see :class:`Conservation`.

    Args:
        relevance: (B, L) float32 in units of the score (logits), exactly 0 on padding.
        tokens: per row L display strings, which may contain white space; padding too.
        input_ids: (B, L) int64, or None when embeddings were explained.
        attention_mask: (B, L) of 0 and 1.
        target: per row a class or token id, a tuple of ids for a target of several tokens, None for a callable.
        target_text: per row the label's name, the token's text or the callable's name.
        contrast: like ``target``, or None; the score is then logit(target) - logit(contrast).
        contrast_text: like ``target_text``, or None.
        score: (B,) float32, logits.
        probability: (B,) float32, the model's probability of the target; None for a callable.
        method: name of the attribution method.
        conservation: where the score went.
        position: (B,) int64, whose prediction is explained; None for a classifier.
        layer_relevance: (num_layers + 1, B, L) float32, the relevance after the embedding and after every block.
        parts: what attention, SSM, MLP and experts of every block read of it; given with ``layer_relevance``.
        offsets: per row L character spans in ``texts``; (0, 0) is no span.
        texts: per row the text that was tokenized or that the ids decode to, and behind it the tokens of a target or
            contrast of several that were fed back.
        special_tokens_mask: (B, L) bool.
        model_id: repository or folder of the model.
        versions: package name to version.
        method_options: options of the method that the call gave, by name, as JSON has them (of a tensor its shape), and
            for a model with softmax attention always its ``attention_rule``, where the method has one.
        chunk_size: positions that went through the model at a time; None for methods that take no gradient at once.
        convergence_delta: (B,) float32, the sum of relevance less the score's difference from the baseline; None for
            methods without one.
        index: per row its number in the dataset that it comes from; None for a call of ``explain``.
        ids: per row its id there.
        columns: per row other columns of it, by name, where ``explain_dataset(columns=...)`` was asked for them.

    Raises:
        InputError: fields disagree in shape, padding has relevance, or there are offsets without texts.
        NonFiniteRelevanceError: a number is NaN or infinite.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> ex = model.explain("A dull film.")
        >>> ex.tokens, ex.target_text
        ([[' a', ' dull', ' film', '.']], ['negative'])
        >>> ex.relevance.shape, round(ex.score.item(), 2)
        (torch.Size([1, 4]), 2.01)
    """

    relevance: Tensor
    tokens: list[list[str]]
    input_ids: Tensor | None
    attention_mask: Tensor
    target: Ids
    target_text: list[str]
    contrast: Ids | None
    contrast_text: list[str] | None
    score: Tensor
    probability: Tensor | None
    method: str
    conservation: Conservation
    position: Tensor | None = None
    layer_relevance: Tensor | None = None
    parts: PartRelevance | None = None
    offsets: list[list[tuple[int, int]]] | None = None
    texts: list[str] | None = None
    special_tokens_mask: Tensor | None = None
    model_id: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    method_options: dict[str, Any] = field(default_factory=dict)
    convergence_delta: Tensor | None = None
    chunk_size: int | None = None
    index: list[int] | None = None
    ids: list[str] | None = None
    columns: list[dict[str, Any]] | None = None

    _columns: ClassVar[dict[str, Column]] = {
        "relevance": Column("BL", torch.float32),
        "tokens": Column("BL", fill=""),
        "input_ids": Column("BL", torch.int64, optional=True),
        "attention_mask": Column("BL", torch.int64),
        "target": Column("B"),
        "target_text": Column("B"),
        "contrast": Column("B", optional=True),
        "contrast_text": Column("B", optional=True),
        "score": Column("B", torch.float32),
        "probability": Column("B", torch.float32, optional=True),
        "conservation": Column("B"),
        "position": Column("B", torch.int64, optional=True),
        "layer_relevance": Column("NBL", torch.float32, optional=True),
        "parts": Column("PBL", optional=True),
        "offsets": Column("BL", optional=True, fill=(0, 0)),
        "texts": Column("B", optional=True),
        "special_tokens_mask": Column("BL", torch.bool, optional=True, fill=True),
        "convergence_delta": Column("B", torch.float32, optional=True),
        "index": Column("B", optional=True),
        "ids": Column("B", optional=True),
        "columns": Column("B", optional=True),
    }
    _parts: ClassVar[dict[str, type[Rows]]] = {"conservation": Conservation, "parts": PartRelevance}
    _decoders: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "target": _ids,
        "contrast": _ids,
        "offsets": decode_spans,
        "method_options": given_or_none_given,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        padding = self.attention_mask == 0
        if padding.any() and self.relevance[padding].any():
            place = (padding & (self.relevance != 0)).nonzero()[0]
            raise InputError(
                f"padding has relevance at (row, position) = {tuple(place.tolist())}; it must be exactly 0."
            )
        if self.offsets is not None and self.texts is None:
            raise InputError("offsets are spans in texts, and texts is None: give both or neither.")

    def __repr__(self) -> str:
        return explanation_summary(self)

    def document(self, *, level: Level = "word", rows: int | None = None) -> Document:
        """Return what every rendering shows of the first ``rows``, or of all. OptionError: an unknown level.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> ex.document().sections[0].blocks[0]
            Heading(text='What speaks for negative?')
        """
        return explanation_document(self, level, rows)

    def words(self, row: int = 0, *, level: Level = "word") -> list[Word]:
        """Return the words of a row in reading order; their relevance sums to the relevance of the row.

        Sub-words are merged into words, and punctuation is a word of its own: ``"film."`` is ``"film"`` and ``"."``,
        where the tokenizer has a token for each. A word keeps what stands inside it (``don't``, ``3.14``, addresses)
        and its accents, whatever the tokenizer leaves out. In a script without spaces, such as Chinese or Thai, tokens
        stay words, and so they do in a row without any, such as DNA. Special tokens and white space stay alone.
        ``level="token"`` merges nothing. ``"sentence"`` and ``"passage"`` merge words: a sentence of at most 400
        characters; a paragraph, or as many of its sentences as have at most 800. IndexError: no such row.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> [(word.text, round(word.relevance, 2)) for word in ex.words()]
            [('A', 0.1), ('dull', 0.95), ('film', 0.19), ('.', 0.68)]
        """
        row = row_indices(row, len(self))[0]
        relevance, attended = self.relevance[row].tolist(), self.attention_mask[row].nonzero().flatten().tolist()
        text = None if self.texts is None else self.texts[row]
        offsets = None if self.offsets is None else self.offsets[row]
        if offsets and text is not None and max(end for _, end in offsets) > len(text):
            offsets = None  # of a dataset, whose text is the input alone: tokens that were fed back are not in it
        if checked_level(level) == "token":
            return token_words(self.tokens[row], relevance, attended, offsets)
        mask = self.special_tokens_mask
        special = [False] * len(relevance) if mask is None else mask[row].tolist()
        words = merge_words(self.tokens[row], relevance, attended, special=special, offsets=offsets, text=text)
        return words if level == "word" else [*grouped(words, text if offsets else None, level)]

    def top(
        self, k: int = 10, row: int = 0, *, by: Literal["abs", "positive", "negative"] = "abs", level: Level = "word"
    ) -> list[Word]:
        """Return at most ``k`` words, strongest first, of either sign or of one. OptionError: k < 1, unknown ``by``.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> [word.text for word in ex.top(2)]
            ['dull', '.']
        """
        whole_number("k", k, 1)
        signs = {"abs": 0, "positive": 1, "negative": -1}
        one_of("by", by, signs)
        words = [word for word in self.words(row, level=level) if by == "abs" or word.relevance * signs[by] > 0]
        return strongest(words, k)

    def end_share(self, row: int = 0, *, part: float = 0.0) -> float:
        """Return how much of all |relevance| of a row the last ``part`` of its words has, the last word at least.

        The answer is read at the last token, which therefore carries relevance whatever it is. Words behind the
        explained position do not count; 0 where all relevance is 0. OptionError: ``part`` outside 0 to 1.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> f"{ex.end_share():.0%}"
            '36%'
        """
        if not 0 <= part <= 1:
            raise OptionError(f"part={part!r} is not allowed; give a share of the words from 0, the last word, to 1.")
        return share_of_the_end(self.words(row), part)

    def to_pandas(self, *, level: Level = "token") -> "pd.DataFrame":
        """Return a table of the attended tokens, or of words; ``relevance_share`` is |R| / sum |R| of the row.

        ``row`` is the row's number in its dataset where it comes from one, beside its ``id`` and the columns that
        travel with it (``source_score`` for one that is called as one of ours, ``score``), else its number here.
        ``position`` is that of a word's first token. With ``level="word"`` there is ``word`` in place of ``token`` and
        ``token_id``.

        Raises:
            MissingExtraError: pandas is not installed.
            OptionError: an unknown level.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> ex.to_pandas(level="word")["word"].tolist()
            ['A', 'dull', 'film', '.']
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtraError('to_pandas needs pandas: pip install "hf_mambalrp[pandas]"') from error
        lines = []
        for row in range(len(self)):
            total = self.relevance[row].abs().sum().item() or 1.0
            kept = {} if self.columns is None else self.columns[row]
            for word in self.words(row, level=level):
                position = word.tokens[0]
                line: dict[str, Any] = {"row": row if self.index is None else self.index[row]}
                line |= {} if self.ids is None else {"id": self.ids[row]}
                line |= {"position": position, level: word.text}
                if level == "token":
                    line["token_id"] = None if self.input_ids is None else int(self.input_ids[row, position])
                line |= {
                    "start": None if self.offsets is None else word.start,
                    "end": None if self.offsets is None else word.end,
                    "relevance": word.relevance,
                    "relevance_share": abs(word.relevance) / total,
                    "target": self.target_text[row],
                    "score": self.score[row].item(),
                    "method": self.method,
                }
                lines.append(line | {f"source_{name}" if name in line else name: kept[name] for name in kept})
        return pd.DataFrame(lines)

    def plot(
        self,
        row: int = 0,
        *,
        level: Level = "word",
        top: int | None = None,
        per_layer: bool = False,
        per_part: bool = False,
        ax: "Axes | None" = None,
    ) -> "Figure":
        """Draw signed bars in reading order, or the ``top`` strongest first; with ``per_layer`` layers x words.

        With ``per_part`` it is kinds of parts x words: what attention, SSM, MLP and experts read at every word, summed
        over the layers (:meth:`PartRelevance.by_token`).

        A long text shows its strongest words only and says so, below a strip that shows where along all of it the
        relevance is. The figure belongs to the caller and is not registered
        with pyplot; ``ax`` draws into axes of your own.

        Raises:
            MissingExtraError: matplotlib is not installed.
            InputError: ``per_layer`` without ``layer_relevance``, ``per_part`` without ``parts``.
            OptionError: ``top`` < 1, an unknown level, ``per_layer`` and ``per_part``.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> ex.plot().savefig("dull.png")
        """
        if per_layer and per_part:
            raise OptionError("per_layer=True and per_part=True are two figures; draw one after the other.")
        draw = map_of_layers if per_layer else map_of_parts if per_part else bars_of_words
        return draw(self, row, level, top, ax)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
    ) -> Any:
        """Push the rows as a dataset of Parquet that the Hub's viewer shows, without layers and parts.

        They replace the explanations of an earlier push. ``load_explanations("user/name")`` reads them back, one row
        each. Arguments, result and errors are those of :func:`hf_mambalrp.push_explanations`.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> ex = model.explain("A dull film.")
            >>> ex.push_to_hub("me/its-explanations")  # doctest: +SKIP
        """
        from hf_mambalrp.results.sharing import push_rows

        return push_rows(
            self,
            repo_id,
            private=private,
            token=token,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
        )
