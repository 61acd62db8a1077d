"""What a visitor asks, as one value: it makes the answer, the link that shares it and the Python that repeats it."""

from dataclasses import dataclass, fields, replace
from textwrap import indent
from typing import Any
from urllib.parse import urlencode

from hf_mambalrp import DEMO_VISION_MODEL
from hf_mambalrp.methods import METHODS
from hf_mambalrp.models.packaged import PACKAGED
from hf_mambalrp.rules import ATTENTION_RULES
from hf_mambalrp.space.catalog import CLASSES, Catalog
from hf_mambalrp.space.limits import Limits, RefusedError
from hf_mambalrp.space.pictures import PICTURES, file_name
from hf_mambalrp.viz.words import Level

TASKS = {
    "sentence": ("text-classification",),
    "next": ("text-generation",),
    "generation": ("text-generation",),
    "attention": ("text-classification", "text-generation"),
    "compare": ("text-classification", "text-generation"),
    "document": ("text-classification",),
    "image": ("image-classification",),
}
"""Every kind of question, and the tasks of the models that can answer it."""
CHOICES = {
    "kind": tuple(TASKS),
    "method": tuple(METHODS),
    "other_method": tuple(METHODS),
    "view": ("words", "layers", "parts", "methods"),
    "rule": ATTENTION_RULES,
    "attention": ("raw", "unified"),
}
OF_TASK = {"text-classification": "sentence", "text-generation": "next"}
"""The kind of question to a model of each side of a comparison."""
LEVELS: dict[str, tuple[Level, ...]] = {"document": ("sentence", "passage", "word")}
"""What the relevance of a kind can be of, the usual first; of the others :data:`SHORT`."""
SHORT: tuple[Level, ...] = ("word", "token")
SENTENCES = ("sentence", "next")
"""The kinds that have views."""
MOST_GAMMA = 1
TARGET = 100
"""Characters of a target or contrast."""
PICTURE_METHODS = tuple(name for name in METHODS if name != "latim")
WITH_GAMMA = tuple(name for name, method in METHODS.items() if "gamma" in method.options)
"""Methods whose rules have a gamma."""
WITH_RULE = tuple(name for name, method in METHODS.items() if "attention_rule" in method.options)
"""Methods that have a rule for softmax attention."""
WHOLE_GRADIENT = tuple(name for name, method in METHODS.items() if method.rules is not None)
"""Methods that are one modified gradient: they have relevance of layers and of generated tokens."""


