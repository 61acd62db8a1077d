"""Explanations in a card: a picture, a table of words, and where the score went, as Markdown that the Hub renders."""

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from typing import Any

from hf_mambalrp.errors import InputError
from hf_mambalrp.hub.markdown import escaped, table
from hf_mambalrp.hub.model_card import PICTURES, SHOWN, ShownRows
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.results.generation_explanation import GenerationExplanation
from hf_mambalrp.viz.wording import (
    balance,
    ending,
    facts,
    label,
    question,
    reading,
    shorten,
    signed,
    speaks,
    unsigned,
    visible,
)

TABLE_WORDS = 10
STEP_WORDS = 4
TEXT = 600
"""Characters of an explained text."""
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
    markdown, pictures = explanations_section(listed)
    text = next((_read(one, row) for one, row in listed if one.texts), None)
    ids = next(
        (one.input_ids[row][one.attention_mask[row] != 0].tolist() for one, row in listed if one.input_ids is not None),
        None,
    )
    return ShownRows(markdown, pictures, text, ids)


def explanations_section(shown: Sequence[tuple[AnyExplanation, int]]) -> tuple[str, dict[str, bytes]]:
    """Markdown of the first ``SHOWN`` rows, and the pictures that it links to, by their path beside the card."""
    pictures: dict[str, bytes] = {}
    parts = []
    for path, (one, row) in zip(PICTURES, shown, strict=False):
        pictures[path] = _picture(one, row)
        part = _generation(one, row, path) if isinstance(one, GenerationExplanation) else _explanation(one, row, path)
        parts.append("\n\n".join(part))
    if len(shown) > SHOWN:
        parts.append(f"{len(shown) - SHOWN} more explanations are not shown here.")
    return "\n\n".join(parts), pictures


def _explanation(ex: Explanation, row: int, path: str) -> Iterator[str]:
    says = speaks(ex, row)
    yield f"### {escaped(question(ex, row))}"
    yield _quoted(ex, row)
    yield "; ".join(f"{escaped(name)} **{value}**" for name, value in facts(ex, row))
    yield f"![{escaped(question(ex, row))} Bars of the relevance of every word; numbers in the table below]({path})"
    yield f"The strongest words: + {escaped(says[0])}, - {escaped(says[1])}."
    total = sum(abs(word.relevance) for word in ex.words(row)) or 1.0
    yield table(
        ["Word", "Relevance", "Share of all absolute relevance"],
        [
            [escaped(shorten(visible(word.text), 40)), signed(word.relevance), f"{abs(word.relevance) / total:.1%}"]
            for word in ex.top(TABLE_WORDS, row)
        ],
    )
    yield f"Conservation: {balance(ex, row)}. {reading(ex, row)} {escaped(ending(ex, row))}".rstrip()
    yield _origin(ex)


def _generation(ex: GenerationExplanation, row: int, path: str) -> Iterator[str]:
    yield "### What speaks for each generated token?"
    yield _quoted(ex, row)
    yield f"![Heat map of the relevance of every word for every generated token; numbers in the table below]({path})"
    one, lines = ex[row], []
    for t in ex.generated(row):
        step = one.step(t)
        words = ", ".join(f"{escaped(label(word.text))} ({signed(word.relevance)})" for word in step.top(STEP_WORDS))
        chance, gap = f"{ex.probability[row, t].item():.1%}", unsigned(step.conservation.gap.item())
        lines.append([escaped(label(step.target_text[0])), unsigned(ex.score[row, t].item()), chance, gap, words])
    yield table(["Generated", "Score", "Probability", "Gap", "Strongest words before it"], lines)
    yield "Conservation: the relevance of a line and the share of the biases add up to its score, up to the gap."
    yield _origin(ex)


def _quoted(ex: AnyExplanation, row: int) -> str:
    kept = ex.attention_mask[row].nonzero().flatten().tolist()
    text = "".join(ex.tokens[row][i] for i in kept) if ex.texts is None else ex.texts[row]
    return f"> {escaped(shorten(visible(text.strip()), TEXT))}"


def _origin(ex: AnyExplanation) -> str:
    used = ", ".join(f"{escaped(package)} {escaped(version)}" for package, version in ex.versions.items())
    return f"<sub>Method {escaped(ex.method)}{', with ' + used if used else ''}.</sub>"


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
