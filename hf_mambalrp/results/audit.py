"""The result of ``audit``: what was confirmed, what was only suspected, and what was not examined."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from hf_mambalrp.errors import InputError, MissingExtraError
from hf_mambalrp.results.audit_document import audit_document
from hf_mambalrp.results.audit_figure import audit_figure
from hf_mambalrp.results.audit_parts import Candidate, Change, Effect, Group, Positions, Swap
from hf_mambalrp.results.shown import Shown
from hf_mambalrp.runs.files import read_json, write_text
from hf_mambalrp.viz.document import Document
from hf_mambalrp.viz.terminal import printed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FORMAT = 1
"""Version of the saved file; another one is refused."""


@dataclass(frozen=True, repr=False)
class Audit(Shown):
    """What :func:`audit` found.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
        >>> from hf_mambalrp.audit import audit
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> reviews = f"{DEMO_MODEL}/reviews.jsonl"
        >>> found = audit(model, reviews, "out/audit", label="label", min_texts=5, progress=False)
        >>> found.texts, [candidate.found.name for candidate in found.confirmed]
        (48, [...])
    """

    model: str | None
    weights: str
    """SHA-256 of the model's weights."""
    versions: Mapping[str, str]
    method: str
    """Of the explanations that the candidates are from."""
    settings: Mapping[str, Any]
    data: str = field(compare=False)
    """What the data was called: a file or folder, or what kind of object it was."""
    texts: int
    """Or images."""
    skipped: int
    """Rows of the data that were not explained."""
    classes: Mapping[str, int]
    """Texts by class."""
    errors: int | None
    """Texts whose predicted class is not their label; None without labels."""
    candidates: tuple[Candidate, ...]
    """The words or regions with the most |relevance|, in the order of :func:`audit`."""
    untested: tuple[str, ...]
    """Candidates that too few texts have beside other words, or too few images beside other patches."""
    positions: Positions | None
    """None of images."""
    changed: tuple[Change, ...] | None
    """What rose most against the base model; None without one."""
    swaps: tuple[Swap, ...] | None
    """None where none were asked for."""
    unswapped: tuple[str, ...]
    """Swaps that too few texts have the words of."""
    groups: tuple[Group, ...]
    """By the values of the column, the largest first; empty where none was asked for."""
    small_groups: tuple[str, ...]
    """Values of the column that too few texts have."""

    @property
    def confirmed(self) -> tuple[Candidate, ...]:
        """The candidates that the model relies on, by the size of their effect."""
        flagged = (candidate for candidate in self.candidates if candidate.confirmed)
        return tuple(sorted(flagged, key=lambda candidate: (-abs(candidate.found.effect), candidate.found.name)))

    @property
    def of_images(self) -> bool:
        """Whether the data are images, and the candidates regions of them."""
        return "regions" in self.settings

    @property
    def not_examined(self) -> tuple[str, ...]:
        """What this audit says nothing about, in sentences."""
        return self._of_images_not_examined() if self.of_images else self._of_texts_not_examined()

    def _of_images_not_examined(self) -> tuple[str, ...]:
        s = self.settings
        said = [
            "What has no mask: only the named regions were tested, each with all of the patches that it touches.",
            "What is no place: colour, texture, size and sharpness of the whole image, or where a thing stands in it.",
            f"What stands in the place of a patch ({s['replacement']}) may itself say something to the model.",
            "Whether an effect is wanted: a region that should count is confirmed as one that should not. Effects "
            f"below {s['min_effect']} standard deviations.",
        ]
        if self.untested:
            said.append(f"Regions of too few images, or with no other patches beside: {', '.join(self.untested)}.")
        return (*said, *self._groups_and_errors("images"))

    def _groups_and_errors(self, inputs: str) -> list[str]:
        said = []
        if self.small_groups:
            said.append(f"Groups of fewer than {self.settings['min_texts']} {inputs}: {', '.join(self.small_groups)}.")
        if self.settings["label"] is None:
            said.append("Errors: the data had no labels, and the classes are those that the model predicts.")
        return said

    def _of_texts_not_examined(self) -> tuple[str, ...]:
        s = self.settings
        said = [
            f"Words in fewer than {s['min_texts']} texts, and all but the {s['candidates']} words, runs of up to "
            f"{s['ngrams']} words and pairs with the most |relevance|.",
            "What is no word that can be deleted: order, length, style, tone, what a text leaves out.",
            f"Whether an effect is wanted: a word that should count is confirmed as one that should not. Effects below "
            f"{s['min_effect']} standard deviations.",
        ]
        if self.untested:
            said.append(f"In too few texts beside other words: {', '.join(self.untested)}.")
        if self.skipped:
            said.append(f"{self.skipped} rows that could not be explained.")
        said += self._groups_and_errors("texts")
        if self.changed is None:
            said.append("What fine-tuning changed: no base model was given.")
        if self.swaps is None:
            said.append("Swaps such as he and she: none were given.")
        elif self.unswapped:
            said.append(f"Swaps whose words too few texts have: {', '.join(self.unswapped)}.")
        return tuple(said)

    @property
    def _title(self) -> str:
        return f"Audit of {self.model or 'a model'}"

    def document(self, *, rows: int | None = None) -> Document:
        """Return what every rendering shows; it has one section, whatever ``rows`` is.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL
            >>> from hf_mambalrp.audit import Audit
            >>> found = Audit.load(f"{DEMO_MODEL}/audit.json")
            >>> found.document().sections[0].blocks[0]
            Heading(text='What does the model rely on?')
        """
        return audit_document(self)

    def plot(self) -> "Figure":
        """Draw the effect of every candidate with its interval, those that are confirmed filled; and of every swap.

        Grey strokes are the control swaps; the two dashed lines are ``min_effect``. The figure belongs to the caller
        and is not registered with pyplot. MissingExtraError: matplotlib is not installed.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL
            >>> from hf_mambalrp.audit import Audit
            >>> found = Audit.load(f"{DEMO_MODEL}/audit.json")
            >>> found.plot().savefig("audit.png")
        """
        return audit_figure(self)

    def to_pandas(self) -> "pd.DataFrame":
        """Return a table of the candidates. MissingExtraError: pandas is not installed.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL
            >>> from hf_mambalrp.audit import Audit
            >>> found = Audit.load(f"{DEMO_MODEL}/audit.json")
            >>> len(found.to_pandas()) == len(found.candidates)
            True
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtraError('to_pandas needs pandas: pip install "hf_mambalrp[pandas]"') from error
        numbers = ("texts", "effect", "low", "high", "p", "changed")
        return pd.DataFrame(
            [
                {
                    "region" if self.of_images else "words": candidate.found.name,
                    "share": candidate.share,
                    "mean": candidate.mean,
                    "target": candidate.found.target,
                    **{name: getattr(candidate.found, name) for name in numbers},
                    "q": candidate.q,
                    "confirmed": candidate.confirmed,
                }
                for candidate in self.candidates
            ]
        )

    def save(self, path: str | Path) -> None:
        """Write everything as one file of JSON, whole or not at all; equal audits are equal files.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL
            >>> from hf_mambalrp.audit import Audit
            >>> found = Audit.load(f"{DEMO_MODEL}/audit.json")
            >>> found.save("audit.json")
        """
        contents = {"format": FORMAT, "class": "Audit", **_plain(vars(self))}
        write_text(Path(path), json.dumps(contents, indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote. InputError: no such file, or another file.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL
            >>> from hf_mambalrp.audit import Audit
            >>> found = Audit.load(f"{DEMO_MODEL}/audit.json")
            >>> found.save("audit.json")
            >>> Audit.load("audit.json") == found
            True
        """
        data = read_json(path, "the file of an audit that save() or hf-mambalrp audit wrote, audit.json")
        if not isinstance(data, dict) or data.pop("class", None) != "Audit" or data.pop("format", None) != FORMAT:
            raise InputError(f"{path} is no Audit of format {FORMAT}; give a file that save() of this version wrote.")
        try:
            return cls(
                **{
                    **data,
                    "candidates": tuple(Candidate(**{**one, **_found(one)}) for one in data["candidates"]),
                    "untested": tuple(data["untested"]),
                    "positions": _positions(data["positions"]),
                    "changed": data["changed"] and tuple(Change(**one) for one in data["changed"]),
                    "swaps": None if data["swaps"] is None else tuple(map(_swap, data["swaps"])),
                    "unswapped": tuple(data["unswapped"]),
                    "groups": tuple(
                        Group(**{**one, "relied": tuple(map(_effect, one["relied"]))}) for one in data["groups"]
                    ),
                    "small_groups": tuple(data["small_groups"]),
                }
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"{path} is a damaged Audit: {error!r}. Run the audit again.") from error

    def __repr__(self) -> str:
        return printed(self.__rich_console__(None, None), color=False, width=100).rstrip("\n")  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    """What JSON has; a named tuple or a dataclass as its fields."""
    if isinstance(value, Effect):
        return _plain(asdict(value))
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (tuple, list)) else value


def _positions(data: Mapping[str, Any] | None) -> Positions | None:
    """Where relevance is in texts; None of images."""
    return None if data is None else Positions(**{**data, "distances": tuple(data["distances"])})


def _effect(data: Mapping[str, Any]) -> Effect:
    """The effect that :func:`_plain` made this of."""
    pattern = data["pattern"] if isinstance(data["pattern"], str) else tuple(data["pattern"])
    by_class = {name: (count, mean) for name, (count, mean) in data["by_class"].items()}
    return Effect(**{**data, "pattern": pattern, "by_class": by_class})


def _found(data: Mapping[str, Any]) -> dict[str, Effect]:
    """The effect of a candidate or a swap."""
    return {"found": _effect(data["found"])}


def _swap(data: Mapping[str, Any]) -> Swap:
    controls = tuple((name, effect) for name, effect in data["controls"])
    return Swap(**{**data, **_found(data), "controls": controls})
