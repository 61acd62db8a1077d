"""The models a visitor can choose from: an allow-list, loaded on demand, at most four in memory."""

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from hf_mambalrp import (
    DEMO_LANGUAGE_MODEL,
    DEMO_MODEL,
    DEMO_VISION_MODEL,
    AutoMambaLRPForCausalLM,
    AutoMambaLRPForImageClassification,
    AutoMambaLRPForSequenceClassification,
)
from hf_mambalrp.errors import InputError, MambaLRPError
from hf_mambalrp.models.beside import reader_beside
from hf_mambalrp.models.packaged import folder_of
from hf_mambalrp.runs.files import read_json
from hf_mambalrp.space.examples import FILM, FILMS, LETTER, OF_TASK, STORIES
from hf_mambalrp.space.limits import RefusedError

CLASSES = {
    "text-classification": AutoMambaLRPForSequenceClassification,
    "text-generation": AutoMambaLRPForCausalLM,
    "image-classification": AutoMambaLRPForImageClassification,
}
IN_MEMORY = 4
"""The packaged models are small; of the others one is in use and one may be on its way."""


@dataclass(frozen=True)
class Entry:
    """One line of the allow-list."""

    id: str
    title: str
    task: str
    audit: str | None = None
    """A file that ``Audit.save`` wrote."""
    examples: Mapping[str, str] = field(default_factory=dict)
    """Texts to begin with, by their names; without any there are those of the task."""
    document: str = LETTER
    """A long one."""

    @property
    def begun_with(self) -> Mapping[str, str]:
        """The texts that the page offers for it."""
        return self.examples or OF_TASK[self.task]


PACKAGED = Entry(
    DEMO_MODEL,
    "Film reviews: positive or negative",
    "text-classification",
    str(Path(DEMO_MODEL) / "audit.json"),
    FILMS,
    FILM,
)
PACKAGED_LANGUAGE = Entry(DEMO_LANGUAGE_MODEL, "Small stories: a language model", "text-generation", examples=STORIES)
PACKAGED_VISION = Entry(DEMO_VISION_MODEL, "Scenes of clothes: ten garments", "image-classification")
ALL_PACKAGED = (PACKAGED, PACKAGED_LANGUAGE, PACKAGED_VISION)


def read_allow_list(path: Path) -> list[Entry]:
    """Read an allow-list, which names all that can be chosen. InputError: it is none.

    A packaged model's id is its constant's name, as ``DEMO_LANGUAGE_MODEL``; its audit and its examples come with it.
    """
    lines = read_json(path, "a list of models in JSON, as spaces_app/models.json is")
    if not isinstance(lines, list) or not lines:
        raise InputError(f"{path} holds no list. Give one of models, each with an id, a title and a task.")
    entries = []
    for line in lines:
        if not _is_model(line):
            raise InputError(
                f"{path}: {line!r} is no model; give an id, a title and a task, one of {list(CLASSES)}, and where "
                "there are such the file of an audit and examples, texts by their names."
            )
        folder = folder_of(line["id"])
        known = next((packaged for packaged in ALL_PACKAGED if packaged.id == folder), Entry(folder, "", line["task"]))
        given = {name: line[name] for name in ("title", "task", "examples") if name in line}
        if "audit" in line:
            given["audit"] = str(path.parent / line["audit"])
        entries.append(replace(known, **given))
    return sorted(entries, key=lambda listed: list(CLASSES).index(listed.task))


def _is_model(line: Any) -> bool:
    """Whether it is a line of an allow-list."""
    if not isinstance(line, dict) or set(line) - {"audit", "examples"} != {"id", "title", "task"}:
        return False
    examples = line.get("examples", {})
    of_texts = isinstance(examples, dict) and all(isinstance(text, str) and text for text in examples.values())
    return line["task"] in CLASSES and of_texts


class Catalog:
    """What an app lets its visitors choose from, and what of it is in memory, with tokenizers or image processors.

    A model is loaded once however many ask for it, and those who ask for another one do not wait for it. The one that
    was not used for longest makes room.
    """

    def __init__(self, entries: Sequence[Entry] = ALL_PACKAGED) -> None:
        self.entries = entries
        self.lock, self.kept = Lock(), OrderedDict[str, tuple[Any, Any]]()
        self.loading: defaultdict[str, Lock] = defaultdict(Lock)

    def titles(self, *tasks: str) -> list[str]:
        """Titles of the models of these tasks."""
        return [entry.title for entry in self.entries if entry.task in tasks]

    def entry(self, title: str) -> Entry:
        """The model of this title. RefusedError: it is not on the list."""
        for found in self.entries:
            if found.title == title:
                return found
        raise RefusedError("That model is not one of this Space. Choose one from the list.")

    def get(self, title: str) -> tuple[Any, Any]:
        """Model and tokenizer, or image processor. RefusedError: not on the list, or it cannot be loaded."""
        wanted = self.entry(title)
        with self.lock:
            loading = self.loading[wanted.id]
        with loading:
            found = self.kept.get(wanted.id) or self._load(wanted)
            with self.lock:
                self.kept[wanted.id] = found
                self.kept.move_to_end(wanted.id)
                while len(self.kept) > IN_MEMORY:
                    self.kept.popitem(last=False)
        return found

    @staticmethod
    def _load(wanted: Entry) -> tuple[Any, Any]:
        from transformers import AutoTokenizer

        try:
            model = CLASSES[wanted.task].from_pretrained(wanted.id, dtype=torch.float32).eval()
            if wanted.task == "image-classification":
                return model, reader_beside(model)()
            return model, AutoTokenizer.from_pretrained(wanted.id)
        except (MambaLRPError, OSError, ValueError) as error:
            print(f"{wanted.id} cannot be loaded: {error}")
            raise RefusedError(
                f"The model “{wanted.title}” could not be loaded just now. "
                "Please choose another one, or try again later."
            ) from error
