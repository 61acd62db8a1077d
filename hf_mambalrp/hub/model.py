"""A model on the Hub, or in a folder: weights as transformers writes them, and a card that explains the model."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_mambalrp.calls.inputs import TokenizerSource
from hf_mambalrp.families import FAMILIES, Network
from hf_mambalrp.hub.card import decode, joined, listed, metadata, section_of, with_metadata, with_section
from hf_mambalrp.hub.checks import check_evaluation, check_explanations
from hf_mambalrp.hub.figures import HEADING, checked_results, evaluation_section, model_index
from hf_mambalrp.hub.repository import CARD, Token, open_repository
from hf_mambalrp.hub.shown import PICTURES, SHOWN, AnyExplanation, explanations_section, rows
from hf_mambalrp.models.mixin import stock_class
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.viz.markdown import escaped, literal

TOKENIZER = "tokenizer_config.json"
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
"""Of a model in one file or in shards; transformers reads the one file first, also where it is an earlier push's."""
TAGS = ("mamba", "explainability", "lrp", "hf_mambalrp")
SAMPLE = {"text-classification": "A dull and lifeless film.", "text-generation": "The capital of France is"}
SAMPLE_LENGTH = 200
"""A longer text is not repeated in the card's program."""
SAMPLE_IDS = 32
"""Tokens in the program of a model without a tokenizer."""


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
        tokenizer = _tokenizer(model)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, **save_options)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        saved = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        files: dict[str, bytes | Path] = {path.relative_to(folder).as_posix(): path for path in saved}
        readable = tokenizer is not None or TOKENIZER in repository.files
        files[CARD] = contents.card(decode(there or b""), repository.repo_id, readable).encode()
        files |= contents.pictures
        return repository.commit(
            files,
            commit_message or f"Upload {contents.stock_name} with hf_mambalrp",
            replaced=[*contents.replaced, *(() if save_options.get("variant") else WEIGHTS)],
            create_pr=create_pr,
            commit_description=commit_description,
        )


def write_card(model: Any, folder: str | Path, name: str, explanations: Any, evaluation: Any) -> None:
    """Write or extend the card in a folder, with its pictures; the tokenizer, which it needs, goes with it."""
    place = Path(folder)
    path = place / CARD
    contents = Contents(model, explanations, evaluation, None)
    tokenizer = None if (place / TOKENIZER).is_file() else _tokenizer(model)
    readable = tokenizer is not None or (place / TOKENIZER).is_file()
    card = contents.card(decode(path.read_bytes()) if path.is_file() else "", name, readable)
    if tokenizer is not None:
        tokenizer.save_pretrained(place)
    for old in contents.replaced:
        (place / old).unlink(missing_ok=True)
    for picture, content in contents.pictures.items():
        (place / picture).parent.mkdir(exist_ok=True)
        (place / picture).write_bytes(content)
    path.write_bytes(card.encode())


def _tokenizer(model: Any) -> Any | None:
    """The tokenizer beside the model, or None."""
    return TokenizerSource(None, Network(model, FAMILIES)).find(again=True)


def _read(one: AnyExplanation, row: int) -> str:
    """The text that was explained, of a language model up to the position whose prediction it was."""
    assert one.texts is not None
    if isinstance(one, Explanation):
        last = None if one.position is None else int(one.position[row])
    else:
        last = one.prompt_length - 1
    return one.texts[row] if last is None or one.offsets is None else one.texts[row][: one.offsets[row][last][1]]


class Contents:
    """What a card says about a model; checked before anything is written."""

    def __init__(self, model: Any, explanations: Any, evaluation: Any, tags: Sequence[str] | None) -> None:
        self.rows: list[tuple[AnyExplanation, int]] = [] if explanations is None else rows(explanations)
        self.results = None if evaluation is None else checked_results(evaluation)
        if self.results is not None:
            check_evaluation(self.results, model)
        check_explanations(self.rows[:SHOWN], model)
        self.replaced = [] if explanations is None else PICTURES
        self.shown, self.pictures = explanations_section(self.rows)
        self.tags = [*(tags or []), *TAGS]
        self.stock_name = stock_class(type(model)).__name__
        classifier = "SequenceClassification" in self.stock_name
        self.auto_class = f"AutoMambaLRPFor{'SequenceClassification' if classifier else 'CausalLM'}"
        self.pipeline = "text-classification" if classifier else "text-generation"

    def card(self, there: str, repo_id: str, readable: bool) -> str:
        """The card that was ``there``, extended; explanations or figures that are not given stay as they are in it.

        ``readable`` says whether the model has a tokenizer there, so that it can be given text.
        """
        name = repo_id.rpartition("/")[2]
        card = there or f"# {escaped(name)}\n\nA Mamba model, `{self.stock_name}`.\n"
        found = metadata(card)
        values = {
            "library_name": found.get("library_name") or "transformers",
            "pipeline_tag": found.get("pipeline_tag") or self.pipeline,
            "tags": joined(listed(found, "tags"), self.tags),
        }
        if self.results is not None:
            values["model-index"] = model_index(self.results, name, listed(found, "model-index"))
        card = with_metadata(card, values)
        earlier = section_of(card)
        if earlier is not None and not self.replaced and self.results is None:
            return card
        shown, heading, figures = (earlier or "").partition(f"{HEADING}\n")
        if self.replaced or not shown:
            shown = f"{self._program(repo_id, readable)}\n\n{self.shown}"
        figures = heading + figures if self.results is None else evaluation_section(self.results)
        return with_section(card, f"{shown.strip()}\n\n{figures}")

    def _program(self, repo_id: str, readable: bool) -> str:
        lines = [
            f"from hf_mambalrp import {self.auto_class}",
            "",
            f"model = {self.auto_class}.from_pretrained({literal(repo_id)})",
            f"explanation = model.explain({self._sample() if readable else self._sample_ids()})",
            "print(explanation)  # explanation.show() in a notebook",
            'explanation.to_html("explanation.html")',
        ]
        return "\n".join(
            [
                "## Why does it say that?\n",
                "[MambaLRP](https://arxiv.org/abs/2406.07592) gives every token its share of a prediction. "
                "With the Python package `hf_mambalrp`:\n",
                "```python",
                *([] if readable else ["import torch"]),
                *lines,
                "```",
            ]
        )

    def _sample(self) -> str:
        text = next((_read(one, row) for one, row in self.rows if one.texts), None)
        return literal(SAMPLE[self.pipeline] if text is None or len(text) > SAMPLE_LENGTH else text)

    def _sample_ids(self) -> str:
        known = [(one.input_ids[row], one.attention_mask[row]) for one, row in self.rows if one.input_ids is not None]
        ids = known[0][0][known[0][1] != 0][:SAMPLE_IDS].tolist() if known else [0, 1, 2]
        return f"input_ids=torch.tensor([{ids}])"
