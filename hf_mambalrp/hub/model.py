"""A model on the Hub, or in a folder: weights as transformers writes them, and a card that explains the model."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_mambalrp.families import FAMILIES, Network
from hf_mambalrp.hub.card import decode, has_section, joined, metadata, with_metadata, with_section
from hf_mambalrp.hub.figures import checked_results, evaluation_section, model_index
from hf_mambalrp.hub.markdown import escaped, literal
from hf_mambalrp.hub.repository import CARD, Token, open_repository
from hf_mambalrp.hub.shown import PICTURES, AnyExplanation, explanations_section, rows
from hf_mambalrp.inputs import TokenizerSource
from hf_mambalrp.mixin import stock_class

TOKENIZER = "tokenizer_config.json"
TAGS = ("mamba", "explainability", "lrp", "hf_mambalrp")
SAMPLE = {"text-classification": "A dull and lifeless film.", "text-generation": "The capital of France is"}
SAMPLE_LENGTH = 200
"""A longer text is not repeated in the card's program."""


def push_model(
    model: Any,
    repo_id: str,
    *,
    explanations: Any,
    evaluation: Any,
    tokenizer: Any,
    private: bool | None,
    token: Token,
    revision: str | None,
    create_pr: bool,
    commit_message: str | None,
    commit_description: str | None,
    tags: Sequence[str] | None,
    save_options: Mapping[str, Any],
) -> Any:
    """Push a model with its card; :meth:`hf_mambalrp.MambaLRPMixin.push_to_hub` documents the arguments."""
    contents = Contents(model, explanations, evaluation, tags)
    repository = open_repository(repo_id, "model", private=private, token=token, revision=revision)
    there = repository.read(CARD)
    if tokenizer is None and TOKENIZER not in repository.files:  # one that is there may be another than the model's
        tokenizer = TokenizerSource(None, Network(model, FAMILIES)).find()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, **save_options)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        saved = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        files: dict[str, bytes | Path] = {path.relative_to(folder).as_posix(): path for path in saved}
        card, pictures = contents.card(decode(there or b""), repository.repo_id)
        files |= {CARD: card.encode(), **pictures}
        return repository.commit(
            files,
            commit_message or f"Upload {contents.stock_name} with hf_mambalrp",
            replaced=[PICTURES] if contents.given else [],
            create_pr=create_pr,
            commit_description=commit_description,
        )


def write_card(model: Any, folder: str | Path, name: str, explanations: Any, evaluation: Any) -> None:
    """Write or extend the card in a folder, with its pictures."""
    place = Path(folder)
    path = place / CARD
    contents = Contents(model, explanations, evaluation, None)
    card, pictures = contents.card(decode(path.read_bytes()) if path.is_file() else "", name)
    for old in place.glob(PICTURES):
        old.unlink()
    for picture, content in pictures.items():
        (place / picture).parent.mkdir(exist_ok=True)
        (place / picture).write_bytes(content)
    path.write_bytes(card.encode())


class Contents:
    """What a card says about a model; checked before anything is written."""

    def __init__(self, model: Any, explanations: Any, evaluation: Any, tags: Sequence[str] | None) -> None:
        self.rows: list[tuple[AnyExplanation, int]] = [] if explanations is None else rows(explanations)
        self.results = None if evaluation is None else checked_results(evaluation)
        self.tags = [*(tags or []), *TAGS]
        self.stock_name = stock_class(type(model)).__name__
        classifier = "SequenceClassification" in self.stock_name
        self.auto_class = f"AutoMambaLRPFor{'SequenceClassification' if classifier else 'CausalLM'}"
        self.pipeline = "text-classification" if classifier else "text-generation"

    @property
    def given(self) -> bool:
        """Whether there is anything to show; a push without it leaves the section of an earlier one alone."""
        return bool(self.rows) or self.results is not None

    def card(self, there: str, repo_id: str) -> tuple[str, dict[str, bytes]]:
        """The card that was ``there``, extended, and the pictures it links to."""
        name = repo_id.rpartition("/")[2]
        card = there or f"# {escaped(name)}\n\nA Mamba model, `{self.stock_name}`.\n"
        found = metadata(card)
        values = {
            "library_name": found.get("library_name") or "transformers",
            "pipeline_tag": found.get("pipeline_tag") or self.pipeline,
            "tags": joined(found.get("tags"), self.tags),
        }
        if self.results is not None:
            values["model-index"] = model_index(self.results, name, found.get("model-index"))
        card = with_metadata(card, values)
        if has_section(card) and not self.given:
            return card, {}
        shown, pictures = explanations_section(self.rows)
        parts = [self._program(repo_id), shown, "" if self.results is None else evaluation_section(self.results)]
        return with_section(card, "\n\n".join(part for part in parts if part)), pictures

    def _program(self, repo_id: str) -> str:
        text = next((one.texts[row] for one, row in self.rows if one.texts), None)
        text = SAMPLE[self.pipeline] if text is None or len(text) > SAMPLE_LENGTH else text
        return (
            "## Why does it say that?\n\n"
            "[MambaLRP](https://arxiv.org/abs/2406.07592) gives every token its share of a prediction. "
            "With the Python package `hf_mambalrp`:\n\n"
            "```python\n"
            f"from hf_mambalrp import {self.auto_class}\n\n"
            f"model = {self.auto_class}.from_pretrained({literal(repo_id)})\n"
            f"explanation = model.explain({literal(text)})\n"
            "print(explanation)  # explanation.show() in a notebook\n"
            'explanation.to_html("explanation.html")\n'
            "```"
        )
