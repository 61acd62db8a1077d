"""Answers as HTML. Every text of a visitor, a model or a vocabulary goes through ``visible`` and ``escape``."""

from dataclasses import replace
from typing import Any

from hf_mambalrp import Explanation
from hf_mambalrp.methods import METHODS
from hf_mambalrp.results.explanation import Level
from hf_mambalrp.space.answer import Answer, answer
from hf_mambalrp.space.catalog import LOADED
from hf_mambalrp.space.heat import heat_table
from hf_mambalrp.space.limits import LIMITS, Deadline, RefusedError
from hf_mambalrp.space.marks import (
    LINES,
    MOST_WORDS,
    balanced,
    coloured,
    how,
    legend,
    mark,
    name_of,
    number,
    numbers,
    safe,
    side_of,
    tint,
)
from hf_mambalrp.space.passages import Passage, passages
from hf_mambalrp.space.question import WHOLE_GRADIENT, Question
from hf_mambalrp.viz.wording import label, reading, shorten, signed, speaks, spelt, unsigned, visible
from hf_mambalrp.viz.wording import question as heading
from hf_mambalrp.viz.words import Word, layout

TITLES = {"mambalrp": "MambaLRP", "lrp_ln": "LRP with the LN rule", "gradient_x_input": "Gradient × input"}
MOST_PASSAGES = 5


def view(asked: Question) -> str:
    """Answer a question as HTML for the page. RefusedError: see :func:`hf_mambalrp.space.answer.answer`."""
    write = {"generation": _generation, "attention": _attention, "document": _document}.get(asked.kind, _explained)
    LOADED.get(asked.entry)  # what loads for the first time takes its time, and is not counted
    with Deadline(LIMITS.seconds):
        body = write(asked)
    return f'<div class="hfm answer">{body}</div>'


def notice(message: str) -> str:
    """Say in a sentence why there is no answer."""
    return f'<div class="hfm answer"><p class="notice" role="alert">{safe(shorten(message, 400))}</p></div>'


def method_title(name: str) -> str:
    """A method's name as a visitor reads it."""
    return TITLES.get(name, name.replace("_", " ").capitalize())


def _explained(asked: Question) -> str:
    found = answer(asked)
    body = {"words": _words, "layers": _layers, "methods": _methods}[asked.view](asked, found)
    return _chances(found, asked) + body + _origin(found.result)


def _words(asked: Question, found: Answer) -> str:
    ex = found.result
    return f"<h3>{safe(heading(ex, 0))}</h3>{coloured(ex, asked.level)}{how(ex)}{numbers(ex, asked.level)}"


def _layers(asked: Question, found: Answer) -> str:
    ex = found.result
    if ex.layer_relevance is None:
        names = ", ".join(method_title(name) for name in WHOLE_GRADIENT)
        raise RefusedError(f"{method_title(asked.method)} has no relevance of layers. These methods have it: {names}.")
    words, (for_, against) = _strongest(ex, asked.level), speaks(ex, 0)
    rows = ["embedding", *(f"block {number}" for number in range(1, len(ex.layer_relevance)))]
    values = [[sum(layer[i] for i in word.tokens) for word in words] for layer in ex.layer_relevance[:, 0].tolist()]
    return (
        f"<h3>{safe(heading(ex, 0))} Layer by layer</h3>"
        "<p class='how'>Read from the bottom up: where the relevance sits after the embedding and after each block. "
        "Every row sums to the score, less what the biases above it took. "
        f"Blue {safe(for_)}, red {safe(against)}.</p>"
        f"{heat_table(values[::-1], rows[::-1], [word.text for word in words], 'after', asked.level)}"
        f"{_left_out(ex, asked.level)}{balanced(ex)}<p class='how'>{reading(ex, 0)}</p>"
    )


def _methods(asked: Question, found: Answer) -> str:
    if not asked.compared:
        raise RefusedError("Choose at least one method to compare.")
    answers = {name: answer(replace(asked, method=name)).result for name in asked.compared}
    panels = "".join(
        f"<section><h4>{safe(method_title(name))}</h4><p class='source'>{safe(METHODS[name].source)}</p>"
        f"{coloured(ex, asked.level)}{balanced(ex)}</section>"
        for name, ex in answers.items()
    )
    listed = {name: ex.words(level=asked.level) for name, ex in answers.items()}
    first = next(iter(listed.values()))
    kept = range(len(first))[:MOST_WORDS]
    head = "".join(f'<th scope="col" class="num">{safe(method_title(name))}</th>' for name in listed)
    lines = "".join(
        f'<tr><th scope="row"><bdi>{name_of(first[i])}</bdi></th>'
        + "".join(number(words[i].relevance) for words in listed.values())
        + "</tr>"
        for i in kept
    )
    return (
        f"<h3>{safe(heading(found.result, 0))} {len(answers)} methods</h3><div class='panels'>{panels}</div>"
        f"{legend(found.result)}"
        f"<div class='wide' tabindex='0' role='region' aria-label='Numbers of every method'><table><caption>"
        f"{asked.level.capitalize()}s and methods</caption><thead><tr><th scope='col'>{asked.level.capitalize()}</th>"
        f"{head}</tr></thead><tbody>{lines}</tbody></table></div>"
        + (f"<p class='note'>Shown: the first {MOST_WORDS} of {len(first)}.</p>" if len(first) > MOST_WORDS else "")
    )