@dataclass(frozen=True)
class Question:
    """One question; the names are those of the link's query string."""

    kind: str = "sentence"
    model: str = ""
    text: str = ""
    target: str = ""
    contrast: str = ""
    method: str = "mambalrp"
    level: Level = "word"
    view: str = "words"
    compared: tuple[str, ...] = ("mambalrp", "gradient_x_input")
    tokens: int = 8
    layer: int = 0
    attention: str = "raw"
    picture: str = ""
    gamma: float = 0.25
    rule: str = "cp"
    """Of a hybrid's softmax attention, in the view of parts."""
    other_model: str = ""
    """Of a comparison the second model; "" is the first. So it is with its target."""
    other_target: str = ""
    other_method: str = "gradient_x_input"

    @classmethod
    def asked(cls, catalog: Catalog, limits: Limits, **values: Any) -> "Question":
        """Build a question from what a page, a link or an API call sent. RefusedError: a value that is not allowed."""
        given = {name: _plain(name, value, limits) for name, value in values.items()}
        kind = given.get("kind", cls.kind)
        for name, allowed in {**CHOICES, "level": LEVELS.get(kind, SHORT)}.items():
            if name in given and given[name] not in allowed:
                raise RefusedError(f"“{name}” can be {', '.join(allowed)}.")
        unknown = set(given.get("compared", ())) - set(METHODS)
        if unknown:
            raise RefusedError(f"The methods that can be compared are {', '.join(METHODS)}.")
        question = cls(**{**_usual(kind), **given})
        if max(map(len, (question.target, question.contrast, question.other_target))) > TARGET:
            raise RefusedError(f"What to explain, and rather than what, can have up to {TARGET} characters each.")
        choices = catalog.titles(*TASKS[question.kind])
        if not choices:
            missing = "image model" if question.kind == "image" else "language model"
            raise RefusedError(f"No {missing} is configured for this Space, so there is nothing to ask.")
        for model in filter(None, (question.model, question.other_model)):
            if model not in choices:
                catalog.entry(model)  # says so if it is on no list at all
                raise RefusedError(f"That model cannot answer this. Choose one of: {', '.join(choices)}.")
        return replace(question, model=question.model or choices[0])

    def sides(self, catalog: Catalog) -> tuple["Question", "Question"]:
        """Return the two questions of a comparison, as each would be asked alone."""
        first = Question(
            text=self.text, model=self.model, target=self.target, contrast=self.contrast, method=self.method
        )
        second = replace(
            first,
            model=self.other_model or self.model,
            target=self.other_target or self.target,
            method=self.other_method,
        )
        one, other = (replace(side, kind=OF_TASK[catalog.entry(side.model).task]) for side in (first, second))
        return one, other

    def query(self, catalog: Catalog) -> str:
        """Return the query string that asks this again; what is as usual is left out. None holds a visitor's file."""
        if self.picture and self.picture not in PICTURES:
            return ""
        usual = Question(**_usual(self.kind), model=catalog.titles(*TASKS[self.kind])[0])
        values = {
            f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != getattr(usual, f.name)
        }
        if "compared" in values:
            values["compared"] = ",".join(self.compared)
        return urlencode(values)

    def python(self, catalog: Catalog) -> str:
        """Return Python that computes what is on the screen."""
        if self.kind == "compare":
            return self._python_of_two(catalog)
        cls, source, names = _named(catalog, self.model)
        asked = f"{self.text!r},"
        if self.kind == "image" and self.picture in PICTURES:
            place = PICTURES[self.picture].relative_to(DEMO_VISION_MODEL).as_posix()
            asked = f'f"{{DEMO_VISION_MODEL}}/{place}",'
            names.add("DEMO_VISION_MODEL")
        elif self.kind == "image":
            asked = f"{file_name(self.picture)!r},  # as “Download the picture” saves it"
        options = "".join(f"    {name}={value!r},\n" for name, value in self._arguments().items())
        call = f"result = model.{self._call()}(\n    {asked}\n{options})\n{self._shown()}\n"
        if self.kind in SENTENCES and self.view == "methods":
            call = call.replace(f"    method={self.method!r},\n", "    method=method,\n")
            call = f"for method in {list(self.compared)}:\n" + indent(call, "    ")
        return f"{_imported(names)}\n\nmodel = {cls}.from_pretrained({source})\n{call}"

    def _python_of_two(self, catalog: Catalog) -> str:
        names, calls = {"compare"}, []
        for name, side in zip(("first", "second"), self.sides(catalog), strict=True):
            cls, source, used = _named(catalog, side.model)
            names |= used
            options = "".join(f"    {option}={value!r},\n" for option, value in side._arguments().items())
            calls.append(f"{name} = {cls}.from_pretrained({source}).explain(\n    {self.text!r},\n{options})\n")
        return f"{_imported(names)}\n\n{''.join(calls)}result = compare(first, second)\n{self._shown()}\n"

    def _shown(self) -> str:
        """Python that prints a result as the page shows it."""
        level = f"level={self.level!r}"
        if self.kind == "image":
            return "print(result.to_text())"
        if self.kind == "attention":
            return "for part in result.parts:\n    print(part, result.map(part=part))"
        if self.kind == "generation":
            return f"for step in result.generated(0):\n    print(result.step(step).to_text({level}))"
        if self.kind in SENTENCES and self.view == "layers":
            return (
                f"for word in result.words({level}):\n"
                "    print(word.text, result.layer_relevance[:, 0, list(word.tokens)].sum(-1).tolist())"
            )
        if self.kind in SENTENCES and self.view == "parts":
            return "print(result.parts.to_text())"
        return f"print(result.to_text({level}))"

    def _call(self) -> str:
        return {"generation": "explain_generation", "attention": "hidden_attention"}.get(self.kind, "explain")

    def _arguments(self) -> dict[str, Any]:
        if self.kind == "attention":
            return {"kind": self.attention, "layers": self.layer}
        if self.kind == "generation":
            rather = {"contrast": self.contrast} if self.contrast else {}
            return {"max_new_tokens": self.tokens, **rather, "method": self.method}
        sides = {"target": self.target or None, "contrast": self.contrast or None}
        arguments: dict[str, Any] = {**{name: side for name, side in sides.items() if side}, "method": self.method}
        if self.kind == "image" and self.method in WITH_GAMMA:
            arguments["gamma"] = self.gamma
        if self.ruled():
            arguments["attention_rule"] = self.rule
        layers = self.kind in SENTENCES and self.view in ("layers", "parts")
        return {**arguments, "per_layer": True} if layers else arguments

    def ruled(self) -> bool:
        """Whether it asks for another rule of softmax attention than the usual one."""
        return self.kind in SENTENCES and self.view == "parts" and self.method in WITH_RULE and self.rule != "cp"


def _usual(kind: str) -> dict[str, Any]:
    """What a question of a kind has where it says nothing, otherwise than others."""
    return {"level": LEVELS[kind][0]} if kind in LEVELS else {}


def _named(catalog: Catalog, model: str) -> tuple[str, str, set[str]]:
    """In Python the class of a model, what it is loaded from, and the names that they need."""
    found = catalog.entry(model)
    cls = CLASSES[found.task].__name__
    constants = {name for name, folder in PACKAGED.items() if folder == found.id}
    return cls, next(iter(constants), repr(found.id)), {cls, *constants}


def _imported(names: set[str]) -> str:
    return f"from hf_mambalrp import {', '.join(sorted(names, key=lambda name: (not name.isupper(), name)))}"


def _plain(name: str, value: Any, limits: Limits) -> Any:
    """Bring a value into the type of its field; text without lone surrogates, which no tokenizer and no JSON takes."""
    if name == "compared":
        parts = value if isinstance(value, (list, tuple)) else [part for part in _text(value).split(",") if part]
        return tuple(dict.fromkeys(map(_text, parts)))
    if name == "gamma":
        try:
            gamma = float(value)
        except (TypeError, ValueError, OverflowError):
            gamma = -1.0
        if not 0 <= gamma <= MOST_GAMMA:
            raise RefusedError(f"“gamma” can be a number from 0 to {MOST_GAMMA}.")
        return gamma
    if name in ("tokens", "layer"):
        least, most = {"tokens": (1, limits.new_tokens), "layer": (0, 999)}[name]
        try:
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            number = -1
        if not least <= number <= most:
            raise RefusedError(f"“{name}” can be a whole number from {least} to {most}.")
        return number
    return _text(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RefusedError("Please send text.")
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
