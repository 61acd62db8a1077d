"""What the figure of each result shows: which words, how many, and what stands above them."""

from typing import TYPE_CHECKING

from hf_mambalrp.errors import InputError
from hf_mambalrp.results.attention_document import attention_heat, origin, place_of
from hf_mambalrp.results.comparison_document import agreement_facts, differing
from hf_mambalrp.results.explanation_document import LONG, layer_heat, long_text, part_heat
from hf_mambalrp.results.generation_document import generation_heat, largest_gap
from hf_mambalrp.results.parts_document import QUESTION, kind_name
from hf_mambalrp.results.sentences import about, question, with_options
from hf_mambalrp.runs.checks import whole_number
from hf_mambalrp.viz.pair_plot import paired_bars
from hf_mambalrp.viz.plot import bars, heat_map
from hf_mambalrp.viz.stacks import Stack, stacked_bars
from hf_mambalrp.viz.wording import label, signed, visible
from hf_mambalrp.viz.words import Level, Word, in_order, strongest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hf_mambalrp.results.comparison import Comparison
    from hf_mambalrp.results.explanation import Explanation
    from hf_mambalrp.results.generation_explanation import GenerationExplanation
    from hf_mambalrp.results.hidden_attention import HiddenAttention
    from hf_mambalrp.results.parts import PartRelevance

MAX_BARS, MAX_COLUMNS = 40, 60
STRETCHES = 100
"""Bars of the strip along a long text, at most."""


def bars_of_words(ex: "Explanation", row: int, level: Level, top: int | None, ax: "Axes | None") -> "Figure":
    """Draw a horizontal bar per word: in reading order, or the ``top`` strongest first."""
    words, note = _chosen(ex, row, level, MAX_BARS if top is None else top)
    if top is not None:
        words = strongest(words, top)
    strip = long_text(ex, row).strip(STRETCHES) if ax is None and len(ex.words(row)) > LONG else ()
    return bars(words, title=question(ex, row), lines=[*about(ex, row), *note], strip=strip, ax=ax)


def bars_of_pairs(found: "Comparison", row: int, level: Level, top: int | None, ax: "Axes | None") -> "Figure":
    """Draw two bars per word: in reading order, or the ``top`` that differ most."""
    whole_number("top", MAX_BARS if top is None else top, 1)
    words = found.words(row, level=level)
    most = differing(words)[: MAX_BARS if top is None else top]
    kept = {*most}
    shown = most if top is not None else [word for word in words if word in kept]
    facts = [f"{name} {value}" for name, value in agreement_facts(found, row, level)]
    note = [f"shown: the {len(shown)} of {len(words)} {level}s that differ most"] * (len(shown) < len(words))
    names = label(found.names[0]), label(found.names[1])
    lines = [visible(", ".join(facts)), *note]
    return paired_bars(shown, names, title=" and ".join(names), lines=lines, ax=ax)


def map_of_layers(ex: "Explanation", row: int, level: Level, top: int | None, ax: "Axes | None") -> "Figure":
    """Draw the relevance after the embedding and after every block, one column per word."""
    words, note = _chosen(ex, row, level, MAX_COLUMNS if top is None else top)
    return heat_map(
        layer_heat(ex, row, words),
        title=question(ex, row),
        lines=[*about(ex, row), *note],
        down="after block (0: the embedding)",
        inches=0.14,
        numbered=True,
        ax=ax,
    )


def map_of_parts(ex: "Explanation", row: int, level: Level, top: int | None, ax: "Axes | None") -> "Figure":
    """Draw what each kind of part reads, one column per word."""
    words, note = _chosen(ex, row, level, MAX_COLUMNS if top is None else top)
    return heat_map(
        part_heat(ex, row, words),
        title=question(ex, row),
        lines=[*about(ex, row), "read by each kind of part, summed over its layers", *note],
        down="",
        inches=0.36,
        ax=ax,
    )


def bars_of_parts(parts: "PartRelevance", row: int, ax: "Axes | None") -> "Figure":
    """Draw a stacked bar for each branch of each layer."""
    sums = parts.relevance[:, row].double().sum(-1).tolist()
    first = {parts.names[branch[0]][0]: branch[0] for branch in reversed(parts.branches)}
    stacks = [
        Stack(
            str(parts.names[branch[0]][0]) if branch[0] in first.values() else "",
            {kind_name(parts.names[number][2]): sums[number] for number in branch},
        )
        for branch in parts.branches
    ]
    note = "" if parts.conserving else f"round the layers, to the embeddings: {signed(parts.around[row].item())}"
    kinds = [kind_name(kind) for kind in parts.kinds]
    return stacked_bars(stacks, kinds, down="layer", title=QUESTION, lines=[note] if note else [], ax=ax)


def map_of_generation(ex: "GenerationExplanation", row: int, level: Level, ax: "Axes | None") -> "Figure":
    """Draw one line per generated token over the words before it."""
    steps = ex.generated(row)
    if not steps:
        raise InputError(f"row {row} generated no token, so there is nothing to draw.")
    words = ex.step(steps[-1]).words(row, level=level)
    peaks = generation_heat(ex, row, steps, words).values.abs().amax(0)
    kept = sorted(peaks.topk(min(MAX_COLUMNS, len(words))).indices.tolist())
    heat = generation_heat(ex, row, steps, [words[i] for i in kept])
    lines = [f"{with_options(ex)}, largest gap {largest_gap(ex, row)}", *_note(len(kept), len(words), level)]
    return heat_map(heat, title=heat.title, lines=lines, down="generated token", inches=0.24, ax=ax)


def map_of_attention(attention: "HiddenAttention", k: int, row: int, ax: "Axes | None") -> "Figure":
    """Draw the matrix k of one row of the batch."""
    heat = attention_heat(attention, k, row)
    made = origin(attention)
    return heat_map(
        heat,
        title=f"Hidden attention of {place_of(attention, k)}",
        lines=[made.name, *([f"model {made.model}"] if made.model else []), *([heat.note] if heat.note else [])],
        down="query: the position that reads",
        across="key: the position that is read",
        meaning="attention: blue positive, red negative",
        inches=0.2,
        ax=ax,
    )


def _chosen(ex: "Explanation", row: int, level: Level, limit: int) -> tuple[list[Word], list[str]]:
    """Pick the strongest words, in reading order, with a note if some are left out."""
    words, kept = ex.words(row, level=level), len(ex.top(limit, row, level=level))
    return in_order(words, kept), _note(kept, len(words), level)


def _note(shown: int, count: int, level: Level) -> list[str]:
    return [f"shown: the {shown} strongest of {count} {level}s"] if shown < count else []
