"""Models and tokenizers for the command, from a folder, the Hub or its cache."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from hf_mambalrp.errors import InputError
from hf_mambalrp.models.packaged import folder_of

AT_THE_END = ExitStack()
"""What is undone when the command ends."""
IMAGES = "ImageClassification"
"""In the name of the class of a checkpoint that reads images."""


def load_model(model: str | None) -> Any:
    """Load the explainable class that the checkpoint's ``architectures`` asks for; None is the packaged classifier."""
    name = _reached("DEMO_MODEL" if model is None else model)

    from hf_mambalrp.models.auto import AutoMambaLRPForCausalLM, AutoMambaLRPForSequenceClassification, configuration

    architectures = configuration(name).architectures or []
    if any(IMAGES in architecture for architecture in architectures):
        raise InputError(
            f"--model {model} reads images ({architectures[0]}), and texts were given. Give a model of texts; images "
            "go with explain-image, evaluate-images, or audit --masks."
        )
    classifier = any("SequenceClassification" in architecture for architecture in architectures)
    chosen = AutoMambaLRPForSequenceClassification if classifier else AutoMambaLRPForCausalLM
    with quietly():
        return chosen.from_pretrained(name)


def load_image_model(model: str | None) -> Any:
    """Load an explainable image classifier; None is the packaged one."""
    name = _reached("DEMO_VISION_MODEL" if model is None else model)

    from hf_mambalrp.models.auto import AutoMambaLRPForImageClassification, configuration

    architectures = configuration(name).architectures or []
    if architectures and not any(IMAGES in architecture for architecture in architectures):
        raise InputError(
            f"--model {model} reads texts ({architectures[0]}), and images were given. Give an image classifier."
        )
    with quietly():
        return AutoMambaLRPForImageClassification.from_pretrained(name)


def _reached(model: str) -> str:
    """Return where a model is, a packaged one by its constant's name. Raises for one that cannot be loaded."""
    name = folder_of(model)
    _reach(name)
    return name


@contextmanager
def quietly() -> Iterator[None]:
    """Without the bars of loading and of uploads, which say nothing of what was asked."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def tokenizer_named(name: str | None) -> Any:
    """The tokenizer of that name; None, which is the one beside the model, for None."""
    if name is None:
        return None
    _reach(name)

    from hf_mambalrp.calls.tokenizing import load_tokenizer

    found = load_tokenizer(name)
    if found is None:
        raise InputError(f"--tokenizer {name!r}: none can be loaded from there. Give a folder with one, or a Hub id.")
    return found


def _reach(name: str) -> None:
    """Raise for what cannot be loaded; from here on only the cache is read where the Hub is out of reach."""
    from hf_mambalrp.hub.reach import check_source, from_the_cache

    if check_source(name):
        print(f"note: the Hub cannot be reached, so {name} is loaded from the cache", file=sys.stderr)
        AT_THE_END.enter_context(from_the_cache())
