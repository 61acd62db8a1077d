"""Names and places of tokens, for results that a person reads."""

from codecs import getincrementaldecoder
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hf_mambalrp.calls.inputs import Batch
from hf_mambalrp.calls.tokenizing import encode
from hf_mambalrp.calls.vocabulary import INCOMPLETE, Vocabulary, decoded, shown, visible
from hf_mambalrp.errors import InputError

Span = tuple[int, int]

UTF8_BYTES = 4
"""Bytes of a character, at most."""


@dataclass(frozen=True)
class TokenText:
    """The tokens of a batch by number: names, and where the tokenizer can tell, places in the text."""

    names: list[str]
    which: Tensor
    """(B, L): each token's name, by its number in ``names``."""
    spans: Tensor | None = None
    """(B, L, 2) int32: first character and last + 1 in ``texts``; (0, 0) is no span."""
    texts: list[str] | None = None
    special: Tensor | None = None
    """(B, L) bool: special tokens, and ids that the tokenizer does not know."""

    @property
    def tokens(self) -> list[list[str]]:
        """Every token's name."""
        names = np.empty(len(self.names), object)
        names[:] = self.names
        tokens: list[list[str]] = names[self.which.numpy()].tolist()
        return tokens

    @property
    def offsets(self) -> list[list[Span]] | None:
        """Every token's place."""
        return None if self.spans is None else [[(start, end) for start, end in row] for row in self.spans.tolist()]


def describe(
    input_ids: Tensor | None, attention_mask: Tensor, batch: Batch | None, vocabulary: Vocabulary | None
) -> TokenText:
    """Name every token of the input that came from ``batch``, or from ids that the model wrote.

    Without a tokenizer a token's name is its id, for embeddings its position.
    """
    if input_ids is None:
        length = attention_mask.shape[1]
        return TokenText([f"[{i}]" for i in range(length)], torch.arange(length).expand(attention_mask.shape))
    # In numpy, whose loops are one thread: torch's start a team in every thread of a run, and what waits there spins.
    every, mask = input_ids.numpy(), attention_mask.numpy() != 0
    ids, inverse = np.unique(every, return_inverse=True)
    known, which = ids.tolist(), torch.from_numpy(inverse.reshape(every.shape))
    if vocabulary is None:
        return TokenText([f"#{i}" for i in known], which)
    without_text = vocabulary.without_text(known)
    special = torch.from_numpy(np.array([i in without_text for i in known])[inverse].reshape(every.shape))
    place = _place if getattr(vocabulary.tokenizer, "is_fast", False) else _aligned
    texts = []
    spans = np.zeros((*every.shape, 2), np.int32)
    for row, real in enumerate(mask):
        own = every[row, real]
        text = None if batch is None or batch.texts is None else batch.texts[row]
        placed = np.empty((0, 2), np.int32) if batch is None or batch.spans is None else batch.spans[row].numpy()
        if text is None or len(placed) < len(own):
            text, found = place(own.tolist(), text, [(start, end) for start, end in placed.tolist()], vocabulary)
            placed = np.asarray(found).reshape(-1, 2)
        texts.append(text)
        spans[row, real] = placed
    return TokenText([vocabulary.name(i) for i in known], which, torch.from_numpy(spans), texts, special)


def _place(ids: list[int], text: str | None, spans: list[Span], vocabulary: Vocabulary) -> tuple[str, list[Span]]:
    """The text of attended tokens and the span of each: ``text`` and its ``spans``, and behind it what was fed back.

    Ids without a text are placed in the one they decode to: by the tokenizer where that gives them back, else by name.
    """
    if text is None:
        whole = str(vocabulary.tokenizer.decode(ids))
        text = ""
        with suppress(InputError):  # some read less than they write
            encoding = encode(vocabulary.tokenizer, whole, return_offsets_mapping=True)
            if list(encoding["input_ids"]) == ids:
                return whole, [(start, end) for start, end in encoding["offset_mapping"]]
    spans = list(spans)
    for piece, count in _spell(ids, len(spans), vocabulary):
        spans += [(len(text), len(text) + len(piece))] * count
        text += piece
    return text, spans


def _spell(ids: list[int], start: int, vocabulary: Vocabulary) -> Iterator[tuple[str, int]]:
    """Yield what the tokens from ``start`` on add to the text before them, and of how many tokens it is.

    It is one, or up to four that share a character. Decoded alone a token could lose the space before it, hence the
    tokens before.
    """
    before, done = max(start - 1, 0), start
    for end in range(start + 1, len(ids) + 1):
        both = str(vocabulary.tokenizer.decode(ids[before:end]))
        if both.endswith(INCOMPLETE) and end < len(ids) and end - done < UTF8_BYTES:
            continue
        yield both[len(str(vocabulary.tokenizer.decode(ids[before:done]))) :], end - done
        before, done = done, end


def _aligned(ids: list[int], text: str | None, spans: list[Span], vocabulary: Vocabulary) -> tuple[str, list[Span]]:
    """What :func:`_place` gives, for a tokenizer that tells no places: each token is looked for next in the text.

    Tokens behind a text that was given were fed back. Where a token is not next in the text, none has a place.
    """
    pieces = [*_pieces(ids, vocabulary)]
    if text is None:
        text = decoded(ids, vocabulary.tokenizer) or "".join(piece for piece, _ in pieces)
    special = {*vocabulary.tokenizer.all_special_ids}
    spans, reached = [], 0
    for piece, group in pieces:
        body = piece.strip() or piece
        start = reached
        while text[start : start + 1].isspace() and not body.isspace():
            start += 1
        if text[start : start + len(body)].lower() != body.lower():
            is_behind = not text[reached:].strip()
            if special.issuperset(group) or (body.isspace() and not is_behind):
                spans += [(reached, reached)] * len(group)
                continue
            if not is_behind:
                return text, [(0, 0)] * len(ids)
            start = len(text) + piece.index(body)
            text += piece
        reached = start + len(body)
        spans += [(start, reached)] * len(group)
    return text, spans


def _pieces(ids: list[int], vocabulary: Vocabulary) -> Iterator[tuple[str, list[int]]]:
    """Yield the text of each token, or of those that share a character, and which they are."""
    decoder = getincrementaldecoder("utf-8")("surrogateescape")
    group: list[int] = []
    for token in ids:
        part = vocabulary.read(token)
        if isinstance(part, bytes):
            group.append(token)
            text = decoder.decode(part)
            if text:
                yield visible(text), group
                group = []
            continue
        if group:
            yield visible(decoder.decode(b"", final=True)), group
            group = []
        yield shown(token, part), [token]
    if group:
        yield visible(decoder.decode(b"", final=True)), group
