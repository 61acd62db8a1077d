"""Names and places of tokens, for results that a person reads."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.inputs import Batch


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
    texts, spans = None if batch is None else batch.texts, None if batch is None else batch.offsets
    real = (attention_mask != 0).tolist()
    if spans is None or [len(row) for row in spans] != [sum(row) for row in real]:  # more where a target was fed back
        texts, spans = _place(input_ids, attention_mask, texts, tokenizer)
    if spans is None:
        return TokenText(tokens, None, texts, special)
    places = [iter(row) for row in spans]
    offsets = [[next(place) if is_real else (0, 0) for is_real in row] for place, row in zip(places, real, strict=True)]
    return TokenText(tokens, offsets, texts, special)


def _place(
    input_ids: Tensor, attention_mask: Tensor, texts: list[str] | None, tokenizer: Any
) -> tuple[list[str] | None, list[list[tuple[int, int]]] | None]:
    """Texts and character spans of attended tokens, if for every row some text is known to give exactly its tokens."""
    if not getattr(tokenizer, "is_fast", False):
        return texts, None
    found, spans = [], []
    for row, (ids, mask) in enumerate(zip(input_ids, attention_mask != 0, strict=True)):
        attended = ids[mask].tolist()
        text = tokenizer.decode(attended) if texts is None else texts[row]
        encoding = tokenizer(text, return_offsets_mapping=True)
        if list(encoding["input_ids"]) != attended:
            return texts, None
        found.append(text)
        spans.append([(start, end) for start, end in encoding["offset_mapping"]])
    return found, spans
