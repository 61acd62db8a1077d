"""The result of ``explain_generation``: one explanation per generated token."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from hf_mambalrp.errors import InputError
from hf_mambalrp.results.explanation import Conservation, Explanation, decode_spans, given_or_none_given
from hf_mambalrp.results.figures import map_of_generation
from hf_mambalrp.results.generation_document import generation_document, generation_summary
from hf_mambalrp.results.serialization import Column, Rows, row_indices
from hf_mambalrp.results.shown import ShownWords
from hf_mambalrp.viz.document import Document
from hf_mambalrp.viz.words import Level, checked_level

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(eq=False, repr=False)
class GenerationExplanation(ShownWords, Rows):
    """Relevance of everything before it for each of T generated tokens, over L = ``prompt_length`` + T positions.

    Generated token t stands at position ``prompt_length + t``; its explanation is 0 from there on. A row that ended
    earlier has ``attention_mask`` 0 and relevance 0 at the steps it did not take.

    Args:
        relevance: (B, T, L) float32 in units of the score (logits).
        tokens: per row L display strings.
        input_ids: (B, L) int64, prompt and generated tokens.
        attention_mask: (B, L) of 0 and 1.
        prompt_length: number of positions before the first generated token, padding included.
        score: (B, T) float32, logit of each generated token.
        probability: (B, T) float32, probability of each generated token.
        method: name of the attribution method.
        conservation: where each score went, (B, T).
        offsets: per row L character spans in ``texts``; (0, 0) is no span.
        texts: per row the prompt and what was generated.
        model_id: repository or folder of the model.
        versions: package name to version.
        method_options: as in :class:`Explanation`.

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
        end = self.prompt_length + t
        whole = self.conservation
        offsets = None if self.offsets is None else [row[:end] for row in self.offsets]
        return Explanation(
            relevance=self.relevance[:, t, :end],
            tokens=[row[:end] for row in self.tokens],
            input_ids=self.input_ids[:, :end],
            attention_mask=self.attention_mask[:, :end],
            target=list(self.input_ids[:, end].tolist()),
            target_text=[row[end] for row in self.tokens],
            contrast=None,
            contrast_text=None,
            score=self.score[:, t],
            probability=self.probability[:, t],
            method=self.method,
            conservation=Conservation(
                whole.score[:, t],
                whole.relevance[:, t],
                whole.biases[:, t],
                None if whole.softmax is None else whole.softmax[:, t],
            ),
            position=torch.full((len(self),), end - 1),
            offsets=offsets,
            texts=[self._text_before(row, end) for row in range(len(self))] if offsets and self.texts else self.texts,
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

    def plot(self, row: int = 0, *, level: Level = "word", ax: "Axes | None" = None) -> "Figure":
        """Draw a heat map, generated tokens x the words before them; a large one shows its strongest parts and says so.

        MissingExtraError: matplotlib is not installed. OptionError: an unknown level.

        Example:
            >>> from transformers import MambaConfig
            >>> from hf_mambalrp import MambaLRPForCausalLM
            >>> model = MambaLRPForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2))
            >>> ex = model.explain_generation([[1, 2, 3]], max_new_tokens=4)
            >>> ex.plot().savefig("generated.png")
        """
        return map_of_generation(self, row, level, ax)
