"""What ``explain`` accepts, brought into one form: ids or embeddings, a mask, and the texts they came from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_mambalrp.calls.tokenizing import Place, encode
from hf_mambalrp.calls.vocabulary import Vocabulary
from hf_mambalrp.errors import InputError, MambaLRPError, MissingTokenizerError
from hf_mambalrp.families import Network

TOKENIZER_EXTRAS = {"token_type_ids", "special_tokens_mask", "offset_mapping", "length"}
"""What ``**tokenizer(texts)`` may carry besides ids and mask; Mamba reads none of it."""
UNSIGNED = {torch.uint16, torch.uint32, torch.uint64}
"""Integers that torch stores and does not compute with."""
PLACED = {"return_offsets_mapping": True, "return_attention_mask": False, "return_token_type_ids": False}
"""What is asked of a tokenizer that can tell where its tokens stand: that, and nothing that is not read."""
NO_INTEGERS = {torch.bool, torch.complex32, torch.complex64, torch.complex128}


@dataclass(frozen=True)
class Batch:
    """A checked batch: exactly one of ``input_ids`` (B, L) and ``inputs_embeds`` (B, L, D)."""

    input_ids: Tensor | None
    """All in the vocabulary; what stands on padding is not read, and 0 where it was none of it."""
    inputs_embeds: Tensor | None
    """0 on padding."""
    attention_mask: Tensor
    """(B, L) of 0 and 1, int64."""
    masked: bool
    """Whether the caller gave a mask (or texts, which make one)."""
    texts: list[str] | None = None
    spans: list[Tensor] | None = None
    """The tokens' places in each of ``texts``, (tokens, 2): first character, last + 1; where the tokenizer can tell."""

    def __len__(self) -> int:
        return len(self.attention_mask)


@dataclass(frozen=True)
class TokenizedText:
    """A text with its tokens."""

    text: str
    ids: Tensor
    """(L,) int64."""
    spans: Tensor | None
    """(L, 2) int32: where each token begins and ends in the text, where the tokenizer can tell."""


@dataclass(frozen=True)
class TokenizedBatch:
    """Texts with their tokens, which ``explain`` takes in the place of texts."""

    texts: Sequence[TokenizedText]
    length: int = 0
    """They are padded to it, where the longest is shorter."""


class TokenizerSource:
    """The tokenizer that was passed, or else the one beside the model, loaded when first needed."""

    def __init__(self, tokenizer: Any, place: Place) -> None:
        if tokenizer is not None and not callable(tokenizer):
            raise InputError(
                f"tokenizer={brief(tokenizer)} is a {type(tokenizer).__name__}, not a tokenizer. Pass "
                "tokenizer=AutoTokenizer.from_pretrained(...)."
            )
        self._tokenizer = tokenizer
        self._place = place
        self._vocabulary: Vocabulary | None = None

    def get(self, need: str) -> Any:
        """Return the tokenizer, or raise :class:`MissingTokenizerError` that says what it was ``need``ed for."""
        tokenizer = self.find(again=True)
        if tokenizer is None:
            where = self._place.name
            tried = f"none could be loaded from {where!r}" if where else "the model does not say where it is from"
            raise MissingTokenizerError(
                f"A tokenizer is needed {need}, but none was passed and {tried}. Pass tokenizer=AutoTokenizer."
                "from_pretrained(...), or give token ids. (The checkpoints of state-spaces carry none; theirs is "
                "EleutherAI/gpt-neox-20b's.)"
            )
        return tokenizer

    def find(self, *, again: bool = False) -> Any | None:
        """Return the tokenizer, or None where there is none; ``again`` asks the Hub once more where it had none."""
        if self._tokenizer is None:
            self._tokenizer = self._place.tokenizer(again)
        return self._tokenizer

    def vocabulary(self) -> Vocabulary | None:
        """Return what the tokenizer calls its tokens, or None where there is no tokenizer."""
        tokenizer = self.find()
        if tokenizer is not None and (self._vocabulary is None or self._vocabulary.tokenizer is not tokenizer):
            self._vocabulary = Vocabulary(tokenizer)
        return self._vocabulary


