"""The document of an audit: what was confirmed, all candidates, what changed, swaps, places, what was not examined."""

from typing import TYPE_CHECKING

from hf_mambalrp.results.audit_parts import Effect, Positions
from hf_mambalrp.viz.document import Block, Document, Facts, Grid, Heading, Origin, Section
from hf_mambalrp.viz.wording import table_label

if TYPE_CHECKING:
    from hf_mambalrp.results.audit import Audit

READING = (
    "Effect: the score with {what} less the score without them, in standard deviations of the score, with its "
    "{confidence:.0%} interval; the score is the log-odds of the class, read from the model itself, and the classes "
    "weigh the same. Confirmed: q < .05 (Benjamini and Hochberg) and |effect| >= {min_effect}. Relevance alone "
    "confirms nothing."
)


def audit_document(found: "Audit") -> Document:
    """Return the one section of an audit."""
    s = found.settings
    names = [
        f"{table_label(one.found.name)} ({_signed(one.found.effect)} for {one.found.target})" for one in found.confirmed
    ]
    facts = [("Confirmed", ", ".join(names) or "nothing")]
    facts.append(("Data", table_label(found.data)))
    inputs, what = ("Images", "Region") if found.of_images else ("Texts", "Words")
    facts.append((inputs, f"{found.texts} explained, {found.skipped} skipped"))
    facts.append(("Classes", ", ".join(f"{name} {count}" for name, count in found.classes.items())))
    if found.errors is not None:
        facts.append(("Errors", f"{found.errors} of {found.texts} ({found.errors / found.texts:.1%})"))
    blocks: list[Block] = [Heading("What does the model rely on?"), Facts(tuple(facts))]
    lines = [
        (
            table_label(one.found.name),
            "yes" if one.confirmed else "no",
            f"{one.share:.1%}",
            *_numbers(one.found),
            _small(one.q),
            str(one.found.changed),
        )
        for one in found.candidates
    ]
    head = (what, "Confirmed", "Share of |R|", inputs, "Class", "Effect", "Interval", "q", "Decisions changed")
    named = "the patches of the region" if found.of_images else "the words"
    reading = READING.format(what=named, confidence=s["confidence"], min_effect=s["min_effect"])
    blocks.append(Grid("Candidates, by how much relevance they have", head, lines, reading))
    if found.changed is not None:
        risen = [
            (table_label(one.word), str(one.texts), *(f"{share:.1%}" for share in (one.before, one.share, one.change)))
            for one in found.changed
        ]
        names_of = ("Word", "Texts", "Share before", "Share now", "Change")
        blocks.append(
            Grid("What rose most against the base model", names_of, risen, "Shares of |relevance|, same texts.")
        )
    if found.swaps:
        swaps = [
            (
                table_label(one.found.name),
                "yes" if one.confirmed else "no",
                *_numbers(one.found),
                _small(one.q),
                f"{max((abs(effect) for _, effect in one.controls), default=0.0):.2f} of {len(one.controls)}",
            )
            for one in found.swaps
        ]
        columns = ("Swap", "Confirmed", "Texts", "Class", "Effect", "Interval", "q", "Largest control")
        says = (
            "Effect: the score with the second side's words less that with the first's. Controls are swaps of other "
            "words of like frequency; a swap is confirmed if its effect is larger than all of theirs too."
        )
        blocks.append(Grid("Swaps", columns, swaps, says))
    if found.groups:
        blocks += _groups(found, what, inputs)
    if found.positions is not None:
        blocks.append(_places(found.positions))
    blocks.append(Grid("Not examined", ("What this says nothing about",), [(said,) for said in found.not_examined]))
    return Document([Section(blocks, 0, 1)], Origin(found.method, found.model, dict(found.versions)))


def _places(positions: Positions) -> Facts:
    """Where in texts the relevance is."""
    low, middle, high = positions.distances
    place = (
        ("Relevance at the last word", f"{positions.last_word:.0%} of |relevance|"),
        ("In the last 5 % of the words", f"{positions.last_words:.0%} of |relevance|"),
        ("Ten most relevant tokens", f"{middle} tokens before the end (half are {low} to {high})"),
    )
    return Facts(place)


def _groups(found: "Audit", what: str, inputs: str) -> list[Block]:
    """A table of the groups, and one of what is relied on in them."""
    column = table_label(found.settings["groups"])
    lines = [
        (
            table_label(one.value),
            str(one.texts),
            "" if one.errors is None else f"{one.errors / one.texts:.1%} ({one.error_low:.1%} to {one.error_high:.1%})",
            f"{_signed(one.score)} ({_signed(one.low)} to {_signed(one.high)})",
        )
        for one in found.groups
    ]
    score = f"Mean log-odds of {table_label(found.groups[0].target)}"
    blocks: list[Block] = [Grid(f"Groups by {column}", (column, inputs, "Errors", score), lines)]
    relied = [
        (table_label(effect.name), table_label(group.value), *_numbers(effect))
        for one in found.confirmed
        for group in found.groups
        for effect in group.relied
        if effect.name == one.found.name
    ]
    if relied:
        head = (what, column, inputs, "Class", "Effect", "Interval")
        over = f"over all {inputs.lower()}."
        says = f"Effects of the confirmed candidates within a group, in standard deviations of the score {over}"
        blocks.append(Grid(f"What is relied on, by {column}", head, relied, says))
    return blocks


def _numbers(found: Effect) -> tuple[str, str, str, str]:
    interval = f"{_signed(found.low)} to {_signed(found.high)}"
    return str(found.texts), table_label(found.target), _signed(found.effect), interval


def _signed(value: float) -> str:
    return f"{value:+.2f}"


def _small(q: float) -> str:
    return f"{q:.3f}" if q >= 0.001 else "<.001"
