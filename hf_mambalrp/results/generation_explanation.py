"""The result of ``explain_generation``: one explanation per generated token."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from hf_mambalrp.errors import InputError
from hf_mambalrp.results.explanation import Conservation, Explanation, decode_spans, given_or_none_given
from hf_mambalrp.results.figures import map_of_generation
from hf_mambalrp.results.generation_document import generated_sentences, generation_document, generation_summary
from hf_mambalrp.results.sentences import text_of
from hf_mambalrp.results.serialization import Column, Rows, row_indices
from hf_mambalrp.results.shown import ShownWords
from hf_mambalrp.viz.document import Document
from hf_mambalrp.viz.words import Level, Word, checked_level

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(eq=False, repr=False)
class GenerationExplanation(ShownWords, Rows):
    """Relevance of everything before it for each of T generated tokens, over L = ``prompt_length`` + T positions.

    Generated token t stands at position ``prompt_length + t``; its explanation is 0 from there on. A row that ended
    earlier has ``attention_mask`` 0 and relevance 0 at the steps it did not take. :meth:`step` is the explanation of
    one token, :meth:`span` of several together, and all that an :class:`Explanation` can do is there for each.

    Args:
        relevance: (B, T, L) float32 in units of the score (logits).
        tokens: per row L display strings.
        input_ids: (B, L) int64, prompt and generated tokens.
        attention_mask: (B, L) of 0 and 1.
        prompt_length: number of positions before the first generated token, padding included.
        score: (B, T) float32, logit of each generated token, less its contrast's if there is one.
        probability: (B, T) float32, probability of each generated token.
        method: name of the attribution method.
        conservation: where each score went, (B, T).
        offsets: per row L character spans in ``texts``; (0, 0) is no span.
        texts: per row the prompt and what was generated.
        model_id: repository or folder of the model.
        versions: package name to version.
        method_options: as in :class:`Explanation`.
        contrast_ids: (B, T) int64, the token rather than which each one was generated; None without a contrast.
        contrast_tokens: per row their T display strings.

    Raises:
        InputError: fields disagree in shape, or there is relevance on padding or on a token's own future.
        NonFiniteRelevanceError: a number is NaN or infinite.

    Example:
        >>> from transformers import MambaConfig
        >>> from hf_mambalrp import MambaLRPForCausalLM
        >>> model = MambaLRPForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
        >>> ex = model.explain_generation([[1, 2, 3]], max_new_tokens=4)
        >>> len(ex), ex.prompt_length, ex.score.shape
        (1, 3, torch.Size([1, 4]))
    """

    relevance: Tensor
    tokens: list[list[str]]
    input_ids: Tensor
    attention_mask: Tensor
    prompt_length: int
    score: Tensor
    probability: Tensor
    method: str
    conservation: Conservation
    offsets: list[list[tuple[int, int]]] | None = None
    texts: list[str] | None = None
    model_id: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    method_options: dict[str, Any] = field(default_factory=dict)
    contrast_ids: Tensor | None = None
    contrast_tokens: list[list[str]] | None = None

    _columns: ClassVar[dict[str, Column]] = {
        "relevance": Column("BTL", torch.float32),
        "tokens": Column("BL", fill=""),
        "input_ids": Column("BL", torch.int64),
        "attention_mask": Column("BL", torch.int64),
        "score": Column("BT", torch.float32),
        "probability": Column("BT", torch.float32),
        "conservation": Column("BT"),
        "offsets": Column("BL", optional=True),
        "texts": Column("B", optional=True),
        "contrast_ids": Column("BT", torch.int64, optional=True),
        "contrast_tokens": Column("BT", optional=True, fill=""),
    }
    _parts: ClassVar[dict[str, type[Rows]]] = {"conservation": Conservation}
    _decoders: ClassVar[dict[str, Callable[[Any], Any]]] = {
        "offsets": decode_spans,
        "method_options": given_or_none_given,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        _, steps, length = self.relevance.shape
        if self.prompt_length < 1 or self.prompt_length + steps != length:
            raise InputError(
                f"prompt_length={self.prompt_length} and {steps} steps need {self.prompt_length + steps} positions; "
                f"relevance has shape {tuple(self.relevance.shape)}, expected (B, T, prompt_length + T), prompt >= 1."
            )
        future = torch.arange(length) >= self.prompt_length + torch.arange(steps)[:, None]
        wrong = ((future | (self.attention_mask == 0)[:, None]) & (self.relevance != 0)).nonzero().tolist()
        if wrong:
            raise InputError(
                f"padding or a future token has relevance at (row, step, position) = {tuple(wrong[0])}; "
                "it must be exactly 0."
            )
        if self.offsets is not None and self.texts is None:
            raise InputError("offsets are spans in texts, and texts is None: give both or neither.")

    def __repr__(self) -> str:
        return generation_summary(self)

    def document(self, *, level: Level = "word", rows: int | None = None) -> Document:
        """Return what every rendering shows of the first ``rows``, or of all. OptionError: an unknown level.

        Example:
            >>> from transformers import MambaConfig
            >>> from hf_mambalrp import MambaLRPForCausalLM
            >>> model = MambaLRPForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
            >>> ex = model.explain_generation([[1, 2, 3]], max_new_tokens=4)
            >>> len(ex.document().sections)
            1
        """
        return generation_document(self, checked_level(level), rows)

    def step(self, t: int) -> Explanation:
        """Return the explanation of generated token ``t`` over the positions before it. IndexError: no such step.

        A row that ended before ``t`` is there with score and relevance 0.

        Example:
            >>> from transformers import MambaConfig
            >>> from hf_mambalrp import MambaLRPForCausalLM
            >>> model = MambaLRPForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
            >>> ex = model.explain_generation([[1, 2, 3]], max_new_tokens=4)
            >>> ex.step(0).relevance.shape, ex.step(-1).relevance.shape
            (torch.Size([1, 3]), torch.Size([1, 6]))
        """
        t = row_indices(t, self.relevance.shape[1])[0]
        return self.span(t, t + 1)

    def span(self, start: int = 0, stop: int | None = None) -> Explanation:
        """Return the explanation of the generated tokens from ``start`` to before ``stop`` together: why this sentence?

        The score is the sum of their logits, each read where its token was generated, and the relevance is the sum of
        theirs: what :meth:`hf_mambalrp.MambaLRPMixin.explain` gives for a target of these tokens. Among the positions
        are those of the span itself but for the last, for a token speaks for those behind it. Both ends count as in a
        slice. A row that ended before the span is there with score and relevance 0. IndexError: no step is in it.

        Example:
            >>> from hf_mambalrp import DEMO_LANGUAGE_MODEL, AutoMambaLRPForCausalLM
            >>> model = AutoMambaLRPForCausalLM.from_pretrained(DEMO_LANGUAGE_MODEL)
            >>> ex = model.explain_generation("Anna had a dog called Rex. One day the dog", max_new_tokens=12)
            >>> first = ex.sentences()[0]
            >>> why = ex.span(first.start, first.stop)
            >>> len(why.target[0]) == len(first)
            True
        """
        steps = range(self.relevance.shape[1])[start:stop]
        if not steps:
            raise IndexError(f"no step is from {start} to before {stop}: there are {self.relevance.shape[1]}, from 0.")
        part = slice(steps.start, steps.stop)
        end = self.prompt_length + steps[-1]
        taken = [[t for t in steps if self.attention_mask[row, self.prompt_length + t]] for row in range(len(self))]
        places = [[self.prompt_length + t for t in own or [steps[0]]] for own in taken]
        ends = [own[-1] if took else end for own, took in zip(places, taken, strict=True)]
        mask = self.attention_mask[:, :end] * (torch.arange(end) < torch.tensor(ends)[:, None])
        offsets = None
        if self.offsets is not None:
            offsets = [
                [place if i < own else (0, 0) for i, place in enumerate(row[:end])]
                for row, own in zip(self.offsets, ends, strict=True)
            ]
        whole, alive = self.conservation, self.attention_mask[:, self.prompt_length :][:, part] != 0
        probability = torch.where(alive, self.probability[:, part], 1.0).prod(1) * alive.any(1)
        return Explanation(
            relevance=self.relevance[:, part, :end].sum(1),
            tokens=[row[:end] for row in self.tokens],
            input_ids=self.input_ids[:, :end],
            attention_mask=mask,
            target=[_id_or_ids(self.input_ids[row, own].tolist()) for row, own in enumerate(places)],
            target_text=[
                self.tokens[row][own[0]] if len(own) == 1 else text_of(self, row, own) for row, own in enumerate(places)
            ],
            contrast=None
            if self.contrast_ids is None
            else [
                _id_or_ids([int(ids[i - self.prompt_length]) for i in own])
                for ids, own in zip(self.contrast_ids, places, strict=True)
            ],
            contrast_text=None
            if self.contrast_tokens is None
            else [
                "".join(dict.fromkeys(names[i - self.prompt_length] for i in own))
                for names, own in zip(self.contrast_tokens, places, strict=True)
            ],
            score=self.score[:, part].sum(1),
            probability=probability,
            method=self.method,
            conservation=Conservation(
                whole.score[:, part].sum(1),
                whole.relevance[:, part].sum(1),
                whole.biases[:, part].sum(1),
                None if whole.softmax is None else whole.softmax[:, part].sum(1),
            ),
            position=torch.full((len(self),), self.prompt_length + steps[0] - 1),
            offsets=offsets,
            texts=[self._text_before(row, own) for row, own in enumerate(ends)]
            if offsets and self.texts
            else self.texts,
            model_id=self.model_id,
            versions=self.versions,
            method_options=self.method_options,
        )

    def _text_before(self, row: int, end: int) -> str:
        """The text of a row up to the token at ``end``: all that no later token covers."""
        assert self.offsets is not None
        assert self.texts is not None
        reached = max(stop for _, stop in self.offsets[row][:end])
        later = [start for start, stop in self.offsets[row][end:] if start < stop]
        return self.texts[row][: max(reached, min(later, default=len(self.texts[row])))]

    def generated(self, row: int = 0) -> list[int]:
        """Return the steps that a row took: all T, or fewer if it ended earlier.

        Example:
            >>> from transformers import MambaConfig
            >>> from hf_mambalrp import MambaLRPForCausalLM
            >>> model = MambaLRPForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
            >>> ex = model.explain_generation([[1, 2, 3]], max_new_tokens=4)
            >>> ex.generated()
            [0, 1, 2, 3]
        """
        return self.attention_mask[row, self.prompt_length :].nonzero().flatten().tolist()

    def sentences(self, row: int = 0) -> list[range]:
        """Return the sentences that a row generated, the steps of each; the first may end one that the prompt began.

        Example:
            >>> from hf_mambalrp import DEMO_LANGUAGE_MODEL, AutoMambaLRPForCausalLM
            >>> model = AutoMambaLRPForCausalLM.from_pretrained(DEMO_LANGUAGE_MODEL)
            >>> ex = model.explain_generation("Anna had a dog called Rex.", max_new_tokens=20)
            >>> [part.start for part in ex.sentences()][0]
            0
        """
        return generated_sentences(self, row)

    def words(self, row: int = 0, *, level: Level = "word") -> list[Word]:
        """Return the words of a row with their relevance for all that was generated, as :meth:`Explanation.words` does.

        It is that of :meth:`span` without ends; of one token take it of :meth:`step`, of a sentence of :meth:`span`.

        Example:
            >>> from transformers import MambaConfig
            >>> from hf_mambalrp import MambaLRPForCausalLM
            >>> model = MambaLRPForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
            >>> ex = model.explain_generation([[1, 2, 3]], max_new_tokens=4)
            >>> [word.text for word in ex.words()][:3]
            ['#1', '#2', '#3']
        """
        return self.span().words(row, level=level)

    def top(
        self, k: int = 10, row: int = 0, *, by: Literal["abs", "positive", "negative"] = "abs", level: Level = "word"
    ) -> list[Word]:
        """Return at most ``k`` of :meth:`words`, strongest first, as :meth:`Explanation.top` does.

        Example:
            >>> from transformers import MambaConfig
            >>> from hf_mambalrp import MambaLRPForCausalLM
            >>> model = MambaLRPForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
            >>> ex = model.explain_generation([[1, 2, 3]], max_new_tokens=4)
            >>> len(ex.top(2)), len(ex.step(0).top(2))
            (2, 2)
        """
        return self.span().top(k, row, by=by, level=level)

    def to_pandas(self, *, level: Level = "token") -> "pd.DataFrame":
        """Return a table: for every row and ``step`` it took the lines of :meth:`Explanation.to_pandas`.

        ``target`` is the generated token, ``score`` its logit; ``position`` counts the padding before a shorter prompt.

        Raises:
            MissingExtraError: pandas is not installed.
            OptionError: an unknown level.
            InputError: no row generated a token.

        Example:
            >>> from transformers import MambaConfig
            >>> from hf_mambalrp import MambaLRPForCausalLM
            >>> model = MambaLRPForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
            >>> ex = model.explain_generation([[1, 2, 3]], max_new_tokens=4)
            >>> len(ex.to_pandas())  # 3 + 4 + 5 + 6
            18
        """
        frames = []
        for row, one in enumerate(self):
            for t in one.generated():
                frame = one.step(t).to_pandas(level=level).assign(row=row)
                frame.insert(1, "step", t)
                frames.append(frame)
        if not frames:
            raise InputError("no row generated a token, so there is nothing in a table.")
        import pandas as pd

        return pd.concat(frames, ignore_index=True)

    def plot(self, row: int = 0, *, level: Level = "word", ax: "Axes | None" = None) -> "Figure":
        """Draw a heat map, all generated tokens x the words before them, of many the strongest; it says so.

        Of several tokens together, ``span(...).plot()`` draws bars. MissingExtraError: matplotlib is not installed.
        OptionError: an unknown level.

        Example:
            >>> from transformers import MambaConfig
            >>> from hf_mambalrp import MambaLRPForCausalLM
            >>> model = MambaLRPForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
            >>> ex = model.explain_generation([[1, 2, 3]], max_new_tokens=4)
            >>> ex.plot().savefig("generated.png")
        """
        return map_of_generation(self, row, level, ax)

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
        """Push every step of every row as a row of a dataset, as :meth:`Explanation.push_to_hub` does.

        ``load_explanations("user/name")`` reads them back, an explanation each, with the id ``"row.step"`` and both
        numbers in ``columns``.

        Example:
            >>> from hf_mambalrp import DEMO_LANGUAGE_MODEL, AutoMambaLRPForCausalLM
            >>> model = AutoMambaLRPForCausalLM.from_pretrained(DEMO_LANGUAGE_MODEL)
            >>> ex = model.explain_generation("Anna had a dog called Rex.", max_new_tokens=4)
            >>> ex.push_to_hub("me/its-generation")  # doctest: +SKIP
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


def _id_or_ids(ids: list[int]) -> int | tuple[int, ...]:
    return ids[0] if len(ids) == 1 else tuple(ids)
