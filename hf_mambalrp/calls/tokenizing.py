"""What is asked of a tokenizer: to be loaded, to read text, and to say which tokens a text has behind another one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hf_mambalrp.errors import InputError
from hf_mambalrp.viz.wording import shorten

TAIL = 1000
"""Characters of a text that can decide how what follows it is split into tokens."""
NEUTRAL = (":", "\n")
"""Prefixes that a tokenizer joins to hardly anything."""


def load_tokenizer(path: str, revision: str | None = None) -> Any | None:
    """The tokenizer of a folder or Hub id, None where there is none."""
    try:
        found = AutoTokenizer.from_pretrained(path, **({} if revision is None else {"revision": revision}))
    except (OSError, ValueError, KeyError, ImportError):
        return None
    # Where there are no files of one, transformers 5 makes one up, of special tokens only.
    return None if len(found) <= len(found.all_special_ids) else found


def encode(tokenizer: Any, text: str | list[str], **options: Any) -> Any:
    """What the tokenizer returns for ``text``, without its warning of a longest input, which Mamba does not have.

    Raises:
        InputError: the text has what a tokenizer without an unknown token does not know.
    """
    quiet = {"verbose": False} if isinstance(tokenizer, PreTrainedTokenizerBase) else {}
    try:
        return tokenizer(text, **quiet, **options)
    except Exception as error:
        if type(error) is not Exception:  # the library of tokenizers raises nothing more precise
            raise
        raise InputError(f"The tokenizer cannot read {shorten(repr(text), 60)}: {error}. Give other text.") from error


def continuation(tokenizer: Any, before: str, text: str) -> tuple[int, ...]:
    """Ids of the tokens by which ``before`` is continued where ``text`` is put behind it as it stands.

    They are what ``tokenizer(before + text)`` has behind the tokens of ``before``. Where it joins both in one token
    ("is" and "land"), or where nothing is known to stand before, they are those of ``text`` behind a neutral character:
    a space in front begins a word, no space continues one, whatever the tokenizer itself puts before what it reads.
    """
    for prefix in (before[-TAIL:], *NEUTRAL):
        found = _behind(tokenizer, prefix, text) if prefix else ()
        if found:
            return found
    return tuple(encode(tokenizer, text, add_special_tokens=False)["input_ids"])


def _behind(tokenizer: Any, prefix: str, text: str) -> tuple[int, ...]:
    """What ``prefix + text`` has behind the tokens of ``prefix``; () where it does not keep or cannot read these."""
    fast = bool(getattr(tokenizer, "is_fast", False))
    placed = {"return_offsets_mapping": True} if fast else {}
    try:
        both = encode(tokenizer, prefix + text, add_special_tokens=False, **placed)
        first = list(encode(tokenizer, prefix, add_special_tokens=False)["input_ids"])
    except InputError:
        return ()
    ids = list(both["input_ids"])
    if ids[: len(first)] != first:
        return ()
    # Equal ids are not enough: an unknown word stays the unknown token when it is continued.
    if fast and first:
        joined = both["offset_mapping"][len(first) - 1][1] > len(prefix)
    else:
        joined = bool(first) and first[-1] == getattr(tokenizer, "unk_token_id", None)
    return () if joined else tuple(ids[len(first) :])


def neutral_prefixes(tokenizer: Any) -> list[list[int]]:
    """Tokens of the prefixes that the tokenizer knows."""
    found = []
    for prefix in NEUTRAL:
        try:
            before = list(encode(tokenizer, prefix, add_special_tokens=False)["input_ids"])
        except InputError:
            continue
        if before and getattr(tokenizer, "unk_token_id", None) not in before:
            found.append(before)
    return found


def spelt(tokenizer: Any, ids: Sequence[int], prefixes: Sequence[Sequence[int]]) -> str:
    """The text that tokens add to what stands before them; decoded alone they could lose the space in front."""
    for before in prefixes:
        both, first = str(tokenizer.decode([*before, *ids])), str(tokenizer.decode(list(before)))
        if both.startswith(first):
            return both[len(first) :]
    return str(tokenizer.decode(list(ids)))


class Place:
    """The place that a model was loaded from, and the tokenizer found there."""

    def __init__(self, name: str, revision: str | None) -> None:
        self.name, self.revision = name, revision
        self.folder = Path(name).resolve() if name and Path(name).is_dir() else None
        self._state: object = None
        self._found: Any | None = None

    def tokenizer(self, again: bool) -> Any | None:
        """The tokenizer, loaded anew where the folder's files have changed.

        Of a Hub id it stays the one of the model's revision. That there is none is remembered, since asking takes
        time, unless ``again`` is True.
        """
        if not self.name:
            return None
        state = True if self.folder is None else _state(self.folder)
        if state != self._state or (again and self._found is None):
            self._found = load_tokenizer(str(self.folder or self.name), self.revision)
            self._state = state
        return self._found


def _state(folder: Path) -> object:
    """Changes whenever a file in the folder does."""
    try:  # a link may lead nowhere
        found = [(path.name, path.stat() if path.exists() else path.lstat()) for path in folder.iterdir()]
    except OSError:
        return ()
    return sorted((name, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino) for name, stat in found)
