"""The document of an explained generation: the generated tokens of each row, and what spoke for each."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hf_mambalrp.results.explanation_document import balance, coloured, heat, left_out, origin, source
from hf_mambalrp.results.sentences import absorbed_by, text_of
from hf_mambalrp.viz.document import Document, GeneratedToken, Heading, Heat, Legend, Section, Steps
from hf_mambalrp.viz.wording import axis_label, shorten, summary, unsigned, visible
from hf_mambalrp.viz.words import Level, Word

if TYPE_CHECKING:
    from hf_mambalrp.results.generation_explanation import GenerationExplanation

QUESTION = "What speaks for each generated token?"
LEGEND = Legend(
    "speaks for the generated token", "speaks against the generated token", "strongest against", "strongest for"
)
TEXT = 60
"""Characters of a generated text in a summary."""


def generation_document(ex: "GenerationExplanation", level: Level, rows: int | None) -> Document:
    """Return a section for each of the first ``rows``."""
    sections = [_section(ex, row, level) for row in range(len(ex))[:rows]]
    return Document(sections, origin(ex), left_out(len(ex) - len(sections)))


def generation_summary(ex: "GenerationExplanation") -> str:
    """Return what was generated in each of the first rows, and the largest gap, in plain lines."""
    return summary("GenerationExplanation", len(ex), origin(ex).line(), _summary_lines(ex))


def _summary_lines(ex: "GenerationExplanation") -> Iterator[list[str]]:
    for row in range(len(ex)):
        steps, text = ex.generated(row), shorten(visible(generated_text(ex, row)), TEXT)
        yield [f"{len(steps)} generated tokens: {text} (largest gap {largest_gap(ex, row)})"]


def _section(ex: "GenerationExplanation", row: int, level: Level) -> Section:
    one = ex[row]
    steps = [_step(one, t, level) for t in ex.generated(row)]
    added = f"the relevance of a line and {absorbed_by(ex.conservation)} add up to its score, up to the gap."
    return Section([Heading(QUESTION), source(ex, row), LEGEND, Steps(steps, level, added)], row, len(ex))


def _step(one: "GenerationExplanation", t: int, level: Level) -> GeneratedToken:
    step = one.step(t)
    score, probability = one.score[0, t].item(), one.probability[0, t].item()
    gap = unsigned(step.conservation.gap.item())
    words = coloured(step, 0, level)
    return GeneratedToken(step.target_text[0], unsigned(score), f"{probability:.1%}", gap, words, balance(step, 0))


def generated_text(ex: "GenerationExplanation", row: int) -> str:
    """Return what was generated in a row, as its text has it; "" where nothing was."""
    steps = ex.generated(row)
    return text_of(ex, row, [ex.prompt_length + t for t in steps]) if steps else ""


def largest_gap(ex: "GenerationExplanation", row: int) -> str:
    """Return the largest |gap| of a row."""
    return unsigned(ex.conservation.gap[row].abs().max().item())


def generation_heat(ex: "GenerationExplanation", row: int, steps: list[int], words: Sequence[Word]) -> Heat:
    """Return the relevance of words for these generated tokens."""
    names = [axis_label(ex.tokens[row][ex.prompt_length + t]) for t in steps]
    return heat(QUESTION, ex.relevance[row, steps], names, words)
