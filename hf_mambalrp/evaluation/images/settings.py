"""What an evaluation on pictures was asked for: checked, and in the form that stands in the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from hf_mambalrp.calls.image_inputs import WITHOUT_CONTENT
from hf_mambalrp.errors import OptionError
from hf_mambalrp.evaluation.settings import CommonSettings
from hf_mambalrp.methods import METHODS, method_named
from hf_mambalrp.runs.checks import one_of

NOT_FOR_IMAGES = "latim"
"""It is for models that read in one direction."""
DEFAULT_METHODS = tuple(name for name in METHODS if name not in ("occlusion", NOT_FOR_IMAGES))
"""All for images but occlusion, which costs a forward a patch."""


@dataclass(frozen=True)
class ImageSettings(CommonSettings):
    """Every argument that the numbers depend on, besides the model and the pictures with their labels and masks.

    A name in ``methods`` is a method's, or any other whose options say ``method``: so one method is compared under
    several options.
    """

    replacement: str
    perturbation: bool
    contrast: bool

    _call: ClassVar[str] = "evaluate_image_explanations"
    _perturbed: ClassVar[str] = "patches"

    def __post_init__(self) -> None:
        one_of("replacement", self.replacement, WITHOUT_CONTENT)
        for name in ("perturbation", "contrast"):
            one_of(name, getattr(self, name), (True, False))
        super().__post_init__()
        wrong = [name for name in self.methods if self.method_of(name) == NOT_FOR_IMAGES]
        if wrong:
            raise OptionError(
                f"methods has {wrong}: {NOT_FOR_IMAGES!r} is not for models that read in both directions."
            )

    def method_of(self, name: str) -> str:
        """The method that goes by this name in the comparison."""
        method: str = self.method_options.get(name, {}).get("method", name)
        return method

    def options_given(self, name: str) -> Mapping[str, Any]:
        """The method's options that the caller gave."""
        return {key: value for key, value in super().options_given(name).items() if key != "method"}

    def reads_score(self, name: str) -> bool:
        """Whether the relevance depends on what is explained."""
        return method_named(self.method_of(name)).reads_score
