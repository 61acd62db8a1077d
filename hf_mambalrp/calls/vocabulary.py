"""What a tokenizer calls its tokens, each asked for once."""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from hf_mambalrp.calls.tokenizing import neutral_prefixes, spelt

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer decodes a part of a character to."""
UNKNOWN = (LookupError, ValueError, TypeError, AttributeError, OverflowError)
"""What tokenizers raise for an id that they do not know."""


def _alphabet() -> dict[str, int]:
    """The characters that stand for bytes in vocabularies: those of their own numbers, and GPT-2's for the others."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in range(256)} | {chr(256 + n): byte for n, byte in enumerate(others)}


ALPHABET = _alphabet()


class Vocabulary:
    """The tokens of a tokenizer, which must not change meanwhile.

    A token that is a part of a character is named by its bytes, ``<0xE4>``; an id that the tokenizer does not know, as
    models whose vocabulary is padded have, is ``#50280``.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._tokens: dict[int, str | bytes | None] = {}
        self._spelt: dict[tuple[int, ...], str] = {}

    @cached_property
    def _prefixes(self) -> list[list[int]]:
        return neutral_prefixes(self.tokenizer)

    def read(self, token: int) -> str | bytes | None:
        """The text of a token, its bytes where it is a part of a character, None where it is not known."""
        if token not in self._tokens:
            self._tokens[token] = _read(token, self.tokenizer)
        return self._tokens[token]

    def name(self, token: int) -> str:
        """How a token is named."""
        return shown(token, self.read(token))

    def without_text(self, tokens: Iterable[int]) -> set[int]:
        """Special tokens of the tokenizer, and those of ``tokens`` that it does not know."""
        return {*self.tokenizer.all_special_ids, *(token for token in tokens if self.read(token) is None)}

    def spelling(self, ids: Sequence[int]) -> str:
        """The text that tokens add to a text before them; their names where one has none: an unknown id, a byte."""
        key = tuple(ids)
        if key not in self._spelt:
            self._spelt[key] = self._spelling(key)
        return self._spelt[key]

    def _spelling(self, ids: tuple[int, ...]) -> str:
        try:
            added = spelt(self.tokenizer, ids, self._prefixes)
        except UNKNOWN:
            added = ""
        if added and INCOMPLETE not in added:
            return added
        known = len(ids) > 1 and all(self.read(token) is not None for token in ids)
        text = decoded(ids, self.tokenizer) if known else None
        return text if text and INCOMPLETE not in text else "".join(map(self.name, ids))


def _read(token: int, tokenizer: Any) -> str | bytes | None:
    """The text of a token, its bytes where it is a part of a character, None where the tokenizer does not know it."""
    try:
        raw = tokenizer.convert_ids_to_tokens(token)
    except UNKNOWN:
        return None
    text = decoded([token], tokenizer)
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


def shown(token: int, read: str | bytes | None) -> str:
    """How a token is named: an unknown id as ``#50280``, bytes that are no character as ``<0xE4>``."""
    if read is None:
        return f"#{token}"
    return read if isinstance(read, str) else visible(read.decode("utf-8", "surrogateescape"))


def visible(text: str) -> str:
    """Decoded text, with the bytes that are no character written out."""
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if "\udc80" <= c <= "\udcff" else c for c in text)


def decoded(ids: Sequence[int], tokenizer: Any) -> str | None:
    """The text of tokens; None where the tokenizer does not know one."""
    try:
        return str(tokenizer.decode(list(ids)))
    except UNKNOWN:
        return None
