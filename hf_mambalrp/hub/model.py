"""A model on the Hub, or in a folder: weights as transformers writes them, and a card that explains the model."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from hf_mambalrp.hub.card import card_text
from hf_mambalrp.hub.model_card import Contents
from hf_mambalrp.hub.repository import CARD, Token, open_repository

TOKENIZER, PROCESSOR = "tokenizer_config.json", "preprocessor_config.json"
"""Files by which a tokenizer and an image processor are known."""
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
"""Weights in one file or in shards; transformers reads the one file first, also where it is an earlier push's."""


class Saves(Protocol):
    """A model, a tokenizer or an image processor, as transformers writes it."""

    def save_pretrained(self, save_directory: Any, **options: Any) -> Any:
        """Write its files into a folder."""


def push_model(
    model: Saves,
    contents: Contents,
    repo_id: str,
    *,
    reader: Saves | None,
    beside: Callable[[], Saves | None],
    private: bool | None,
    token: Token,
    revision: str | None,
    create_pr: bool,
    commit_message: str | None,
    commit_description: str | None,
    save_options: Mapping[str, Any],
) -> Any:
    """Push a model with its card; :meth:`hf_mambalrp.MambaLRPMixin.push_to_hub` documents the other arguments.

    ``reader`` is the tokenizer or image processor; ``beside`` finds the one that the model has, for a repository that
    lacks one.
    """
    repository = open_repository(repo_id, "model", private=private, token=token, revision=revision)
    there = repository.read(CARD)
    known_by = PROCESSOR if contents.reads_images else TOKENIZER
    if reader is None and known_by not in repository.files:  # one that is there may be another than the model's
        reader = beside()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, **save_options)
        if reader is not None:
            reader.save_pretrained(folder)
        saved = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        files: dict[str, bytes | Path] = {path.relative_to(folder).as_posix(): path for path in saved}
        readable = reader is not None or known_by in repository.files
        files[CARD] = contents.extending(card_text(there or b""), repository.repo_id, readable).encode()
        files |= contents.pictures
        return repository.commit(
            files,
            commit_message or f"Upload {contents.stock_name} with hf_mambalrp",
            replaced=[*contents.replaced, *(() if save_options.get("variant") else WEIGHTS)],
            create_pr=create_pr,
            commit_description=commit_description,
        )


def write_card(contents: Contents, folder: str | Path, *, beside: Callable[[], Saves | None]) -> None:
    """Write or extend the card in a folder, with its pictures; what reads its input, which it needs, goes with it."""
    place = Path(folder)
    path = place / CARD
    there = (place / (PROCESSOR if contents.reads_images else TOKENIZER)).is_file()
    reader = None if there else beside()
    readable = there or reader is not None
    text = contents.extending(card_text(path.read_bytes()) if path.is_file() else "", place.resolve().name, readable)
    if reader is not None:
        reader.save_pretrained(place)
    for old in contents.replaced:
        (place / old).unlink(missing_ok=True)
    for picture, content in contents.pictures.items():
        (place / picture).parent.mkdir(exist_ok=True)
        (place / picture).write_bytes(content)
    path.write_bytes(text.encode())
