"""What an evaluation was asked for: checked, and brought into the form that stands in the report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from inspect import signature
from typing import Any, ClassVar

from hf_mambalrp.calls.inputs import TokenizerSource
from hf_mambalrp.calls.tokenizing import continuation
from hf_mambalrp.calls.vocabulary import Vocabulary
from hf_mambalrp.errors import OptionError, TargetError
from hf_mambalrp.evaluation.perturbation import ZERO
from hf_mambalrp.methods import METHODS, method_named
from hf_mambalrp.runs.checks import check_confidence, check_sizes, is_whole, one_of, whole_number

MEASURES = ("logit", "probability")
INSERTIONS = ("remove", "replace")
DEFAULT_METHODS = tuple(name for name in METHODS if name != "occlusion")
"""All but occlusion, which costs a forward a token."""


@dataclass(frozen=True)
class CommonSettings:
    """What every comparison of methods is asked for, of texts and of pictures."""

    methods: Sequence[str]
    method_options: Mapping[str, Mapping[str, Any]]
    measure: str
    step: int | float | str
    samples: int | None
    confidence: float
    resamples: int
    seed: int

    _call: ClassVar[str]
    """The user's call, for messages."""
    _perturbed: ClassVar[str]
    """What is perturbed."""

    def __post_init__(self) -> None:
        if isinstance(self.methods, str) or not self.methods or len(set(self.methods)) < len(self.methods):
            raise OptionError(f"methods={self.methods!r} is not allowed; give a list of different names.")
        for name in self.methods:
            method_named(self.method_of(name)).check_options(self._call, self.options_given(name))
        unused = sorted(set(self.method_options) - set(self.methods))
        if unused:
            raise OptionError(f"method_options are given for {unused}, which methods={list(self.methods)} leaves out.")
        one_of("measure", self.measure, MEASURES)
        step = self.step
        if step != "auto" and not is_whole(step, 1) and not (isinstance(step, float) and 0 < step <= 1):
            raise OptionError(
                f"step={step!r} is not allowed; give {self._perturbed} (1, 2, ...), a fraction (0.05) or 'auto'."
            )
        check_confidence(self.confidence)
        check_sizes(samples=self.samples)
        whole_number("resamples", self.resamples, 1)
        whole_number("seed", self.seed, 0)
        try:
            json.dumps(asdict(self), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"target and method_options stand in the report, so they are plain values: {error}."
            ) from error

    def method_of(self, name: str) -> str:
        """The method that goes by this name in the comparison."""
        return name

    def options_given(self, name: str) -> Mapping[str, Any]:
        """The method's options that the caller gave."""
        return self.method_options.get(name, {})

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    def options_of(self, name: str) -> dict[str, Any]:
        """Options of one method; one that draws at random, with draws of its own for every input, gets the seed."""
        draws = "seed" in signature(method_named(self.method_of(name)).explain).parameters
        return {**({"seed": self.seed} if draws else {}), **self.options_given(name)}


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Every argument that the numbers for texts depend on, besides model and examples."""

    replacement: int | str
    insertion: str
    target: Any
    ceiling: int = 0

    _call: ClassVar[str] = "evaluate_faithfulness"
    _perturbed: ClassVar[str] = "tokens"

    def __post_init__(self) -> None:
        one_of("insertion", self.insertion, INSERTIONS)
        whole_number("ceiling", self.ceiling, 0)
        if callable(self.target):
            raise TargetError("target is a function; faithfulness needs a class or token id, a name, or None.")
        super().__post_init__()


def resolve_replacement(value: Any, tokenizers: TokenizerSource, vocabulary: int) -> tuple[int, str]:
    """Id of what replaces a token (:data:`ZERO` for a zero embedding), and how the report calls it.

    Raises:
        OptionError: an id out of the vocabulary, a text that is not one token.
    """
    tokenizer = tokenizers.get("to read text")
    known = [each for each in (tokenizer.unk_token_id, tokenizer.eos_token_id) if each is not None]
    if value == "auto" and known:
        value = int(known[0])
    if value in ("auto", "zero"):
        return ZERO, "zero embedding"
    if isinstance(value, str):
        ids = continuation(tokenizer, "", value)
        if len(ids) != 1:
            raise OptionError(
                f"replacement={value!r} has {len(ids)} tokens; give a text of one token as it stands inside a text (a "
                "word with the space in front of it), an id, 'zero' for a zero embedding, or 'auto'."
            )
        value = int(ids[0])
    if not is_whole(value, 0) or value >= vocabulary:
        raise OptionError(f"replacement={value!r} is not allowed; token ids are 0..{vocabulary - 1}.")
    return value, f"{Vocabulary(tokenizer).spelling([value])!r} (id {value})"
