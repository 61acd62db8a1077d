"""What the card of a model says: how to explain it, explanations, and figures of faithfulness."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import ModelCardData

from hf_mambalrp.hub.card import listed, metadata, section_of, with_data, with_metadata, with_section
from hf_mambalrp.hub.figures import HEADING, evaluation_section, model_index
from hf_mambalrp.viz.markdown import escaped, literal

TAGS = ("mamba", "explainability", "lrp", "hf_mambalrp")
TASKS = {
    "text-classification": "SequenceClassification",
    "image-classification": "ImageClassification",
    "text-generation": "CausalLM",
}
"""Ends of our classes' names."""
RELIED = "### What it relies on"
"""A line of its own, the first of an audit."""
PHOTO = "photo.jpg"
"""Of the reader's own, in the program of an image classifier."""
SAMPLE = {"text-classification": "A dull and lifeless film.", "text-generation": "The capital of France is"}
SAMPLE_LENGTH = 200
"""A longer text is not repeated in the card's program."""
SAMPLE_IDS = 32
"""Tokens in the program of a model without a tokenizer."""
PICTURES = [f"explanations/explanation-{number}.png" for number in range(1, 9)]
"""Where a card's pictures are in its repository, one for every explanation that it shows."""


@dataclass(frozen=True)
class ShownRows:
    """Explanations as a card shows them."""

    markdown: str
    pictures: Mapping[str, bytes]
    """What the Markdown links to, by path: the first of ``PICTURES``."""
    text: str | None
    """One text that was explained, for the card's program."""
    ids: Sequence[int] | None
    """Token ids of one row that was explained, for the program of a model without a tokenizer."""


@dataclass(frozen=True)
class Contents:
    """What a card says about a model, from plain data."""

    stock_name: str
    """Its class in transformers."""
    shown: ShownRows | None
    """None: those of an earlier card stay."""
    results: Mapping[str, Any] | None
    """Figures of an evaluation by :func:`hf_mambalrp.hub.figures.checked_results`; None: an earlier card's stay."""
    tags: Sequence[str]
    """More than the card has anyway."""
    audit: str | None = None
    """Markdown of an audit, whose first line is ``RELIED``; None: an earlier card's stays."""

    @property
    def pictures(self) -> Mapping[str, bytes]:
        """By their path beside the card."""
        return {} if self.shown is None else self.shown.pictures

    @property
    def replaced(self) -> Sequence[str]:
        """Files of an earlier card that do not stay."""
        return () if self.shown is None else PICTURES

    @property
    def pipeline(self) -> str:
        """What the model is for, in the Hub's words."""
        return next((task for task, name in TASKS.items() if name in self.stock_name), "text-generation")

    @property
    def reads_images(self) -> bool:
        """Whether the model reads images, which an image processor brings into its form; else text and a tokenizer."""
        return self.pipeline == "image-classification"

    def extending(self, there: str, repo_id: str, readable: bool) -> str:
        """The card that was ``there``, extended; explanations or figures that are not given stay as they are in it.

        ``readable`` says whether what brings text or images into the model's form is there.
        """
        name = repo_id.rpartition("/")[2]
        card = there or f"# {escaped(name)}\n\nA Mamba model, `{self.stock_name}`.\n"
        data = ModelCardData(library_name="transformers", pipeline_tag=self.pipeline, tags=[*self.tags, *TAGS])
        card = with_data(card, data)
        if self.results is not None:
            index = model_index(self.results, name, listed(metadata(card), "model-index"))
            card = with_metadata(card, {"model-index": index})
        earlier = section_of(card)
        if earlier is not None and self.shown is None and self.results is None and self.audit is None:
            return card
        earlier, relied, audit = (earlier or "").partition(f"{RELIED}\n")
        shown, heading, figures = earlier.partition(f"{HEADING}\n")
        if self.shown is not None or not shown:
            shown = f"{self._program(repo_id, readable)}\n\n{self.shown.markdown if self.shown else ''}"
        figures = heading + figures if self.results is None else evaluation_section(self.results)
        audit = relied + audit if self.audit is None else self.audit
        return with_section(card, "\n\n".join(part.strip() for part in (shown, figures, audit) if part.strip()))

    def _program(self, repo_id: str, readable: bool) -> str:
        auto_class, part = f"AutoMambaLRPFor{TASKS[self.pipeline]}", "patch" if self.reads_images else "token"
        lines = [
            f"from hf_mambalrp import {auto_class}",
            "",
            f"model = {auto_class}.from_pretrained({literal(repo_id)})",
            f"explanation = model.explain({self._sample() if readable else self._sample_ids()})",
            "print(explanation)  # explanation.show() in a notebook",
            'explanation.to_html("explanation.html")',
        ]
        return "\n".join(
            [
                "## Why does it say that?\n",
                "[MambaLRP](https://arxiv.org/abs/2406.07592) gives "
                f"every {part} its share of a prediction. "
                "With the Python package `hf_mambalrp`:\n",
                "```python",
                *([] if readable else ["import torch"]),
                *lines,
                "```",
            ]
        )

    def _sample(self) -> str:
        if self.reads_images:
            return literal(PHOTO)
        text = self.shown.text if self.shown else None
        return literal(SAMPLE[self.pipeline] if text is None or len(text) > SAMPLE_LENGTH else text)

    def _sample_ids(self) -> str:
        ids = self.shown.ids if self.shown else None
        return f"input_ids=torch.tensor([{[0, 1, 2] if ids is None else ids[:SAMPLE_IDS]}])"
