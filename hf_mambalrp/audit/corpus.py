"""A folder of explanations, or a list of them, as texts whose words carry relevance."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hf_mambalrp.audit.wording import normalised
from hf_mambalrp.datasets.reading import SkippedRow, load_explanations
from hf_mambalrp.errors import InputError
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.runs.progress import progress_bar
from hf_mambalrp.viz.words import Word

Source = str | Path | Iterable[Explanation]
"""Folder of ``explain_dataset`` or dataset repository; or explanations, of one row or of several."""


class TextWords(NamedTuple):
    """An explained text: its normalised words in their order, their relevance, and the explanation."""

    words: list[str]
    relevance: list[float]
    size: float
    """The sum of |relevance| of all words, special tokens among them."""
    explanation: Explanation
    every: Sequence[Word]
    """All words, special tokens among them."""

    @property
    def text(self) -> str:
        """The text."""
        assert self.explanation.texts is not None
        return self.explanation.texts[0]


def read_again(source: Any) -> Source:
    """A source that can be read several times: a generator is read into a list."""
    if isinstance(source, (str, Path, Explanation)):
        return source
    if not isinstance(source, Iterable):
        raise InputError(
            f"A {type(source).__name__} holds no explanations; give the folder of explain_dataset, or a list of what "
            "explain() returned."
        )
    return list(source) if iter(source) is source else source


def explained_texts(source: Source, progress: bool, said: str) -> Iterator[TextWords]:
    """Yield every explained text; rows that were not explained are left out. InputError: as :func:`rows_of`."""
    for explanation in rows_of(source, progress, said):
        if isinstance(explanation, Explanation):
            yield text_words(explanation)


def rows_of(source: Source, progress: bool, said: str) -> Iterator[Explanation | SkippedRow]:
    """Yield every row of a source, with a bar that says what for.

    InputError: no row is explained, or one is something else than an explanation of a text.
    """
    found: Iterable[Any] = load_explanations(source, skipped=True) if isinstance(source, (str, Path)) else source
    count = 0
    for explanation in progress_bar(found, shown=progress, desc=said, unit="row"):
        if isinstance(explanation, SkippedRow):
            yield explanation
            continue
        if not isinstance(explanation, Explanation) or explanation.texts is None:
            raise InputError(
                f"A {type(explanation).__name__} without a text was given; give explanations of texts, as "
                "explain(text) returns them."
            )
        count += len(explanation)
        yield from [explanation] if len(explanation) == 1 else explanation
    if not count:
        raise InputError("There are no explanations to read; give at least one.")


def column_of(explanation: Explanation, name: str) -> Any:
    """The value of a column beside the explanation of one row. InputError: there is none."""
    columns = {} if explanation.columns is None else explanation.columns[0]
    if columns.get(name) is None:
        text = "" if explanation.texts is None else explanation.texts[0]
        raise InputError(
            f"The text {text[:40]!r} has no {name!r}; its columns are {sorted(columns)}. Give "
            f"explain_dataset(columns=[{name!r}]), and a value in every row."
        )
    return columns[name]


def text_words(explanation: Explanation) -> TextWords:
    """The words of an explanation of one row."""
    every = explanation.words()
    found = [(normalised(word.text), word.relevance) for word in every if word.end > word.start]
    size = sum(abs(word.relevance) for word in every)
    return TextWords([word for word, _ in found], [relevance for _, relevance in found], size, explanation, every)
