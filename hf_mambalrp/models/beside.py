"""What reads a model's input, where it is kept with the model: its tokenizer, or its image processor."""

from collections.abc import Callable
from typing import Any

from torch import nn

from hf_mambalrp.calls.image_inputs import processor_beside
from hf_mambalrp.calls.inputs import TokenizerSource
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.errors import OptionError
from hf_mambalrp.models.vim.processor import image_processor


def reader_beside(model: nn.Module) -> Callable[[], Any | None]:
    """What finds the tokenizer in the model's own repository or folder, or None.

    Of an image classifier it is the image processor there, else that of the released evaluation, as ``explain`` has it.
    """
    if _reads_images(model):
        config: Any = model.config
        return lambda: processor_beside(subject_of(model).place()) or image_processor(config)
    return lambda: TokenizerSource(None, subject_of(model).place()).find(again=True)


def reader_given(model: nn.Module, *, tokenizer: Any, image_processor: Any) -> Any | None:
    """The one of the two that the model's input is read with, or None. OptionError: the other one is given."""
    given = {"tokenizer": tokenizer, "image_processor": image_processor}
    right, wrong = reversed(given) if _reads_images(model) else given
    if given[wrong] is not None:
        raise OptionError(
            f"push_to_hub() got {wrong}={type(given[wrong]).__name__}, and {type(model).__name__} reads "
            f"{'pictures' if _reads_images(model) else 'texts'}. Give {right}=."
        )
    return given[right]


def _reads_images(model: nn.Module) -> bool:
    return getattr(model, "main_input_name", None) == "pixel_values"
