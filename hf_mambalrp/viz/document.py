"""A result as a document: sections of blocks, which every writer puts into a format of its own.

Texts stand in it as they are; the writer of a format escapes them. A writer may leave out a block for which its format
has no use: a terminal writes no table of the words beside its text.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from hf_mambalrp.viz.passages import Passage
from hf_mambalrp.viz.picture_places import Patch, strongest_patches, where
from hf_mambalrp.viz.wording import label
from hf_mambalrp.viz.words import Level, Word, layout, strongest

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Heading:
    """The question that a section answers."""

    text: str


@dataclass(frozen=True)
class Source:
    """The text that was explained, for a format without colours."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and values of what was explained."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Words:
    """A text whose words carry relevance."""

    words: Sequence[Word]
    level: Level
    text: str | None
    """What the words' characters count in; None where they have no place in a text."""
    tokens: Sequence[str]
    positive: str
    """What a positive relevance says."""
    negative: str
    folded: bool = False
    """Whether the text is so long that :class:`Passages` show it."""

    @cached_property
    def peak(self) -> float:
        """The largest |relevance|, 0 for no words."""
        return max((abs(word.relevance) for word in self.words), default=0.0)

    def laid_out(self) -> Iterator[tuple[str, str, Word]]:
        """Yield what :func:`layout` does: (white space before, text as shown, word)."""
        return layout(self.words, self.text, self.level, self.tokens)

    def table(self, count: int) -> "Table":
        """Return the table of at most ``count`` of the words, strongest first."""
        total = sum(abs(word.relevance) for word in self.words) or 1.0
        return Table(strongest(self.words, count), self.level, self.peak, total)


