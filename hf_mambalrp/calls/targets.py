"""What is explained: class, next token, several tokens or any function of the logits, minus the same of a contrast."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.calls.inputs import Batch, TokenizerSource, brief, check_unicode
from hf_mambalrp.calls.tokenizing import TAIL, continuation
from hf_mambalrp.calls.vocabulary import Vocabulary
from hf_mambalrp.errors import TargetError
from hf_mambalrp.families import Network

LogitFunction = Callable[[Tensor], Tensor]

AS_IT_STANDS = "it is put behind the input as it stands, so a new word begins with its space, such as ' Paris'"


class Outputs:
    """The names of a model's outputs: labels of a classifier, tokens of a language model.

    Args:
        network: the model.
        tokenizers: reads a target's text.
        batch: what a target continues, up to and including the positions ``last`` (B,); None where it is not known.
        last: see ``batch``.
    """

    def __init__(
        self,
        network: Network,
        tokenizers: TokenizerSource,
        batch: Batch | None = None,
        last: Tensor | None = None,
    ) -> None:
        self.network, self.tokenizers = network, tokenizers
        self.batch, self.last = batch, last
        self.size = network.num_outputs

    @property
    def kind(self) -> str:
        """ "token" or "class"."""
        return "token" if self.network.is_language_model else "class"

    def ids_of(self, value: Any, name: str, row: int) -> tuple[int, ...]:
        """Output ids of one target: an id, a label's name or the text by which the row's input is continued.

        The text is put behind the input as it stands: " Paris" is a new word, "Paris" continues the last one.

        Raises:
            TargetError: out of range, unknown, ambiguous or of another type.
        """
        if isinstance(value, Tensor) and value.ndim == 0:
            value = value.item()
        number = _index(value)
        if number is not None:
            if not 0 <= number < self.size:
                raise TargetError(
                    f"{name}={number} is out of range: this model's {self.kind} ids are 0..{self.size - 1}."
                )
            return (number,)
        if isinstance(value, str):
            return (
                self._token_ids(value, name, row) if self.network.is_language_model else (self._label_id(value, name),)
            )
        raise TargetError(
            f"{name}={brief(value)} is a {type(value).__name__}. Allowed: None, an id, a "
            f"{'token text' if self.network.is_language_model else 'label name'}, a list or (B,) tensor, one a row, "
            "or a function of the logits."
        )

    def text_of(self, ids: tuple[int, ...]) -> str:
        """How the target is called in what a person reads."""
        if not self.network.is_language_model:
            return str(self.labels.get(ids[0], ids[0]))
        vocabulary = self.tokenizers.vocabulary()
        return " ".join(f"#{i}" for i in ids) if vocabulary is None else vocabulary.spelling(ids)

    @cached_property
    def labels(self) -> dict[int, str]:
        """Id to label of a classifier; {} of a language model."""
        if self.network.is_language_model:
            return {}
        return {int(i): str(label) for i, label in (self.network.config.id2label or {}).items()}

    def _label_id(self, text: str, name: str) -> int:
        labels = self.labels
        exact = [i for i, label in labels.items() if label == text]
        found = exact or [i for i, label in labels.items() if label.lower() == text.lower()]
        if len(found) == 1:
            return found[0]
        problem = "is the name of several classes" if found else "is no class of this model"
        raise TargetError(
            f"{name}={brief(text)} {problem}. Its classes are {brief(labels, 300)}; give a name or an id."
        )

    def _token_ids(self, text: str, name: str, row: int) -> tuple[int, ...]:
        tokenizer = self.tokenizers.get(f"for {name}={text!r}")
        check_unicode(text, lambda: f"{name}={brief(text)}", TargetError)
        ids = continuation(tokenizer, self._before(row, tokenizer), text)
        if not ids:
            raise TargetError(f"{name}={brief(text)} has no tokens; {AS_IT_STANDS}.")
        unknown = getattr(tokenizer, "unk_token_id", None)
        if unknown is not None and unknown in ids and str(tokenizer.unk_token) not in text:
            raise TargetError(
                f"{name}={brief(text)} is not in the tokenizer's vocabulary: it reads "
                f"{brief(Vocabulary(tokenizer).spelling(ids))}. Give another text ({AS_IT_STANDS}) or a token's id."
            )
        return ids

    def _before(self, row: int, tokenizer: Any) -> str:
        """The text of a row up to and including the position whose prediction is explained."""
        if self.batch is None or self.last is None or self.batch.input_ids is None:
            return ""
        end = int(self.last[row]) + 1
        text = None if self.batch.texts is None else self.batch.texts[row]
        if text is not None and not bool(self.batch.attention_mask[row, end:].any()):
            return text
        if text is not None and self.batch.spans is not None:  # texts are padded on the right
            return text[: int(self.batch.spans[row][:end, 1].max())]
        ids = self.batch.input_ids[row, :end][self.batch.attention_mask[row, :end] != 0]
        return str(tokenizer.decode(ids[-TAIL:].tolist(), skip_special_tokens=True))


def _index(value: Any) -> int | None:
    """An integer, of numpy too, as Python's; None for anything else."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


