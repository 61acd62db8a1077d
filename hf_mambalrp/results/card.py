"""Explanations in a card: a picture, a table, and where the score went, as Markdown that the Hub renders."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

from hf_mambalrp.errors import InputError
from hf_mambalrp.hub.model_card import PICTURES, RELIED, ShownRows
from hf_mambalrp.results.audit import Audit
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.results.generation_explanation import GenerationExplanation
from hf_mambalrp.results.image_explanation import ImageExplanation
from hf_mambalrp.results.image_figures import png_of_rows
from hf_mambalrp.viz import markdown
from hf_mambalrp.viz.document import Document, Heading, Picture

DPI, BARS = 110, 10
"""Of a picture in a card: its resolution, and the most bars."""
SHOWN_IMAGES = 3
"""Images in a card; of other explanations, as many as there are ``PICTURES``."""

AnyExplanation = Explanation | GenerationExplanation | ImageExplanation


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
    of_text = [(one, row) for one, row in listed if not isinstance(one, ImageExplanation)]
    text = next((_read(one, row) for one, row in of_text if one.texts), None)
    ids = next(
        (
            one.input_ids[row][one.attention_mask[row] != 0].tolist()
            for one, row in of_text
            if one.input_ids is not None
        ),
        None,
    )
    return ShownRows(section, pictures, text, ids)


def in_card(listed: Sequence[tuple[AnyExplanation, int]]) -> Sequence[tuple[AnyExplanation, int]]:
    """Those of the rows that a card shows, the first few."""
    has_images = any(isinstance(one, ImageExplanation) for one, _ in listed)
    return listed[: SHOWN_IMAGES if has_images else len(PICTURES)]


def explanations_section(shown: Sequence[tuple[AnyExplanation, int]]) -> tuple[str, dict[str, bytes]]:
    """Markdown of the first rows, and the pictures that it links to, by their path beside the card."""
    pictures: dict[str, bytes] = {}
    parts = []
    places = list(zip(PICTURES, in_card(shown), strict=False))
    documents = [one[row].document() for _, (one, row) in places]
    made_alike = all(document.origin == documents[-1].origin for document in documents)
    for (path, (one, row)), document in zip(places, documents, strict=True):
        pictures[path] = picture_of_row(one, row)
        named = not made_alike or document is documents[-1]
        parts.append(markdown.body(document, [_drawn(one, document, path)], with_origin=named))
    if len(shown) > len(parts):
        parts.append(f"{len(shown) - len(parts)} more explanations are not shown here.")
    return "\n\n".join(parts), pictures


def audit_section(audit: Audit) -> str:
    """Markdown of an audit, under a heading by which it is found again."""
    (section,) = audit.document().sections
    blocks = [Heading(RELIED.removeprefix("### ")), *section.blocks[1:]]
    return markdown.body(Document([replace(section, blocks=blocks)], audit.document().origin))


def _drawn(one: AnyExplanation, document: Document, path: str) -> str:
    """The picture of a row, with what it shows in words."""
    return markdown.picture(f"{picture_says(one, document)} Numbers in the table below", path)


def picture_says(one: AnyExplanation, document: Document) -> str:
    """Return what the picture of a row shows, in words."""
    section = document.sections[0]
    if isinstance(one, ImageExplanation):
        return f"{section.one(Heading).text} The image and its relevance over it. {section.one(Picture).where}"
    if isinstance(one, GenerationExplanation):
        return "Heat map of the relevance of every word for every generated token."
    return f"{section.one(Heading).text} Bars of the relevance of the strongest words."


def picture_of_row(ex: AnyExplanation, row: int) -> bytes:
    """Return the picture of a row as PNG. MissingExtraError: what draws it is not installed."""
    if isinstance(ex, ImageExplanation):
        return png_of_rows(ex, [row])
    content = BytesIO()
    figure = ex.plot(row, top=BARS) if isinstance(ex, Explanation) else ex.plot(row)
    # Without metadata, which would name matplotlib's version, equal explanations are equal files.
    figure.savefig(content, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    return content.getvalue()


def _read(one: Explanation | GenerationExplanation, row: int) -> str:
    """The text that was explained, of a language model up to the position whose prediction it was."""
    assert one.texts is not None
    if isinstance(one, Explanation):
        last = None if one.position is None else int(one.position[row])
    else:
        last = one.prompt_length - 1
    return one.texts[row] if last is None or one.offsets is None else one.texts[row][: one.offsets[row][last][1]]