def prepare(
    call: str,
    network: Network,
    inputs: Any,
    input_ids: Any,
    attention_mask: Any,
    inputs_embeds: Any,
    tokenizers: TokenizerSource,
) -> Batch:
    """Bring every accepted input form into a :class:`Batch`.

    Raises:
        InputError: none or several inputs, empty or all-padding rows, other shapes, ids out of the vocabulary.
        MissingTokenizerError: texts without a tokenizer.
    """
    given = [
        name
        for name, value in (("inputs", inputs), ("input_ids", input_ids), ("inputs_embeds", inputs_embeds))
        if value is not None
    ]
    if len(given) != 1:
        raise InputError(
            f"{call}() got {' and '.join(given) or 'no input'}; give exactly one of a text, a list of texts, "
            "token ids (B, L), a tokenizer's output, input_ids=..., inputs_embeds=...."
        )
    if isinstance(inputs, Mapping):
        if "input_ids" not in inputs:
            raise InputError(
                f"The mapping has no 'input_ids', only {brief(list(inputs))}. Pass tokenizer(texts)'s own output."
            )
        input_ids = inputs["input_ids"]
        attention_mask = inputs.get("attention_mask") if attention_mask is None else attention_mask
    elif isinstance(inputs, TokenizedBatch):
        return _in_batch(inputs, tokenizers.get("to read text"), network)
    elif _holds_ids(inputs):
        input_ids = inputs
    elif inputs is not None:
        texts = _checked_texts(inputs)
        if attention_mask is not None:
            raise InputError("attention_mask goes with token ids or embeddings; texts get one of their own.")
        tokenizer = tokenizers.get("to read text")
        return _in_batch(TokenizedBatch(tokenize(texts, tokenizer)), tokenizer, network)

    if inputs_embeds is not None:
        embeds = _checked_embeddings(inputs_embeds, network)
        mask = _checked_mask(attention_mask, embeds.shape[:2])
        padding = (mask == 0)[:, :, None].to(embeds.device)
        return Batch(None, embeds.masked_fill(padding, 0), mask, attention_mask is not None)
    ids = _checked_ids(_in_rows(input_ids))
    mask = _checked_mask(_in_rows(attention_mask), ids.shape)
    return Batch(_in_vocabulary(ids, mask, network), None, mask, attention_mask is not None)


def pad_right(rows: Sequence[Tensor], value: int, length: int = 0) -> Tensor:
    """Stack 1-D rows of different lengths, filled up on the right to the longest or to ``length``."""
    if {row.shape[0] for row in rows} == {max(length, rows[0].shape[0])}:
        return torch.stack(list(rows))
    padded = nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
    return nn.functional.pad(padded, (0, max(0, length - padded.shape[1])), value=value)


def integers(value: Any) -> Tensor | None:
    """An int64 tensor of the integers in ``value``; None where it holds something else."""
    if isinstance(value, Sequence) and any(isinstance(one, bool) for one in value):
        return None  # numpy would read True as 1
    try:
        found = numbers(value)
    except (TypeError, ValueError, RuntimeError):
        return None
    return found if found.dtype == torch.int64 else None


def numbers(value: Any) -> Tensor:
    """What a container holds (tensors, arrays of any layout, lists of them), on the CPU; integers are int64.

    An unsigned number that int64 does not have becomes the largest that it has, and so stays out of every range.

    Raises:
        TypeError, ValueError, RuntimeError: it is no rectangular array of numbers.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        if value.dtype not in UNSIGNED:
            kept: Tensor = value if value.dtype.is_floating_point or value.dtype in NO_INTEGERS else value.long()
            return kept
    elif isinstance(value, list | tuple):
        value = [one.tolist() if isinstance(one, Tensor) else one for one in value]
    array = np.asarray(value)
    if array.dtype == object:  # a column of a table, or one of rows
        array = np.asarray(array.tolist())
    if array.dtype == np.uint64:
        array = np.minimum(array, np.uint64(torch.iinfo(torch.int64).max))
    native = np.int64 if array.dtype.kind in "iu" else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, dtype=native))  # a copy: the array may be read-only or a file


def brief(value: Any, limit: int = 60) -> str:
    """``repr`` on one line of at most ``limit`` characters, for messages."""
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def check_unicode(text: str, what: Callable[[], str], error: type[MambaLRPError]) -> None:
    """Raise ``error``, which names ``what`` it is, for a text with half a character, which no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as reason:
        raise error(f"{what()} is not Unicode: {reason.reason}.") from reason


def _place_of_text(index: int, text: str) -> str:
    return f"Text {index} ({brief(text)})"


def _holds_ids(inputs: Any) -> bool:
    """Whether these are token ids: a tensor, an array of numbers, integers or rows of them in a list."""
    if isinstance(inputs, np.ndarray):
        return inputs.dtype.kind in "biufc"
    if not isinstance(inputs, Sequence) or isinstance(inputs, str | bytes | bytearray) or not inputs:
        return isinstance(inputs, Tensor)
    first = inputs[0]
    rows = isinstance(first, Tensor | np.ndarray | Sequence) and not isinstance(first, str)
    return rows or isinstance(first, int | np.integer)


def _in_rows(value: Any) -> Any:
    """``value``, with the list that a tokenizer makes of one text as the one row of a batch."""
    if not isinstance(value, list) or not value:
        return value
    number = isinstance(value[0], int | np.integer) or (isinstance(value[0], Tensor) and value[0].ndim == 0)
    return [value] if number else value


