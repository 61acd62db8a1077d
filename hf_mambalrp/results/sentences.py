"""What a row of an explanation says, in sentences that are the same in every format."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf_mambalrp.viz.wording import label, signed, unsigned
from hf_mambalrp.viz.words import Word

if TYPE_CHECKING:
    from hf_mambalrp.results.explanation import Conservation, Explanation
    from hf_mambalrp.results.generation_explanation import GenerationExplanation
    from hf_mambalrp.results.image_explanation import ImageExplanation

CONSERVED = 0.01
"""A gap up to this share of the score is rounding."""
LAST_WORD, END, PART = 0.25, 0.5, 0.05
"""Shares of all |R| from which on the last word and the last part of the words are worth a sentence."""
SHORT, LONG = 4, 100
"""Words from which on a text has an end that says something, and the last part of the words is several."""


def speaks(ex: "Explanation | ImageExplanation", row: int) -> tuple[str, str]:
    """Return what a positive and what a negative relevance of the row says."""
    target, contrast = _names(ex, row)
    if contrast is None:
        return f"speaks for {target}", f"speaks against {target}"
    return f"speaks for {target} rather than {contrast}", f"speaks for {contrast} rather than {target}"


def question(ex: "Explanation | ImageExplanation", row: int) -> str:
    """Return the question that the row answers."""
    return f"What {speaks(ex, row)[0]}?"


def facts(ex: "Explanation", row: int) -> list[tuple[str, str]]:
    """Return name and value of what was explained: score, probability, position, what was fed back behind it."""
    named = score_facts(ex, row)
    if ex.position is not None:
        named.append(("prediction after position", str(int(ex.position[row]))))
    fed = _fed_back(ex, row)
    if fed:
        named.append(("fed back behind it", " and ".join(fed)))
    return named


def score_facts(ex: "Explanation | ImageExplanation", row: int) -> list[tuple[str, str]]:
    """Return the score of a row and the target's probability, if it has one, each with its name."""
    target, contrast = _names(ex, row)
    score = target if ex.target[row] is None else f"logit of {target}"
    if contrast is not None:
        score += f" minus {contrast}"
    named = [(f"score ({score})", unsigned(ex.score[row].item()))]
    if ex.probability is not None:
        named.append((f"probability of {target}", f"{ex.probability[row].item():.1%}"))
    return named


def _names(ex: "Explanation | ImageExplanation", row: int) -> tuple[str, str | None]:
    """Target and contrast inside a sentence: tokens in quotation marks, labels and functions as they are."""

    def name(what: object, text: str) -> str:
        return label(text) if ex.position is None or what is None else f"“{label(text)}”"

    target = name(ex.target[row], ex.target_text[row])
    if ex.contrast is None or ex.contrast_text is None:
        return target, None
    return target, name(ex.contrast[row], ex.contrast_text[row])


def _fed_back(ex: "Explanation", row: int) -> list[str]:
    """The tokens behind the input: of a target of several tokens all but the last, then of such a contrast."""
    if ex.position is None:
        return []
    behind = [i for i in ex.attention_mask[row].nonzero().flatten().tolist() if i > ex.position[row]]
    found = []
    for ids in (ex.target[row], None if ex.contrast is None else ex.contrast[row]):
        if isinstance(ids, tuple) and len(ids) > 1:
            fed, behind = behind[: len(ids) - 1], behind[len(ids) - 1 :]
            found += [f"“{label(text_of(ex, row, fed))}”"] if fed else []
    return found


def text_of(ex: "Explanation | GenerationExplanation", row: int, positions: list[int]) -> str:
    """Return the text of consecutive tokens, from the row's text where they have a place in it."""
    joined = "".join(ex.tokens[row][i] for i in positions)
    if ex.offsets is None or ex.texts is None:
        return joined
    spans = ex.offsets[row]
    return ex.texts[row][spans[positions[0]][0] : spans[positions[-1]][1]] or joined


def where_the_score_went(ex: "Explanation", row: int) -> str:
    """Return where the score of a row went, in one line."""
    return f"{ex.conservation[row]}{delta(ex, row)}"


def delta(ex: "Explanation | ImageExplanation", row: int) -> str:
    """Return the convergence delta of a row as the end of a line; nothing for a method without one."""
    if ex.convergence_delta is None:
        return ""
    return f"; convergence delta {signed(ex.convergence_delta[row].item())}"


def reading(ex: "Explanation | ImageExplanation", row: int) -> str:
    """Return one sentence on how to read the sum of a row, depending on whether its method conserved the score."""
    if ex.convergence_delta is not None:
        return (
            "The numbers add up to the score less the score at the method's baseline, up to the convergence delta: "
            "where that is large, take more steps or another baseline."
        )
    score, gap = ex.score[row].item(), ex.conservation.gap[row].item()
    if abs(gap) <= CONSERVED * abs(score):
        return f"Each number is a part of the score: all of them and {absorbed_by(ex.conservation)} add up to it."
    return (
        "The numbers have the unit of the score but do not add up to it: the gap is what the method leaves unexplained."
    )


def absorbed_by(conservation: "Conservation") -> str:
    """Return what absorbs relevance under the rules that were used, inside a sentence."""
    return "the share of the biases" if conservation.softmax is None else "the shares of the biases and of the softmax"


def with_options(ex: "Explanation | GenerationExplanation | ImageExplanation") -> str:
    """Return the name of the method, with the options that it had."""
    given = ", ".join(f"{name}={_value(value)}" for name, value in ex.method_options.items())
    return f"{ex.method} ({given})" if given else ex.method


def _value(value: object) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)


def share_of_the_end(words: Sequence[Word], part: float) -> float:
    """Return how much of all |relevance| the last ``part`` of the words has, the last at least; 0 where there is none.

    Words behind the last that has relevance do not count.
    """
    sizes = [abs(word.relevance) for word in words]
    read = max((number for number, size in enumerate(sizes, 1) if size), default=0)
    total = math.fsum(sizes)
    return math.fsum(sizes[read - max(math.ceil(part * read), 1) : read]) / total if total else 0.0


def ending(words: Sequence[Word]) -> str:
    """Return a sentence on the share of the last of all words, where it is large; else nothing.

    It is no finding about these words: the answer is read at the last token.
    """
    last, end = share_of_the_end(words, 0.0), share_of_the_end(words, PART)
    if len(words) >= LONG and end >= END:
        found = f"The last {PART:.0%} of the words have {end:.0%} of all |R|"
    elif len(words) >= SHORT and last >= LAST_WORD:
        name = label(next(word.text for word in reversed(words) if word.relevance))
        found = f"The last word, “{name}”, has {last:.0%} of all |R|"
    else:
        return ""
    return f"{found}: the answer is read there, so the end weighs much whatever it says."


def about(ex: "Explanation", row: int) -> list[str]:
    """Return what stands above a figure of a row: the score, the other facts, where the score went."""
    score, *rest = [f"{name} {value}" for name, value in facts(ex, row)]
    return [score, *([", ".join(rest)] if rest else []), where_the_score_went(ex, row)]
