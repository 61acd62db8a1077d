"""Names and places of tokens, for results that a person reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenText:
    """Token strings of a batch, and where the tokenizer can tell, their places in the text."""

    tokens: list[list[str]]
    offsets: list[list[tuple[int, int]]] | None
    texts: list[str] | None
    special: Tensor | None
    """(B, L) bool."""


def describe(
    input_ids: Tensor | None, attention_mask: Tensor, texts: Sequence[str] | None, tokenizer: Any | None
) -> TokenText:
    """Name every token of a batch; without a tokenizer by its id, for embeddings by its position."""
    if input_ids is None:
        return TokenText([[f"[{i}]" for i in range(attention_mask.shape[1])]] * len(attention_mask), None, None, None)
    if tokenizer is None:
        return TokenText([[f"#{i}" for i in row] for row in input_ids.tolist()], None, None, None)
    tokens = [[str(tokenizer.decode([i])) for i in row] for row in input_ids.tolist()]
    special = torch.isin(input_ids, torch.tensor(sorted(tokenizer.all_special_ids), dtype=torch.long))
    placed = _place(input_ids, attention_mask, texts, tokenizer)
    if placed is None:
        return TokenText(tokens, None, None if texts is None else list(texts), special)
    return TokenText(tokens, placed[1], placed[0], special)


def _place(
    input_ids: Tensor, attention_mask: Tensor, texts: Sequence[str] | None, tokenizer: Any
) -> tuple[list[str], list[list[tuple[int, int]]]] | None:
    """Texts and character spans, if for every row some text is known to give exactly its tokens."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    found, spans = [], []
    for row, (ids, mask) in enumerate(zip(input_ids, attention_mask != 0, strict=True)):
        attended = ids[mask].tolist()
        text = tokenizer.decode(attended) if texts is None else texts[row]
        encoding = tokenizer(text, return_offsets_mapping=True)
        if list(encoding["input_ids"]) != attended:
            return None
        offsets = iter(encoding["offset_mapping"])
        found.append(text)
        spans.append([tuple(next(offsets)) if real else (0, 0) for real in mask.tolist()])
    return found, spans
