"""Answers as HTML: the document of each result, written for a page that a visitor can go through word by word."""

from dataclasses import replace

from hf_mambalrp import Explanation
from hf_mambalrp.methods import METHODS
from hf_mambalrp.results.explanation_document import layer_heat, long_text
from hf_mambalrp.space.answer import Answer, Answers
from hf_mambalrp.space.heat import heat_table
from hf_mambalrp.space.limits import Deadline, RefusedError
from hf_mambalrp.space.question import WHOLE_GRADIENT, Question
from hf_mambalrp.viz.colors import strength
from hf_mambalrp.viz.document import (
    Balance,
    Document,
    Facts,
    Grid,
    Heading,
    Heat,
    Line,
    Lines,
    Passages,
    Picture,
    Section,
    Steps,
    Table,
    Words,
)
from hf_mambalrp.viz.html import WRITERS
from hf_mambalrp.viz.markup import escaped, says, side, tint
from hf_mambalrp.viz.method_names import method_name
from hf_mambalrp.viz.wording import label, shorten, signed, table_label, visible
from hf_mambalrp.viz.words import Word, in_order

STRONG = 0.25
"""From this share of the strongest word on, a word carries its sign."""
MOST_WORDS = 40
"""Rows of a table of numbers, and columns of a heat map."""
LINES = " \n"
"""What stays as it is in a text of several lines."""


def view(answers: Answers, asked: Question) -> str:
    """Answer a question as HTML for the page. RefusedError: see :meth:`hf_mambalrp.space.answer.Answers.answer`."""
    writers = {"generation": _generation, "attention": _attention, "compare": _compare}
    writers |= {"document": _document, "image": _image}
    write = writers.get(asked.kind, _explained)
    answers.catalog.get(asked.model)  # what loads for the first time takes its time, and is not counted
    with Deadline(answers.limits.seconds):
        body = write(answers, asked)
    return f'<div class="hfm answer">{body}</div>'


def notice(message: str) -> str:
    """Say in a sentence why there is no answer."""
    return f'<div class="hfm answer"><p class="notice" role="alert">{escaped(shorten(message, 400))}</p></div>'


def _explained(answers: Answers, asked: Question) -> str:
    found = answers.answer(asked)
    document = found.result.document(level=asked.level)
    if asked.view == "methods":
        body = _methods(answers, asked, document)
    else:
        body = {"layers": _layers, "parts": _parts}.get(asked.view, _words)(asked, found.result, document)
    return _chances(found, asked) + body + _origin(document)


def _words(asked: Question, ex: Explanation, document: Document) -> str:
    (section,) = document.sections
    words = section.one(Words)
    return f"<h3>{_heading(section)}</h3>{_text(words)}{_how(section)}{_numbers(words.table(MOST_WORDS))}"


def _layers(asked: Question, ex: Explanation, document: Document) -> str:
    if ex.layer_relevance is None:
        raise _without("layers", asked)
    (section,) = document.sections
    words, balance = section.one(Words), section.one(Balance)
    heat = layer_heat(ex, 0, in_order(words.words, MOST_WORDS))
    upwards = replace(heat, values=heat.values.flip(0), rows=heat.rows[::-1])
    return (
        f"<h3>{escaped(heat.title)}</h3>"
        "<p class='how'>Read from the bottom up: where the relevance sits after the embedding and after each block. "
        "Every row sums to the score, less what the biases above it took. "
        f"Blue {escaped(words.positive)}, red {escaped(words.negative)}.</p>"
        f"{heat_table(upwards, 'after', asked.level)}"
        f"{_left_out(words)}{_sum(balance)}<p class='how'>{escaped(balance.reading)}</p>"
    )


def _parts(asked: Question, ex: Explanation, document: Document) -> str:
    """What SSM, attention and MLP read of the relevance, in all layers and in each."""
    if ex.parts is None:
        raise _without("parts", asked)
    (of_parts,), (section,) = ex.parts.document(rows=1).sections, document.sections
    kinds, layers = (block for block in of_parts.blocks if isinstance(block, Grid))
    return (
        f"<h3>{_heading(of_parts)}</h3>{_grid(kinds)}<p class='how'>{escaped(kinds.reading)}</p>"
        f"<details><summary>{escaped(layers.caption)}</summary>{_grid(layers)}</details>{_sum(section.one(Balance))}"
    )


def _without(what: str, asked: Question) -> RefusedError:
    names = ", ".join(method_name(name) for name in WHOLE_GRADIENT)
    return RefusedError(f"{method_name(asked.method)} has no relevance of {what}. These methods have it: {names}.")


