"""Explanations in a card: a picture, a table of words, and where the score went, as Markdown that the Hub renders."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

from hf_mambalrp.errors import InputError
from hf_mambalrp.hub.model_card import PICTURES, SHOWN, ShownRows
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.results.generation_explanation import GenerationExplanation
from hf_mambalrp.viz import markdown
from hf_mambalrp.viz.document import Document, Heading

DPI = 110

AnyExplanation = Explanation | GenerationExplanation


def rows(explanations: Any) -> list[tuple[AnyExplanation, int]]:
    """Every row of an explanation or of several. InputError: something else."""
    one_or_none = isinstance(explanations, AnyExplanation) or not isinstance(explanations, Iterable)
    listed = [explanations] if one_or_none else list(explanations)
    for one in listed:
        if not isinstance(one, AnyExplanation):
            raise InputError(
                f"explanations holds a {type(one).__name__}; give what explain() returned, or a list of it."
            )
    return [(one, row) for one in listed for row in range(len(one))]


def shown_rows(listed: Sequence[tuple[AnyExplanation, int]]) -> ShownRows:
    """What a card shows of these rows."""
    section, pictures = explanations_section(listed)
    text = next((_read(one, row) for one, row in listed if one.texts), None)
    ids = next(
        (one.input_ids[row][one.attention_mask[row] != 0].tolist() for one, row in listed if one.input_ids is not None),
        None,
    )
    return ShownRows(section, pictures, text, ids)


def explanations_section(shown: Sequence[tuple[AnyExplanation, int]]) -> tuple[str, dict[str, bytes]]:
    """Markdown of the first ``SHOWN`` rows, and the pictures that it links to, by their path beside the card."""
    pictures: dict[str, bytes] = {}
    parts = []
    for path, (one, row) in zip(PICTURES, shown, strict=False):
        pictures[path] = _picture(one, row)
        document = one[row].document()
        parts.append(markdown.body(document, [_drawn(one, document, path)]))
    if len(shown) > SHOWN:
        parts.append(f"{len(shown) - SHOWN} more explanations are not shown here.")
    return "\n\n".join(parts), pictures


def _drawn(one: AnyExplanation, document: Document, path: str) -> str:
    """The picture of a row, with what it shows in words."""
    if isinstance(one, GenerationExplanation):
        says = "Heat map of the relevance of every word for every generated token"
    else:
        says = f"{document.sections[0].one(Heading).text} Bars of the relevance of every word"
    return markdown.picture(f"{says}; numbers in the table below", path)


def _read(one: AnyExplanation, row: int) -> str:
    """The text that was explained, of a language model up to the position whose prediction it was."""
    assert one.texts is not None
    if isinstance(one, Explanation):
        last = None if one.position is None else int(one.position[row])
    else:
        last = one.prompt_length - 1
    return one.texts[row] if last is None or one.offsets is None else one.texts[row][: one.offsets[row][last][1]]


def _picture(ex: AnyExplanation, row: int) -> bytes:
    content = BytesIO()
    # Without metadata, which would name matplotlib's version, equal explanations are equal files.
    ex.plot(row).savefig(content, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    return content.getvalue()
