"""The document of an explanation: what was explained, the text with its relevance, where the score went."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from hf_mambalrp.errors import InputError
from hf_mambalrp.results.parts_document import grid_of_kinds, kind_name
from hf_mambalrp.results.sentences import ending, facts, question, reading, speaks, where_the_score_went, with_options
from hf_mambalrp.viz.document import (
    Balance,
    Block,
    Document,
    Facts,
    Heading,
    Heat,
    Legend,
    Origin,
    Passages,
    Section,
    Source,
    Words,
)
from hf_mambalrp.viz.passages import grouped
from hf_mambalrp.viz.wording import axis_label, shorten, signed, summary, visible
from hf_mambalrp.viz.words import Level, Word

if TYPE_CHECKING:
    from hf_mambalrp.results.explanation import Explanation
    from hf_mambalrp.results.generation_explanation import GenerationExplanation

TABLE_WORDS = 10
SUMMARY_WORDS = 5
LONG = 400
"""Words of a text that is shown as it is; a longer one is folded below the sentences that mattered."""


def explanation_document(ex: "Explanation", level: Level, rows: int | None) -> Document:
    """Return a section for each of the first ``rows``."""
    sections = [_section(ex, row, level) for row in range(len(ex))[:rows]]
    return Document(sections, origin(ex), left_out(len(ex) - len(sections)))


def explanation_summary(ex: "Explanation") -> str:
    """Return what was explained, the top words and the sum, in a few plain lines for each of the first rows."""
    return summary("Explanation", len(ex), origin(ex).line(), _summary_lines(ex))


def _summary_lines(ex: "Explanation") -> Iterator[list[str]]:
    for row in range(len(ex)):
        words = ex.top(SUMMARY_WORDS, row)
        yield [
            speaks(ex, row)[0],
            ", ".join(f"{name} {value}" for name, value in facts(ex, row)),
            "top words: " + ", ".join(f"{shorten(visible(word.text), 24)} {signed(word.relevance)}" for word in words),
            where_the_score_went(ex, row),
        ]


def _section(ex: "Explanation", row: int, level: Level) -> Section:
    words = coloured(ex, row, level)
    plain = words if level == "word" else coloured(ex, row, "word")
    passages = [_passages(ex, plain, "sentence")] if words.folded else []
    blocks: list[Block] = [
        Heading(question(ex, row)),
        source(ex, row),
        Facts(tuple(facts(ex, row))),
        *passages,
        words,
        Legend(words.positive, words.negative, signed(-words.peak), signed(words.peak)),
        balance(ex, row, ending(plain.words)),
        words.table(TABLE_WORDS),
        *([] if ex.parts is None else [grid_of_kinds(ex.parts, row)]),
    ]
    return Section(blocks, row, len(ex))


def coloured(ex: "Explanation", row: int, level: Level) -> Words:
    """Return the text of a row, whose words carry their relevance."""
    text = None if ex.texts is None else ex.texts[row]
    words = ex.words(row, level=level)
    return Words(words, level, text, ex.tokens[row], *speaks(ex, row), folded=len(words) > LONG)


def long_text(ex: "Explanation", row: int, level: Level = "sentence") -> Passages:
    """Return the sentences of a row, or its passages; its words, of which the strip leads to their sentences."""
    return _passages(ex, coloured(ex, row, "word"), level)


def _passages(ex: "Explanation", words: Words, level: Level) -> Passages:
    of: Level = "passage" if level == "passage" else "sentence"
    return Passages(words, grouped(words.words, words.text if ex.offsets else None, of), level)


def balance(ex: "Explanation", row: int, of_the_end: str = "") -> Balance:
    """Return where the score of a row went."""
    return Balance(where_the_score_went(ex, row), reading(ex, row), of_the_end)


def source(ex: "Explanation | GenerationExplanation", row: int) -> Source:
    """Return the text of a row, or of its tokens where it has none."""
    attended = ex.attention_mask[row].nonzero().flatten().tolist()
    return Source("".join(ex.tokens[row][i] for i in attended) if ex.texts is None else ex.texts[row])


def origin(ex: "Explanation | GenerationExplanation") -> Origin:
    """Return what made a result."""
    return Origin(with_options(ex), ex.model_id, ex.versions)


def left_out(count: int) -> str:
    """Return the sentence on so many rows that are not in a document."""
    return f"{count} more rows are not shown here; to_html(path) writes them all." if count else ""


def layer_heat(ex: "Explanation", row: int, words: Sequence[Word]) -> Heat:
    """Return the relevance of words after the embedding and after every block. InputError: there is none."""
    if ex.layer_relevance is None:
        raise InputError("there is no layer_relevance to draw; call explain(..., per_layer=True).")
    names = ["embedding", *(f"block {number}" for number in range(1, len(ex.layer_relevance)))]
    return heat(f"{question(ex, row)} Layer by layer", ex.layer_relevance[:, row], names, words)


def part_heat(ex: "Explanation", row: int, words: Sequence[Word]) -> Heat:
    """Return what each kind of part reads at words, summed over the layers. InputError: parts are not there."""
    if ex.parts is None:
        raise InputError("there are no parts to draw; call explain(..., per_layer=True).")
    kinds = ex.parts.kinds[:-1]
    values = torch.stack([ex.parts.by_token(kind)[row] for kind in kinds])
    return heat(f"{question(ex, row)} Part by part", values, [kind_name(kind) for kind in kinds], words)


def heat(title: str, relevance: torch.Tensor, rows: list[str], words: Sequence[Word]) -> Heat:
    """Return the relevance (N, L) of tokens as a heat map (N, words) of the sums over each word's tokens."""
    values = torch.stack([relevance[:, list(word.tokens)].sum(-1) for word in words], dim=-1)
    return Heat(title, values, rows, [axis_label(word.text) for word in words])
