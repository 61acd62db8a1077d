"""The document of a comparison: both lines, what differs, and how far they agree."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hf_mambalrp.results.explanation_document import LONG, coloured, left_out, source
from hf_mambalrp.results.sentences import score_facts, where_the_score_went, with_options
from hf_mambalrp.viz.document import (
    Block,
    Document,
    Facts,
    Grid,
    Heading,
    Line,
    Lines,
    Origin,
    Passages,
    Section,
    Words,
)
from hf_mambalrp.viz.pairs import WordPair
from hf_mambalrp.viz.passages import grouped
from hf_mambalrp.viz.wording import LABEL, label, shorten, signed, summary, table_label, visible
from hf_mambalrp.viz.words import Level, Word

if TYPE_CHECKING:
    from hf_mambalrp.results.comparison import Comparison
    from hf_mambalrp.results.explanation import Explanation

TABLE_WORDS, SUMMARY_WORDS = 10, 5
NOT_RANKED = "none: all words alike"


def names_of(first: "Explanation", second: "Explanation") -> tuple[str, str]:
    """Return what two explanations are called: what they differ in of model, method and target, else their order."""
    sides = []
    for ex in (first, second):
        targets, contrasts = set(ex.target_text), set(ex.contrast_text or ())
        target = label(next(iter(targets))) if len(targets) == 1 else "their targets"
        contrast = f" rather than {label(next(iter(contrasts)))}" if len(contrasts) == 1 else ""
        sides.append((_model_name(ex), label(with_options(ex)), target + contrast))
    parts = [pair for pair in zip(*sides, strict=True) if pair[0] != pair[1]]
    one, other = (", ".join(side) for side in zip(*parts, strict=True)) if parts else ("first", "second")
    return one, other


def _model_name(ex: "Explanation") -> str:
    return shorten(visible((ex.model_id or "a model").rstrip("/").rpartition("/")[2]), LABEL)


def comparison_document(found: "Comparison", level: Level, rows: int | None) -> Document:
    """Return a section for each of the first ``rows``."""
    sections = [_section(found, row, level) for row in range(len(found))[:rows]]
    return Document(sections, _origin(found), left_out(len(found) - len(sections)))


def comparison_summary(found: "Comparison") -> str:
    """Return the agreement and the words that differ most of each of the first rows, in plain lines."""
    return summary("Comparison", len(found), " and ".join(found.names), _summary_lines(found))


def _summary_lines(found: "Comparison") -> Iterator[list[str]]:
    for row in range(len(found)):
        words = [f"{shorten(visible(word.text), 24)} {signed(word.difference)}" for word in differing(found.words(row))]
        facts = ", ".join(f"{name} {value}" for name, value in agreement_facts(found, row, "word"))
        yield [facts, f"differ most, second less first: {', '.join(words[:SUMMARY_WORDS])}"]


def differing(words: Sequence[WordPair]) -> list[WordPair]:
    """Return the words with the largest differences first."""
    return sorted(words, key=lambda word: -abs(word.difference))


def _section(found: "Comparison", row: int, level: Level) -> Section:
    first, second = found.first, found.second
    text = None if first.texts is None else first.texts[row]
    words = found.words(row, level=level)
    changed = [Word(word.text, word.difference, word.start, word.end, word.tokens) for word in words]
    says = f"more in {found.names[1]}", f"less in {found.names[1]}"
    difference = Words(changed, level, text, first.tokens[row], *says, folded=len(changed) > LONG)
    lines = [
        Line(name, _about(ex, row), _shown(coloured(ex, row, level)), where_the_score_went(ex, row))
        for name, ex in zip(found.names, (first, second), strict=True)
    ]
    lines.append(Line(f"What differs: {found.names[1]} less {found.names[0]}", "", _shown(difference)))
    coarse: Level = "sentence" if difference.folded and level in ("word", "token") else level
    blocks: list[Block] = [
        Heading(f"{found.names[0]} and {found.names[1]} side by side"),
        source(first, row),
        Facts(tuple(agreement_facts(found, row, level))),
        Lines(lines),
        _grid(found, found.words(row, level=coarse) if coarse != level else words, coarse),
    ]
    return Section(blocks, row, len(found))


def _about(ex: "Explanation", row: int) -> str:
    return " · ".join(f"{name} {value}" for name, value in score_facts(ex, row))


def _shown(words: Words) -> Words | Passages:
    """A text as it is, or a strip along one that is long."""
    return Passages(words, grouped(words.words, words.text, "sentence")) if words.folded else words


def agreement_facts(found: "Comparison", row: int, level: Level) -> list[tuple[str, str]]:
    """Return name and value of the agreement, and what has no partner."""
    agreed = found.agreement(row, level=level)
    values = {"rank agreement (Spearman’s ρ)": agreed.spearman, "Kendall’s τ": agreed.kendall}
    facts = [(name, NOT_RANKED if value is None else f"{value:.2f}") for name, value in values.items()]
    facts.append((f"{level}s in both", f"{agreed.words:,}"))
    for name, words in zip(found.names, found.alone(row), strict=True):
        if words:
            total = sum(word.relevance for word in words)
            listed = ", ".join(f"“{label(word.text)}”" for word in words[:SUMMARY_WORDS])
            facts.append((f"only in {name}", f"{listed}{', …' * (len(words) > SUMMARY_WORDS)}: {signed(total)}"))
    return facts


def _grid(found: "Comparison", words: Sequence[WordPair], level: Level) -> Grid:
    lines = [
        (table_label(word.text), signed(word.first), signed(word.second), signed(word.difference))
        for word in differing(words)[:TABLE_WORDS]
    ]
    reading = (
        f"The difference is {found.names[1]} less {found.names[0]}, in units of the scores. Scores of two models or "
        "methods may have other sizes: the ranks can be compared all the same."
    )
    return Grid(
        f"{level.capitalize()}s that differ most", (level.capitalize(), *found.names, "Difference"), lines, reading
    )


def _origin(found: "Comparison") -> Origin:
    sides = [
        f"{with_options(ex)} on {ex.model_id}" if ex.model_id else with_options(ex)
        for ex in (found.first, found.second)
    ]
    return Origin(" and ".join(dict.fromkeys(sides)), None, found.first.versions, role="Comparison of")