def _checked_texts(inputs: Any) -> list[str]:
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        remedy = ' Of a table or column give df["text"].tolist().' if hasattr(texts, "iloc") else ""
        raise InputError(
            f"Cannot explain {type(texts).__name__} {brief(texts)}. Give a text, a list of texts, a (B, L) tensor of "
            f"token ids or a tokenizer's output.{remedy}"
        )
    if not texts:
        raise InputError("The list of texts is empty; give at least one text.")
    return list(texts)


def tokenize(texts: list[str], tokenizer: Any) -> list[TokenizedText]:
    """Each of the texts with its tokens.

    Raises:
        InputError: a text that is not Unicode, or that the tokenizer cannot read.
    """
    for index, text in enumerate(texts):
        check_unicode(text, partial(_place_of_text, index, text), InputError)
    fast = bool(getattr(tokenizer, "is_fast", False))
    encoded = encode(tokenizer, texts, **(PLACED if fast else {}))
    ids = [torch.from_numpy(np.array(row, dtype=np.int64)) for row in encoded["input_ids"]]
    spans = list(map(_pairs, encoded["offset_mapping"])) if fast else [None] * len(ids)
    return list(map(TokenizedText, texts, ids, spans))


def _pairs(spans: Sequence[tuple[int, int]]) -> Tensor:
    """A tensor (n, 2) of pairs, read one number at a time, which is several times as fast as from tuples."""
    return torch.from_numpy(np.fromiter(chain.from_iterable(spans), np.int32, 2 * len(spans)).reshape(-1, 2))


def _in_batch(given: TokenizedBatch, tokenizer: Any, network: Network) -> Batch:
    rows, lengths = given.texts, [row.ids.shape[0] for row in given.texts]
    for index, length in enumerate(lengths):
        if length == 0:
            raise InputError(f"{_place_of_text(index, rows[index].text)} has no tokens; give a text that is not empty.")
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    ids = pad_right([row.ids for row in rows], pad, given.length)
    mask = (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).long()
    ids = _in_vocabulary(ids, mask, network)
    spans = [row.spans for row in rows if row.spans is not None]
    return Batch(ids, None, mask, True, [row.text for row in rows], spans or None)


def _checked_ids(input_ids: Any) -> Tensor:
    try:
        ids = numbers(input_ids)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"input_ids {brief(input_ids)} is not a rectangular array of token ids ({error}). Rows of different "
            "lengths need padding: call the tokenizer with padding=True, return_tensors='pt'."
        ) from error
    if ids.is_floating_point() or ids.dtype == torch.bool or ids.is_complex():
        raise InputError(f"input_ids has dtype {ids.dtype}; token ids are integers. Floats go in as inputs_embeds=....")
    if ids.ndim != 2 or 0 in ids.shape:
        raise InputError(f"input_ids has shape {tuple(ids.shape)}; expected (B, L) with at least one row and token.")
    return ids


def _in_vocabulary(ids: Tensor, mask: Tensor, network: Network) -> Tensor:
    """The ids, with 0 for what stands on padding and is none: it is never read, but it is looked up and named."""
    vocabulary = network.vocabulary_size
    outside = (ids < 0) | (ids >= vocabulary)
    if not outside.any():
        return ids
    wrong = (outside & (mask != 0)).nonzero().tolist()
    if wrong:
        row, column = wrong[0]
        raise InputError(
            f"input_ids[{row}, {column}] is {int(ids[row, column])}, outside the vocabulary 0..{vocabulary - 1}."
            " Use the tokenizer that belongs to this model."
        )
    return ids.masked_fill(outside, 0)


def _checked_embeddings(inputs_embeds: Any, network: Network) -> Tensor:
    hidden = network.hidden_size
    if not isinstance(inputs_embeds, Tensor) or not inputs_embeds.is_floating_point():
        raise InputError(f"inputs_embeds is {brief(inputs_embeds)}; expected a float tensor of shape (B, L, {hidden}).")
    if inputs_embeds.ndim != 3 or inputs_embeds.shape[-1] != hidden or 0 in inputs_embeds.shape:
        raise InputError(
            f"inputs_embeds has shape {tuple(inputs_embeds.shape)}; expected (B, L, {hidden}), none of them 0."
        )
    return inputs_embeds.detach()


def _checked_mask(attention_mask: Any, shape: torch.Size) -> Tensor:
    if attention_mask is None:
        return torch.ones(tuple(shape), dtype=torch.long)
    try:
        mask = numbers(attention_mask)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"attention_mask {brief(attention_mask)} is not a rectangular array ({error}).") from error
    if mask.shape != shape:
        raise InputError(
            f"attention_mask has shape {tuple(mask.shape)}, the input {tuple(shape)}; both are (B, L) of one batch."
        )
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise InputError("attention_mask holds values other than 0 (padding) and 1 (token).")
    empty = (mask == 0).all(1).nonzero().flatten().tolist()
    if empty:
        raise InputError(f"Row(s) {brief(empty)} are all padding, there is nothing to explain. Leave these rows out.")
    return mask.long()
