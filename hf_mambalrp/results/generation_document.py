"""The document of an explained generation: the generated tokens of each row, and what spoke for each."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from hf_mambalrp.results.explanation_document import balance, coloured, heat, left_out, origin, source
from hf_mambalrp.results.sentences import absorbed_by, text_of
from hf_mambalrp.viz.document import Document, GeneratedToken, Heading, Heat, Legend, Section, Steps, Words
from hf_mambalrp.viz.passages import grouped
from hf_mambalrp.viz.wording import axis_label, shorten, summary, unsigned, visible
from hf_mambalrp.viz.words import Level, Word, in_order, token_words, trimmed

if TYPE_CHECKING:
    from hf_mambalrp.results.explanation import Explanation
    from hf_mambalrp.results.generation_explanation import GenerationExplanation

QUESTION = "What speaks for each generated token?"
CONTRASTED = "What speaks for each generated token rather than its contrast?"
TEXT = 60
"""Characters of a generated text in a summary."""
CELLS, MOST_COLUMNS, FEWEST_COLUMNS = 6000, 40, 12
"""Cells of the heat map of a document, and its columns."""


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


def generation_question(ex: "GenerationExplanation") -> str:
    """Return the question that every row answers."""
    return QUESTION if ex.contrast_ids is None else CONTRASTED


def _section(ex: "GenerationExplanation", row: int, level: Level) -> Section:
    rather = "" if ex.contrast_ids is None else " rather than its contrast"
    legend = Legend(
        f"speaks for the generated token{rather}",
        f"speaks against the generated token{rather and ', for its contrast'}",
        "strongest against",
        "strongest for",
    )
    return Section([Heading(generation_question(ex)), source(ex, row), legend, _steps(ex[row], level)], row, len(ex))


def _steps(one: "GenerationExplanation", level: Level) -> Steps:
    """Return the tokens that the only row generated."""
    taken, sentences = one.generated(), one.sentences()
    steps = [_step(one, t, level) for t in taken]
    several = [part for part in sentences if len(part) > 1] if len(sentences) > 1 else []
    sums = [_token(one.span(part.start, part.stop), level, sentence_text(one, part)) for part in several]
    if len(taken) > 1:
        sums.append(_token(one.span(), level, f"all {len(taken)} tokens"))
    words, prompt, values = _units(one, taken, level)
    kept = one.conservation
    terms = {"sum of relevance": kept.relevance, "biases": kept.biases, "softmax": kept.softmax}
    return Steps(
        steps=steps,
        sums=sums,
        level=level,
        reading=f"the relevance of a line and {absorbed_by(kept)} add up to its score, up to the gap.",
        words=words,
        prompt=prompt,
        values=values,
        scores=one.score[0, taken].tolist(),
        terms={name: part[0, taken].tolist() for name, part in terms.items() if part is not None},
        sentences=sentences,
        heat=_map(one, taken, words, values),
    )


def _step(one: "GenerationExplanation", t: int, level: Level) -> GeneratedToken:
    found = _token(one.step(t), level, one.tokens[0][one.prompt_length + t])
    return found if one.contrast_tokens is None else replace(found, contrast=one.contrast_tokens[0][t])


def _token(ex: "Explanation", level: Level, name: str) -> GeneratedToken:
    """Return a generated token, or several that were added up, as ``ex`` explains it."""
    score, gap = unsigned(ex.score.item()), unsigned(ex.conservation.gap.item())
    assert ex.probability is not None
    chance = f"{ex.probability.item():.1%}"
    return GeneratedToken(name, score, chance, gap, balance(ex, 0), lambda: coloured(ex, 0, level))


def _units(one: "GenerationExplanation", taken: Sequence[int], level: Level) -> tuple[Words, int, torch.Tensor]:
    """Return the words of the prompt and the generated tokens, how many the former are, and the relevance of each.

    What was generated stays in tokens, whatever the level: each is one that can be asked about.
    """
    places = [one.prompt_length + t for t in taken]
    offsets = None if one.offsets is None else one.offsets[0]
    prompt = one.step(0).words(0, level=level)
    units = prompt + token_words(one.tokens[0], [0.0] * len(one.tokens[0]), places, offsets)
    share = torch.zeros(one.relevance.shape[-1], len(units), dtype=torch.float64)
    for number, unit in enumerate(units):
        share[list(unit.tokens), number] = 1
    values = one.relevance[0, taken].double() @ share
    summed = [replace(unit, relevance=total) for unit, total in zip(units, values.sum(0).tolist(), strict=True)]
    text = None if one.texts is None else one.texts[0]
    shown: Level = "token" if level == "token" else "word"
    return Words(summed, shown, text, one.tokens[0], "speaks for it", "speaks against it"), len(prompt), values


def _map(one: "GenerationExplanation", taken: list[int], words: Words, values: torch.Tensor) -> Heat:
    """Return every token over the words that have the strongest relevance for one of them."""
    most = max(FEWEST_COLUMNS, min(MOST_COLUMNS, CELLS // max(len(taken), 1)))
    before = words.words[:-1] if taken else words.words  # nothing comes behind the last token
    peaks = values.abs().amax(0).tolist() if taken else [0.0] * len(before)
    ranked = [replace(word, relevance=peak) for word, peak in zip(before, peaks, strict=False)]
    columns = in_order(ranked, most)
    found = generation_heat(one, 0, taken, columns)
    note = f"Shown are the {most} of {len(ranked):,} with the strongest." if len(columns) < len(ranked) else ""
    reading = "A line is a generated token, a column a word or a token before it."
    return replace(found, title="Token by token", reading=reading, note=note)


def generated_text(ex: "GenerationExplanation", row: int) -> str:
    """Return what was generated in a row, as its text has it; "" where nothing was."""
    steps = ex.generated(row)
    return text_of(ex, row, [ex.prompt_length + t for t in steps]) if steps else ""


def sentence_text(one: "GenerationExplanation", part: range) -> str:
    """Return the text of consecutive steps of the only row."""
    return text_of(one, 0, [one.prompt_length + t for t in part])


def generated_sentences(ex: "GenerationExplanation", row: int) -> list[range]:
    """Return the steps of each sentence that was generated in a row."""
    text = None if ex.offsets is None or ex.texts is None else ex.texts[row]
    words = []
    for t in ex.generated(row):
        place = ex.prompt_length + t
        span = (0, 0) if text is None or ex.offsets is None else trimmed(ex.offsets[row][place], text)
        words.append(Word(ex.tokens[row][place].strip() or ex.tokens[row][place], 0.0, *span, (t,)))
    return [range(part.tokens[0], part.tokens[-1] + 1) for part in grouped(words, text, "sentence")]


def largest_gap(ex: "GenerationExplanation", row: int) -> str:
    """Return the largest |gap| of a row."""
    return unsigned(ex.conservation.gap[row].abs().max().item())


def generation_heat(ex: "GenerationExplanation", row: int, steps: list[int], words: Sequence[Word]) -> Heat:
    """Return the relevance of words for these generated tokens."""
    names = [axis_label(ex.tokens[row][ex.prompt_length + t]) for t in steps]
    return heat(generation_question(ex), ex.relevance[row, steps], names, words)