@dataclass(frozen=True)
class Target:
    """One side of the score for a batch. Exactly one of ``ids``, ``function``, or neither (the prediction)."""

    ids: list[tuple[int, ...]] | None = None
    """For every row the tokens whose logits are summed; one class for a classifier."""
    function: LogitFunction | None = None

    @property
    def tokens(self) -> int:
        """The most tokens a row's target has."""
        return max(map(len, self.ids)) if self.ids else 1

    def resolved(self, logits: Tensor) -> list[tuple[int, ...] | None]:
        """Ids of every row, the prediction read off the logits (B, K, V); None for a function."""
        if self.function is not None:
            return [None] * len(logits)
        if self.ids is not None:
            return list(self.ids)
        return [(i,) for i in logits[:, 0].argmax(-1).tolist()]

    def score(self, logits: Tensor) -> Tensor:
        """Sum of the target tokens' logits, or the function's value. Shape: (B, K, V) -> (B,)."""
        if self.function is not None:
            return self._called(logits[:, 0])
        if self.ids is None:  # read where the logits are: to ask for the number is to wait for the GPU
            return logits[:, 0].gather(-1, logits[:, 0].argmax(-1, keepdim=True))[:, 0]
        most = self.tokens
        index = torch.tensor([[*ids, *[0] * (most - len(ids))] for ids in self.ids])
        chosen = logits[:, :most].gather(-1, index[..., None].to(logits.device, non_blocking=True))[..., 0]
        if any(len(ids) < most for ids in self.ids):
            absent = torch.tensor([[k >= len(ids) for k in range(most)] for ids in self.ids])
            chosen = chosen.masked_fill(absent.to(logits.device, non_blocking=True), 0)
        return chosen.sum(-1)

    def _called(self, logits: Tensor) -> Tensor:
        assert self.function is not None
        value = self.function(logits)
        if not isinstance(value, Tensor) or value.shape != logits.shape[:1]:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise TargetError(
                f"The target function returned {got}; it must map logits ({len(logits)}, {logits.shape[-1]}) to one "
                f"number a row, shape ({len(logits)},), for example lambda logits: logits[:, 3]."
            )
        if logits.requires_grad and not value.requires_grad:
            raise TargetError(
                "The target function's result does not depend on the logits through differentiable operations; use "
                "torch operations and no .detach(), .item() or argmax."
            )
        return value


def resolve_target(value: Any, name: str, batch_size: int, outputs: Outputs) -> Target:
    """Bring every accepted form of ``target`` or ``contrast`` into a :class:`Target`.

    Raises:
        TargetError: see :meth:`Outputs.ids_of`; or a list or tensor that has not one entry a row.
    """
    if value is None:
        return Target()
    if callable(value):
        return Target(function=value)
    if isinstance(value, Tensor) and value.ndim > 0:
        if value.ndim != 1 or value.is_floating_point() or value.dtype == torch.bool:
            raise TargetError(
                f"{name} is a tensor of shape {tuple(value.shape)} and dtype {value.dtype}; expected integer ids, one "
                f"a row: ({batch_size},)."
            )
        value = value.tolist()
    elif hasattr(value, "tolist"):  # of numpy or pandas
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        if len(value) != batch_size:
            raise TargetError(f"{name} has {len(value)} entries for a batch of {batch_size} rows; give one per row.")
        return Target([outputs.ids_of(entry, f"{name}[{row}]", row) for row, entry in enumerate(value)])
    return Target([outputs.ids_of(value, name, row) for row in range(batch_size)])
