"""Names and places of tokens, for results that a person reads."""

import re
from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.calls.inputs import Batch
from hf_mambalrp.calls.tokenizing import encode, spelt
from hf_mambalrp.errors import InputError

Span = tuple[int, int]

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer decodes a part of a character to."""
UTF8_BYTES = 4
"""Bytes of a character, at most."""
UNKNOWN = (LookupError, ValueError, TypeError, AttributeError, OverflowError)
"""What tokenizers raise for an id that they do not know."""


def _alphabet() -> dict[str, int]:
    """The characters that stand for bytes in vocabularies: those of their own numbers, and GPT-2's for the others."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in range(256)} | {chr(256 + n): byte for n, byte in enumerate(others)}


ALPHABET = _alphabet()


@dataclass(frozen=True)
class TokenText:
    """Token strings of a batch, and where the tokenizer can tell, their places in the text."""

    tokens: list[list[str]]
    offsets: list[list[tuple[int, int]]] | None
    texts: list[str] | None
    special: Tensor | None
    """(B, L) bool: special tokens, and ids that the tokenizer does not know."""


def describe(input_ids: Tensor | None, attention_mask: Tensor, batch: Batch | None, tokenizer: Any | None) -> TokenText:
    """Name every token of the input that came from ``batch``, or from ids that the model wrote.

    Without a tokenizer a token's name is its id, for embeddings its position. A token that is a part of a character is
    named by its bytes, ``<0xE4>``; an id that the tokenizer does not know, as models whose vocabulary is padded have,
    is ``#50280``.
    """
    if input_ids is None:
        return TokenText([[f"[{i}]" for i in range(attention_mask.shape[1])]] * len(attention_mask), None, None, None)
    if tokenizer is None:
        return TokenText([[f"#{i}" for i in row] for row in input_ids.tolist()], None, None, None)
    ids, which = input_ids.unique(return_inverse=True)
    read = {i: _read(i, tokenizer) for i in ids.tolist()}
    names = [_shown(i, found) for i, found in read.items()]
    tokens = [[names[i] for i in row] for row in which.tolist()]
    unknown = [i for i, found in read.items() if found is None]
    special = torch.isin(input_ids, torch.tensor(sorted({*tokenizer.all_special_ids, *unknown}), dtype=torch.long))
    texts = None if batch is None else batch.texts
    known = None if batch is None else batch.offsets
    place = _place if getattr(tokenizer, "is_fast", False) else _aligned
    found, offsets = [], []
    for row, mask in enumerate(attention_mask != 0):
        text, spans = place(
            input_ids[row, mask].tolist(),
            None if texts is None else texts[row],
            [] if known is None else known[row],
            tokenizer,
        )
        found.append(text)
        places = iter(spans)
        offsets.append([next(places) if is_real else (0, 0) for is_real in mask.tolist()])
    return TokenText(tokens, offsets, found, special)


def spelling(ids: Sequence[int], tokenizer: Any) -> str:
    """Return the text that tokens add to a text before them; their names where one has none: an unknown id, a byte."""
    try:
        added = spelt(tokenizer, ids)
    except UNKNOWN:
        added = ""
    if added and INCOMPLETE not in added:
        return added
    names = [_read(i, tokenizer) for i in ids]
    text = _decoded(ids, tokenizer) if len(ids) > 1 and None not in names else None
    return text if text and INCOMPLETE not in text else "".join(map(_shown, ids, names))


def _read(token: int, tokenizer: Any) -> str | bytes | None:
    """The text of a token, its bytes where it is a part of a character, None where the tokenizer does not know it."""
    try:
        raw = tokenizer.convert_ids_to_tokens(token)
    except UNKNOWN:
        return None
    text = _decoded([token], tokenizer)
    if not raw or text is None:
        return None
    if raw == tokenizer.special_tokens_map.get("unk_token") and token != tokenizer.convert_tokens_to_ids(raw):
        return None
    if not text or INCOMPLETE in text:
        return _bytes(raw) or raw.replace("▁", " ")
    return f" {text}" if raw.startswith("▁") and not text[0].isspace() and not tokenizer.is_fast else text


def _bytes(raw: str) -> bytes | None:
    """What a token stands for in a vocabulary of bytes: written as ``<0xE4>``, or a character for each."""
    if re.fullmatch(r"<0x[0-9A-F]{2}>", raw):
        return bytes.fromhex(raw[3:5])
    return bytes(ALPHABET[c] for c in raw) if all(c in ALPHABET for c in raw) else None


def _shown(token: int, read: str | bytes | None) -> str:
    """How a token is named: an unknown id as ``#50280``, bytes that are no character as ``<0xE4>``."""
    if read is None:
        return f"#{token}"
    return read if isinstance(read, str) else _visible(read.decode("utf-8", "surrogateescape"))


def _visible(text: str) -> str:
    """Decoded text, with the bytes that are no character written out."""
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if "\udc80" <= c <= "\udcff" else c for c in text)


def _decoded(ids: Sequence[int], tokenizer: Any) -> str | None:
    """The text of tokens; None where the tokenizer does not know one."""
    try:
        return str(tokenizer.decode(list(ids)))
    except UNKNOWN:
        return None


def _place(ids: list[int], text: str | None, spans: list[Span], tokenizer: Any) -> tuple[str, list[Span]]:
    """The text of attended tokens and the span of each: ``text`` and its ``spans``, and behind it what was fed back.

    Ids without a text are placed in the one they decode to: by the tokenizer where that gives them back, else by name.
    """
    if text is None:
        decoded = str(tokenizer.decode(ids))
        text = ""
        with suppress(InputError):  # some read less than they write
            encoding = encode(tokenizer, decoded, return_offsets_mapping=True)
            if list(encoding["input_ids"]) == ids:
                return decoded, [(start, end) for start, end in encoding["offset_mapping"]]
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


def _aligned(ids: list[int], text: str | None, spans: list[Span], tokenizer: Any) -> tuple[str, list[Span]]:
    """What :func:`_place` gives, for a tokenizer that tells no places: each token is looked for next in the text.

    Tokens behind a text that was given were fed back. Where a token is not next in the text, none has a place.
    """
    pieces = [*_pieces(ids, tokenizer)]
    if text is None:
        text = _decoded(ids, tokenizer) or "".join(piece for piece, _ in pieces)
    special = {*tokenizer.all_special_ids}
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


def _pieces(ids: list[int], tokenizer: Any) -> Iterator[tuple[str, list[int]]]:
    """Yield the text of each token, or of those that share a character, and which they are."""
    read = {i: _read(i, tokenizer) for i in {*ids}}
    decoder = getincrementaldecoder("utf-8")("surrogateescape")
    group: list[int] = []
    for token in ids:
        part = read[token]
        if isinstance(part, bytes):
            group.append(token)
            text = decoder.decode(part)
            if text:
                yield _visible(text), group
                group = []
            continue
        if group:
            yield _visible(decoder.decode(b"", final=True)), group
            group = []
        yield _shown(token, part), [token]
    if group:
        yield _visible(decoder.decode(b"", final=True)), group
