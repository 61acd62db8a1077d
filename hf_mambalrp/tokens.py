"""Names and places of tokens, for results that a person reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.inputs import Batch
from hf_mambalrp.tokenizing import encode

Span = tuple[int, int]

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer decodes a part of a character to."""
UTF8_BYTES = 4
"""Bytes of a character, at most."""


@dataclass(frozen=True)
class TokenText:
    """Token strings of a batch, and where the tokenizer can tell, their places in the text."""

    tokens: list[list[str]]
    offsets: list[list[tuple[int, int]]] | None
    texts: list[str] | None
    special: Tensor | None
    """(B, L) bool."""


def describe(input_ids: Tensor | None, attention_mask: Tensor, batch: Batch | None, tokenizer: Any | None) -> TokenText:
    """Name every token of the input that came from ``batch``, or from ids that the model wrote.

    Without a tokenizer a token's name is its id, for embeddings its position.
    """
    if input_ids is None:
        return TokenText([[f"[{i}]" for i in range(attention_mask.shape[1])]] * len(attention_mask), None, None, None)
    if tokenizer is None:
        return TokenText([[f"#{i}" for i in row] for row in input_ids.tolist()], None, None, None)
    ids, which = input_ids.unique(return_inverse=True)
    names = [str(tokenizer.decode([i])) for i in ids.tolist()]
    tokens = [[names[i] for i in row] for row in which.tolist()]
    special = torch.isin(input_ids, torch.tensor(sorted(tokenizer.all_special_ids), dtype=torch.long))
    texts = None if batch is None else batch.texts
    if not getattr(tokenizer, "is_fast", False):
        return TokenText(tokens, None, texts, special)
    known = None if batch is None else batch.offsets
    found, offsets = [], []
    for row, mask in enumerate(attention_mask != 0):
        text, spans = _place(
            input_ids[row, mask].tolist(),
            None if texts is None else texts[row],
            [] if known is None else known[row],
            tokenizer,
        )
        found.append(text)
        places = iter(spans)
        offsets.append([next(places) if is_real else (0, 0) for is_real in mask.tolist()])
    return TokenText(tokens, offsets, found, special)


def _place(ids: list[int], text: str | None, spans: list[Span], tokenizer: Any) -> tuple[str, list[Span]]:
    """The text of attended tokens and the span of each: ``text`` and its ``spans``, and behind it what was fed back.

    Ids without a text are placed in the one they decode to: by the tokenizer where that gives them back, else by name.
    """
    if text is None:
        decoded = str(tokenizer.decode(ids))
        encoding = encode(tokenizer, decoded, return_offsets_mapping=True)
        if list(encoding["input_ids"]) == ids:
            return decoded, [(start, end) for start, end in encoding["offset_mapping"]]
        text = ""
    spans = list(spans)
    for piece, count in _spell(ids, len(spans), tokenizer):
        spans += [(len(text), len(text) + len(piece))] * count
        text += piece
    return text, spans


def _spell(ids: list[int], start: int, tokenizer: Any) -> Iterator[tuple[str, int]]:
    """Yield what the tokens from ``start`` on add to the text before them, and of how many tokens it is.

    It is one, or up to four that share a character. Decoded alone a token could lose the space before it, hence the
    tokens before.
    """
    before, done = max(start - 1, 0), start
    for end in range(start + 1, len(ids) + 1):
        both = str(tokenizer.decode(ids[before:end]))
        if both.endswith(INCOMPLETE) and end < len(ids) and end - done < UTF8_BYTES:
            continue
        yield both[len(str(tokenizer.decode(ids[before:done]))) :], end - done
        before, done = done, end