@dataclass(frozen=True)
class Passages:
    """A long text: its sentences or passages, and where along it the relevance is."""

    words: Words
    """All of it, word by word."""
    passages: Sequence[Passage]
    level: Level = "sentence"
    """What the passages are; "word" where its words are to be listed and not they."""

    def top(self, count: int) -> list[Passage]:
        """Return at most ``count`` of the passages, strongest first."""
        return sorted(self.passages, key=lambda passage: -abs(passage.relevance))[:count]

    def strip(self, count: int) -> list["Stretch"]:
        """Cut the text into at most ``count`` stretches of as many words each, the last perhaps of fewer."""
        at = [number for number, passage in enumerate(self.passages) for _ in passage.words]
        size = -(-len(at) // count)
        words = [word for passage in self.passages for word in passage.words]
        return [
            Stretch(math.fsum(word.relevance for word in words[start : start + size]), at[start], start, size)
            for start in range(0, len(words), size)
        ]


class Stretch(NamedTuple):
    """A part of a text along a strip: the sum of its relevance, the passage that it starts in, its words."""

    relevance: float
    passage: int
    first: int
    size: int


@dataclass(frozen=True)
class Table:
    """Words or patches with their relevance and its share, strongest first.

    ``peak`` and ``total`` are of all |relevance|.
    """

    words: Sequence[Word | Patch]
    level: Level | Literal["patch"]
    peak: float
    total: float

    @property
    def caption(self) -> str:
        """What the table holds."""
        return "Strongest patches" if self.level == "patch" else f"Strongest {self.level}s"

    def share(self, word: Word | Patch) -> str:
        """Return the share of all |relevance| that a word or patch has, as a percentage."""
        return f"{abs(word.relevance) / self.total:.1%}"


@dataclass(frozen=True)
class Cell:
    """A cell of a grid that is more than its text."""

    text: str
    mark: str = ""
    """A word under the text, on what it says."""
    strong: bool = False
    shade: float | None = None
    """From -1 to 1, colours the cell."""


@dataclass(frozen=True)
class Grid:
    """A table whose first column is text and whose others are numbers, as they are shown; a newline parts lines."""

    caption: str
    head: tuple[str, ...]
    lines: Sequence[tuple[str | Cell, ...]]
    reading: str = ""
    """How to read it, in sentences."""

    @property
    def cells(self) -> list[list[Cell]]:
        """The lines, with a cell for every text."""
        return [[Cell(cell) if isinstance(cell, str) else cell for cell in line] for line in self.lines]


@dataclass(frozen=True)
class Picture:
    """An image with the relevance of its patches and of its pixels."""

    image: "Tensor"
    """(H, W, 3) uint8."""
    heat: "Tensor"
    """(H, W), the relevance of patches on the pixels that they cover."""
    patches: "Tensor"
    """(rows, columns)."""
    cell: int
    """Pixels of the side of a square over which the map is even: of a patch, or of what its neighbours leave of it."""
    positive: str
    """What a positive relevance says."""
    negative: str

    @cached_property
    def peak(self) -> float:
        """The largest |relevance| of a pixel, the end of the scale of colours."""
        return self.heat.abs().max().item()

    @property
    def end(self) -> float:
        """The same in units of the score, for a square of ``cell`` x ``cell`` pixels."""
        return self.peak * self.cell**2

    @cached_property
    def where(self) -> str:
        """Where in the image the relevance is, in sentences."""
        return where(self.patches, self.positive, self.negative)

    def table(self, count: int) -> Table:
        """Return the table of at most ``count`` of the patches, strongest first."""
        total = self.patches.abs().sum().item() or 1.0
        return Table(strongest_patches(self.patches, count), "patch", self.patches.abs().max().item(), total)


@dataclass(frozen=True)
class Legend:
    """What the two colours of a text say, and what stands at the ends of their scale."""

    positive: str
    negative: str
    low: str
    high: str


@dataclass(frozen=True)
class Balance:
    """Where a score went, how to read that, and what to know about the end of the text, if anything."""

    sum: str
    reading: str
    ending: str = ""


@dataclass(frozen=True)
class Line:
    """A text under one of several explanations: whose, what was explained, its words, and where the score went."""

    name: str
    about: str
    shown: "Words | Passages"
    sum: str = ""


@dataclass(frozen=True)
class Lines:
    """One text under several explanations, to be seen side by side; under the last of them stands what differs."""

    lines: Sequence[Line]


@dataclass(frozen=True)
class Heat:
    """A matrix of signed numbers with a name for each row and column."""

    title: str
    values: "Tensor"
    """(rows, columns)."""
    rows: Sequence[str]
    columns: Sequence[str]
    reading: str = ""
    """What rows, columns and signs mean, in sentences."""
    note: str = ""
    """What was grouped or left out; empty where nothing was."""
    is_open: bool = True
    """Whether it shows at once where heat maps unfold."""


@dataclass(frozen=True)
class GeneratedToken:
    """A generated token, or several together, with the numbers."""

    token: str
    score: str
    probability: str
    gap: str
    balance: Balance
    read: Callable[[], Words] = field(compare=False, repr=False)
    """Makes ``words``, which a page has no use for."""
    contrast: str = ""
    """The token rather than which it was generated; empty where there is none."""

    @cached_property
    def words(self) -> Words:
        """What spoke for it among the words before it."""
        return self.read()

    @property
    def numbers(self) -> str:
        """The numbers as they stand in a sentence."""
        rather = f"rather than {label(self.contrast)}, " if self.contrast else ""
        return f"{rather}score {self.score}, probability {self.probability}"


@dataclass(frozen=True)
class Steps:
    """The generated tokens of a row, in their order, and what each and all of them have of the words before them."""

    steps: Sequence[GeneratedToken]
    sums: Sequence[GeneratedToken]
    """Several together: the sentences, where there are more than one, and last all tokens, where it is not one."""
    level: Level
    reading: str
    """What the numbers of each add up to."""
    words: Words
    """The words of the prompt, then the generated tokens, with their relevance for all of ``steps`` together."""
    prompt: int
    """So many of ``words`` are the prompt's."""
    values: "Tensor"
    """(steps, words), the relevance of each word for each token."""
    scores: Sequence[float]
    terms: Mapping[str, Sequence[float]]
    """What each of ``scores`` is the sum of, up to the gap."""
    sentences: Sequence[range]
    """The steps of each generated sentence."""
    heat: Heat

    @property
    def whole(self) -> GeneratedToken:
        """All together. IndexError: nothing was generated."""
        return [*self.steps, *self.sums][-1]


Block = Heading | Source | Facts | Passages | Words | Lines | Picture | Table | Grid | Legend | Balance | Steps | Heat
B = TypeVar("B", bound=Block)


@dataclass(frozen=True)
class Section:
    """The blocks of one row, counted from 0, ``of`` so many of the result."""

    blocks: Sequence[Block]
    row: int
    of: int

    def one(self, kind: type[B]) -> B:
        """Return the first block of a kind. StopIteration: there is none."""
        return next(block for block in self.blocks if isinstance(block, kind))


@dataclass(frozen=True)
class Origin:
    """What made a result: a method, or ``role`` "" for something that names itself; the model; packages."""

    name: str
    model: str | None
    versions: dict[str, str]
    role: str = "Method"

    def parts(self) -> list[str]:
        """Return all of it, as the parts of a line."""
        parts = [f"{self.role} {self.name}".lstrip(), *([f"model {self.model}"] if self.model else [])]
        return parts + [f"{package} {version}" for package, version in self.versions.items()]

    def line(self) -> str:
        """Return name and model as they stand in a sentence."""
        return f"{self.name} on {self.model}" if self.model else self.name


@dataclass(frozen=True)
class Document:
    """What a result shows."""

    sections: Sequence[Section]
    origin: Origin
    left_out: str = ""
    """A sentence on rows that are not in it; empty where all are."""
