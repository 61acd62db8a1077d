"""The document of an explained image: what was explained, the image with its relevance, where the score went."""

from typing import TYPE_CHECKING

from hf_mambalrp.results.explanation_document import left_out
from hf_mambalrp.results.sentences import delta, question, reading, score_facts, speaks, with_options
from hf_mambalrp.viz.document import Balance, Block, Document, Facts, Heading, Origin, Picture, Section
from hf_mambalrp.viz.wording import label, shorten, signed, unsigned, visible

if TYPE_CHECKING:
    from hf_mambalrp.results.image_explanation import ImageExplanation

TABLE_PATCHES = 10
SUMMARY_ROWS = 3
CLASS_TOKEN = 0.2
"""From this share of the score on, that of the class token is worth a sentence."""
NAME = 60
"""Characters of a file's name."""


def image_document(ex: "ImageExplanation", rows: int | None) -> Document:
    """Return a section for each of the first ``rows``."""
    sections = [_section(ex, row) for row in range(len(ex))[:rows]]
    return Document(sections, Origin(with_options(ex), ex.model_id, ex.versions), left_out(len(ex) - len(sections)))


def image_summary(ex: "ImageExplanation") -> str:
    """Return what was explained in one line: the first rows, each with its score, and the grid of patches."""
    made = Origin(with_options(ex), ex.model_id, ex.versions).line()
    explained = [
        f"{speaks(ex, row)[0].removeprefix('speaks for ')} (score {unsigned(ex.score[row].item())})"
        for row in range(min(len(ex), SUMMARY_ROWS))
    ]
    more = f" and {len(ex) - SUMMARY_ROWS} more" if len(ex) > SUMMARY_ROWS else ""
    count = f"{len(ex)} row{'s' * (len(ex) > 1)}"
    return f"ImageExplanation of {count}: {visible(made)}, {', '.join(explained)}{more}, {grid(ex)}"


def _section(ex: "ImageExplanation", row: int) -> Section:
    picture = picture_of(ex, row)
    blocks: list[Block] = [
        Heading(question(ex, row)),
        Facts(tuple(image_facts(ex, row))),
        picture,
        Balance(image_sum(ex, row), reading(ex, row), of_the_class_token(ex, row)),
        picture.table(TABLE_PATCHES),
    ]
    return Section(blocks, row, len(ex))


def picture_of(ex: "ImageExplanation", row: int) -> Picture:
    """Return the image of a row with its relevance."""
    return Picture(
        ex.images[row], ex.heat(row), ex.heat(row, size="patch"), min(ex.patch_size, ex.stride), *speaks(ex, row)
    )


def image_facts(ex: "ImageExplanation", row: int) -> list[tuple[str, str]]:
    """Return name and value of what was explained: score, probability, file, patches, the rule's gamma."""
    named = score_facts(ex, row)
    source = None if ex.sources is None else ex.sources[row]
    if source is not None:
        named.append(("image", shorten(visible(source), NAME)))
    named.append(("map", grid(ex)))
    if ex.gamma_on:
        named.append(("gamma", f"{ex.gamma:g} on {', '.join(map(label, ex.gamma_on))}"))
    return named


def grid(ex: "ImageExplanation") -> str:
    """Return how many patches there are, and how large."""
    rows, columns = ex.relevance.shape[1:]
    apart = "" if ex.stride == ex.patch_size else f", {ex.stride} apart"
    return f"{rows} x {columns} patches of {ex.patch_size} x {ex.patch_size} pixels{apart}"


def image_sum(ex: "ImageExplanation", row: int) -> str:
    """Return where the score of a row went, in one line."""
    patches, tokens = ex.relevance[row].sum().item(), ex.class_relevance[row].sum().item()
    score, biases, gap = (getattr(ex.conservation, name)[row].item() for name in ("score", "biases", "gap"))
    return (
        f"patches {signed(patches)} + {_class_tokens(ex)} {signed(tokens)} + biases {signed(biases)} = "
        f"{unsigned(patches + tokens + biases)} of score {unsigned(score)} (gap {unsigned(gap)}){delta(ex, row)}"
    )


def of_the_class_token(ex: "ImageExplanation", row: int) -> str:
    """Return a sentence on the share of the class token, where it is large; else nothing."""
    share = class_share(ex, row)
    if share < CLASS_TOKEN:
        return ""
    learned = "a learned vector" if ex.class_relevance.shape[1] == 1 else "learned vectors"
    return (
        f"{share:.0%} of what makes up the score came in at the {_class_tokens(ex)}, {learned} that all images have in "
        "common: this part is in no place of the image, and the map shows the rest."
    )


def class_share(ex: "ImageExplanation", row: int) -> float:
    """Return the part of the class tokens in patches, class tokens and biases, signs left out; 0 where all are 0."""
    tokens = abs(ex.class_relevance[row].sum().item())
    total = abs(ex.relevance[row].sum().item()) + tokens + abs(ex.conservation.biases[row].item())
    return tokens / total if total else 0.0


def _class_tokens(ex: "ImageExplanation") -> str:
    count = ex.class_relevance.shape[1]
    return "class token" if count == 1 else f"{count} class tokens"