def _grid(grid: Grid) -> str:
    first, *others = map(escaped, grid.head)
    head = "".join(f'<th scope="col" class="num">{name}</th>' for name in others)
    lines = "".join(
        f'<tr><th scope="row">{escaped(name.text)}</th>'
        + "".join(f'<td class="num">{escaped(cell.text)}</td>' for cell in cells)
        + "</tr>"
        for name, *cells in grid.cells
    )
    return (
        f"<div class='wide' tabindex='0' role='region' aria-label='{escaped(grid.caption)}'><table><thead><tr>"
        f"<th scope='col'>{first}</th>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _methods(answers: Answers, asked: Question, document: Document) -> str:
    if not asked.compared:
        raise RefusedError("Choose at least one method to compare.")
    found = {
        name: answers.answer(replace(asked, method=name)).result.document(level=asked.level).sections[0]
        for name in asked.compared
    }
    panels = "".join(
        f"<section><h4>{escaped(method_name(name))}</h4><p class='source'>{escaped(METHODS[name].source)}</p>"
        f"{_text(section.one(Words))}{_sum(section.one(Balance))}</section>"
        for name, section in found.items()
    )
    listed = [section.one(Words).words for section in found.values()]
    head = "".join(f'<th scope="col" class="num">{escaped(method_name(name))}</th>' for name in found)
    lines = "".join(
        f'<tr><th scope="row"><bdi>{escaped(table_label(words[0].text))}</bdi></th>'
        + "".join(_number(word.relevance) for word in words)
        + "</tr>"
        for words in list(zip(*listed, strict=True))[:MOST_WORDS]
    )
    count = len(listed[0])
    return (
        f"<h3>{_heading(document.sections[0])} {len(found)} methods</h3><div class='panels'>{panels}</div>"
        f"{_legend(document.sections[0].one(Words))}"
        f"<div class='wide' tabindex='0' role='region' aria-label='Numbers of every method'><table><caption>"
        f"{asked.level.capitalize()}s and methods</caption><thead><tr><th scope='col'>{asked.level.capitalize()}</th>"
        f"{head}</tr></thead><tbody>{lines}</tbody></table></div>"
        + (f"<p class='note'>Shown: the first {MOST_WORDS} of {count}.</p>" if count > MOST_WORDS else "")
    )


def _compare(answers: Answers, asked: Question) -> str:
    """Two lines side by side, what differs below them, and how far the ranks agree."""
    document = answers.answer(asked).result.document(level=asked.level)
    (section,) = document.sections
    *sides, difference = map(_line, section.one(Lines).lines)
    facts = "".join(f"<li>{escaped(name)} <b>{escaped(value)}</b></li>" for name, value in section.one(Facts).pairs)
    grid = section.one(Grid)
    return (
        f"<h3>{_heading(section)}</h3><ul class='agreement'>{facts}</ul><div class='panels'>{''.join(sides)}</div>"
        f"{difference}<details><summary>{escaped(grid.caption)}</summary>{_grid(grid)}</details>"
        f"<p class='how'>{escaped(grid.reading)}</p>{_origin(document)}"
    )


def _line(line: Line) -> str:
    words = line.shown.words if isinstance(line.shown, Passages) else line.shown
    about = f"<p class='source'>{escaped(line.about)}</p>" if line.about else ""
    total = f"<p class='sum'>{escaped(line.sum)}</p>" if line.sum else ""
    return f"<section><h4>{escaped(line.name)}</h4>{about}{_text(words)}{_legend(words)}{total}</section>"


def _generation(answers: Answers, asked: Question) -> str:
    document = answers.answer(asked).result.document(level=asked.level)
    (section,) = document.sections
    steps = section.one(Steps)
    return f"<h3>{_heading(section)}</h3>{_legend(steps.words)}{WRITERS[Steps](steps)}{_origin(document)}"


def _attention(answers: Answers, asked: Question) -> str:
    ex = answers.answer(asked).result
    document = ex.document(layers=[asked.layer], cells=None)
    (section,) = document.sections
    maps = "".join(
        f"<h3>{_heading(section)} {heat.title}, of 0 to {max(ex.layers)}</h3>"
        f"{heat_table(heat, 'reads', 'is read', triangle=True)}"
        for heat in section.blocks
        if isinstance(heat, Heat)
    )
    return (
        f"{maps}<p class='how'>Each row is a token that reads, each column a token that is read: blue is taken up with "
        "its sign, red with the sign turned. These weights of the mixer are averaged over its channels or "
        f"heads. They are no relevance and sum to nothing in particular.</p>{_origin(document)}"
    )


def _image(answers: Answers, asked: Question) -> str:
    found = answers.answer(asked)
    document = found.result.document()
    (section,) = document.sections
    picture, balance = section.one(Picture), section.one(Balance)
    said = " ".join(filter(None, (balance.reading, balance.ending)))
    return (
        f"{_chances(found, asked)}<h3>{_heading(section)}</h3>{WRITERS[Picture](picture)}{_sum(balance)}"
        f"<p class='how'>{escaped(said)}</p>{_numbers(section.one(Table))}"
        f"<details><summary>The numbers, patch by patch</summary>{_patches(picture)}</details>{_origin(document)}"
    )


def _patches(picture: Picture) -> str:
    rows, columns = (list(map(str, range(size))) for size in picture.patches.shape)
    return heat_table(Heat("Patches", picture.patches, rows, columns), "row", "column")


def _document(answers: Answers, asked: Question) -> str:
    ex = answers.answer(asked).result
    document = ex.document(level=asked.level)
    (section,) = document.sections
    score = f"{label(ex.target_text[0])} {ex.probability[0].item():.1%}" if ex.probability is not None else ""
    return (
        f"<p class='prediction'>The model says <b>{escaped(score, keep=LINES)}</b></p>"
        f"{WRITERS[Passages](long_text(ex, 0, asked.level))}{_how(section)}"
        f"{_numbers(section.one(Words).table(MOST_WORDS))}{_origin(document)}"
    )


def _chances(found: Answer, asked: Question) -> str:
    if not found.chances:
        return ""
    bars = "".join(
        f'<li><span class="class"><bdi>{escaped(shorten(visible(name), 32))}</bdi></span>'
        f'<span class="track" aria-hidden="true"><i style="width:{100 * p:.1f}%"></i></span><b>{p:.1%}</b></li>'
        for name, p in found.chances
    )
    what = "The model continues with" if asked.kind == "next" else "The model says"
    return f"<p class='prediction'>{what}</p><ul class='chances'>{bars}</ul>"


def _heading(section: Section) -> str:
    return escaped(section.one(Heading).text)


def _text(words: Words) -> str:
    marks = "".join(
        escaped(before, keep=" \n\t") + _mark(word, shown, words, reachable=number == 0)
        for number, (before, shown, word) in enumerate(words.laid_out())
    )
    return f'<div class="text" role="group" aria-label="The text, coloured by relevance" dir="auto">{marks}</div>'


def _mark(word: Word, shown: str, among: Words, *, reachable: bool = False) -> str:
    """A word that says its number on hover and on focus; the arrow keys go on from the one reachable by Tab."""
    marked = strength(word.relevance, among.peak) >= STRONG
    sign = f'<sup aria-hidden="true">{"+" if word.relevance > 0 else "−"}</sup>' if marked else ""
    name = escaped(f"{shown}: {signed(word.relevance)}, {says(word, among)}")
    return (
        f'<span class="w {side(word.relevance)}" style="{tint(word.relevance, among.peak)}" role="img" '
        f'aria-label="{name}" tabindex="{-1 + reachable}" data-tip="{signed(word.relevance)}">{escaped(shown)}{sign}'
        "</span>"
    )


def _how(section: Section) -> str:
    balance = section.one(Balance)
    where = "Hover or tap a word for its number, or go by Tab and ← →."
    said = escaped(" ".join(filter(None, (balance.reading, balance.ending, where))))
    return f"{_legend(section.one(Words))}{_sum(balance)}<p class='how'>{said}</p>"


def _legend(words: Words) -> str:
    ends = tint(1, 1)
    return (
        f'<p class="signs"><span><span class="w pos" style="{ends}">word<sup>+</sup></span> blue, solid line: '
        f'{escaped(words.positive)}</span><span><span class="w neg" style="{ends}">word<sup>−</sup></span> red, dashed '
        f"line: {escaped(words.negative)}</span></p>"
    )


def _sum(balance: Balance) -> str:
    return f"<p class='sum'>{escaped(balance.sum)}</p>"


def _numbers(table: Table) -> str:
    lines = "".join(
        f'<tr><th scope="row"><bdi>{escaped(table_label(word.text))}</bdi></th>{_number(word.relevance)}'
        f'<td class="num">{table.share(word)}</td></tr>'
        for word in table.words
    )
    return (
        f"<details><summary>The numbers, {table.caption.lower()} first</summary><table><thead><tr>"
        f"<th scope='col'>{table.level.capitalize()}</th><th scope='col' class='num'>Relevance</th>"
        f"<th scope='col' class='num'>Share of all |R|</th></tr></thead><tbody>{lines}</tbody></table></details>"
    )


def _number(value: float) -> str:
    return f'<td class="num {side(value)}-text">{signed(value)}</td>'


def _left_out(words: Words) -> str:
    count = len(words.words)
    shown = f"Shown: the {MOST_WORDS} strongest of {count} {words.level}s."
    return f"<p class='note'>{shown}</p>" if count > MOST_WORDS else ""


def _origin(document: Document) -> str:
    made = document.origin
    parts = [made.name, made.model, *(f"{package} {version}" for package, version in made.versions.items())]
    return f"<footer>{escaped(' · '.join(part for part in parts if part))}</footer>"