def _generation(asked: Question) -> str:
    ex = answer(asked).result
    steps = ex.generated(0)
    last = ex.step(steps[-1])
    words = _strongest(last, asked.level)
    values = [[sum(row[i] for i in word.tokens) for word in words] for row in ex.relevance[0, steps].tolist()]
    names = [ex.tokens[0][ex.prompt_length + t] for t in steps]
    text = spelt(ex, 0, [ex.prompt_length + t for t in steps])
    chances = [f"“{label(name)}” {p:.0%}" for name, p in zip(names, ex.probability[0, steps].tolist(), strict=True)]
    gap = ex.conservation.gap[0].abs().max().item()
    return (
        f"<h3>What speaks for each generated token?</h3>"
        f"<p class='text'><span class='muted'>{safe(asked.text, keep=LINES)}</span>"
        f"<mark>{safe(text, keep=LINES)}</mark></p>"
        f"{heat_table(values, names, [word.text for word in words], 'generated', asked.level)}"
        f"{_left_out(last, asked.level)}"
        f"<p class='note'>Probability of each: {safe(', '.join(chances))}.</p>"
        "<p class='how'>Each row explains one generated token: blue words (+) raised its logit, red words (−) "
        f"lowered it. A row sums to that logit, up to the biases; the largest gap here is {unsigned(gap)}.</p>"
        f"{_origin(ex)}"
    )


def _attention(asked: Question) -> str:
    ex = answer(asked).result
    layer = asked.layer
    names = ex.tokens[0]
    return (
        f"<h3>Which position reads which? Layer {layer}, of 0 to {len(ex.layers) - 1}</h3>"
        f"{heat_table(ex.map(layer).tolist(), names, names, 'reads', 'is read', triangle=True)}"
        "<p class='how'>Each row is a token that reads, each column a token that is read: blue is taken up with "
        "its sign, red with the sign turned. These weights of the mixer are averaged over its "
        f"channels. They are no relevance and sum to nothing in particular.</p>{_origin(ex)}"
    )


def _document(asked: Question) -> str:
    ex = answer(asked).result
    found = passages(ex, asked.text)
    peak = max((abs(passage.relevance) for passage in found), default=0.0)
    top = sorted(found, key=lambda passage: -abs(passage.relevance))[:MOST_PASSAGES]
    score = f"{label(ex.target_text[0])} {ex.probability[0].item():.1%}" if ex.probability is not None else ""
    strongest = max((abs(word.relevance) for word in ex.words()), default=0.0)
    listed = "".join(f"<li>{_passage(ex, passage, strongest)}</li>" for passage in top)
    tinted = "".join(
        f'<span class="w {side_of(p.relevance)}" style="{tint(p.relevance, peak)}" title="{signed(p.relevance)}">'
        f"{safe(p.text, keep=LINES)}</span> "
        for p in found
    )
    return (
        f"<p class='prediction'>The model says <b>{safe(score)}</b></p>"
        f"<h3>{len(top)} of {len(found)} passages mattered most</h3><ol class='passages'>{listed}</ol>{how(ex)}"
        f"<details><summary>The whole document, {len(ex.words())} words, tinted by passage</summary>"
        f"<p class='text long' lang='' dir='auto'>{tinted}</p></details>{_origin(ex)}"
    )


def _passage(ex: Explanation, passage: Passage, peak: float) -> str:
    says, text = speaks(ex, 0), None if ex.texts is None else ex.texts[0]
    spans = (
        safe(before if number else "", keep=LINES) + mark(word, shown, peak, says, reachable=number == 0)
        for number, (before, shown, word) in enumerate(layout(passage.words, text, "word", ex.tokens[0]))
    )
    return f'<b class="{side_of(passage.relevance)}-text">{signed(passage.relevance)}</b> <span>{"".join(spans)}</span>'


def _chances(found: Answer, asked: Question) -> str:
    if not found.chances:
        return ""
    bars = "".join(
        f'<li><span class="class"><bdi>{safe(shorten(visible(name), 32))}</bdi></span>'
        f'<span class="track" aria-hidden="true"><i style="width:{100 * p:.1f}%"></i></span><b>{p:.1%}</b></li>'
        for name, p in found.chances
    )
    what = "The model continues with" if asked.kind == "next" else "The model says"
    return f"<p class='prediction'>{what}</p><ul class='chances'>{bars}</ul>"


def _strongest(ex: Explanation, level: Level) -> list[Word]:
    """At most :data:`MOST_WORDS` words, in reading order."""
    kept = {*ex.top(MOST_WORDS, level=level)}
    return [word for word in ex.words(level=level) if word in kept]


def _left_out(ex: Explanation, level: Level) -> str:
    count = len(ex.words(level=level))
    return f"<p class='note'>Shown: the {MOST_WORDS} strongest of {count} {level}s.</p>" if count > MOST_WORDS else ""


def _origin(ex: Any) -> str:
    parts = [getattr(ex, "method", "hidden attention"), getattr(ex, "model_id", None) or ""]
    parts += [f"{package} {version}" for package, version in ex.versions.items()]
    return f"<footer>{safe(' · '.join(part for part in parts if part))}</footer>"
