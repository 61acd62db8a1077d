"""Synthetic texts: short stories that come back to their names, facts about people, and facts about the world.

A story is a chain of steps, each one of several wordings (stories.toml); its people, places and things are drawn anew.
What a text says once it says again two or more sentences later, so that a model that reads it must carry it.
``copy_case`` makes the test of that: a text that stops before a name that stands in it once, next to another name.
"""

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

import tomllib

TEXTS: dict[str, Any] = tomllib.loads(Path(__file__).with_name("stories.toml").read_text(encoding="utf-8"))
WORDS = TEXTS["words"]
WEATHER = TEXTS["story"]["weather"]


class Person(NamedTuple):
    """A name and its pronouns."""

    name: str
    he: str
    him: str
    his: str
    girl: str


INVENTED = 0.4
"""Of the people: names that no list has must be read to be written again."""


def invented(rng: Random) -> str:
    """A name of one to three syllables, none of the held-out ones."""
    syllables = rng.choice([1, 2, 2, 2, 3])
    name = "".join(
        rng.choice(WORDS[part]) for _ in range(syllables) for part in ("onsets", "vowels", "codas")
    ).capitalize()
    held_out = any(name in names for names in WORDS["held_out"].values())
    return invented(rng) if held_out or len(name) < 3 else name


def person(name: str, woman: bool, rng: Random) -> Person:
    if woman:
        return Person(name, "she", "her", "her", rng.choice(["girl", "woman"]))
    return Person(name, "he", "him", "his", rng.choice(["boy", "man"]))


def draw_person(rng: Random, besides: tuple[str, ...] = ()) -> Person:
    woman = rng.random() < 0.5
    if rng.random() < INVENTED:
        return person(invented(rng), woman, rng)
    names = WORDS["women"] if woman else WORDS["men"]
    return person(rng.choice([name for name in names if name not in besides]), woman, rng)


def cast(rng: Random, a: Person, b: Person) -> dict[str, str]:
    """What fills the slots of one story; a slot that ends in 2 differs from its first."""
    slots = {"A": a.name, "he": a.he, "him": a.him, "his": a.his, "girl": a.girl}
    slots |= {"He": a.he.title(), "His": a.his.title()}
    slots |= {"B": b.name, "he2": b.he, "him2": b.him, "his2": b.his, "boy": b.girl}
    for slot in ("place", "thing", "colour", "animal", "food", "city", "job", "room"):
        slots[slot], slots[f"{slot}2"] = rng.sample(WORDS["cities" if slot == "city" else f"{slot}s"], 2)
    for slot in ("container", "drink", "pet", "day", "month"):
        slots[slot] = rng.choice(WORDS[f"{slot}s"])
    for slot in ("city", "city2", "pet"):
        if rng.random() < 0.2:
            slots[slot] = invented(rng)
    slots["number"] = rng.choice(WORDS["numbers"][2:])
    slots["time"] = rng.choice(["day", "morning", "evening", "night", "afternoon"])
    slots["relative"] = rng.choice(WORDS["relatives"][b.his])
    return slots


def fill(template: str, slots: Mapping[str, str]) -> str:
    text = template.format_map(slots)
    for vowel in "aeio":
        text = text.replace(f" a {vowel}", f" an {vowel}").replace(f"A {vowel}", f"An {vowel}")
    return text


def story(rng: Random) -> str:
    """Opening, meeting, one or two middles, an ending; the weather now and then."""
    wordings = TEXTS["story"]
    a = draw_person(rng)
    slots = cast(rng, a, draw_person(rng, (a.name,)))
    steps = [rng.choice(wordings["openings"]), rng.choice(wordings["meetings"])]
    if rng.random() < 0.5:
        steps.insert(rng.randrange(3), rng.choice(WEATHER))
    for middle in rng.sample(wordings["middles"], 1 if rng.random() < 0.7 else 2):
        for number, choices in enumerate(middle["steps"]):
            if number == 0 or rng.random() < 0.9:
                steps.append(rng.choice(choices))
            if rng.random() < 0.1:
                steps.append(rng.choice(WEATHER))
    steps.append(rng.choice(wordings["endings"]))
    return " ".join(fill(step, slots) for step in steps)


def said_of_people(rng: Random) -> str:
    """One or two things of each of two to four people, then questions with their answers, or the same said again."""
    people: list[str] = []
    for _ in range(rng.randint(2, 4)):
        people.append(draw_person(rng, tuple(people)).name)
    facts = [
        (relation, {"X": person, "v": value})
        for relation in rng.sample(TEXTS["relations"], 1 if rng.random() < 0.7 else 2)
        for person, value in zip(people, values_of(relation, len(people), rng), strict=True)
    ]
    text = [fill(rng.choice(relation["statements"]), fact) for relation, fact in facts]
    for _ in range(rng.choice([0, 1, 1, 2])):
        text.insert(rng.randint(len(people) - 1, len(text)), rng.choice(WEATHER))
    for relation, fact in rng.sample(facts, rng.randint(1, len(facts))):
        kind = rng.random()
        if kind < 0.3:
            text.append(fill(rng.choice(relation["questions"]), fact))
            text.append(fill(rng.choice(relation["answers"]), fact))
        else:
            text.append(fill(rng.choice(relation["who" if kind < 0.85 else "statements"]), fact))
    return " ".join(text)


def values_of(relation: Mapping[str, Any], number: int, rng: Random) -> list[str]:
    """As many different words for what is said of people; of things with colours often one thing in many colours."""
    if relation["values"] != "coloured":
        return rng.sample(WORDS[relation["values"]], number)
    colours, thing = rng.sample(WORDS["colours"], number), rng.choice(WORDS["things"])
    things = [thing] * number if rng.random() < 0.6 else rng.sample(WORDS["things"], number)
    return [f"{colour} {thing}" for colour, thing in zip(colours, things, strict=True)]


def introduction(rng: Random) -> str:
    """A name given and, some sentences later, used; or a thing put somewhere and asked for."""
    wordings = TEXTS["introductions"]
    a = draw_person(rng)
    slots = cast(rng, a, draw_person(rng, (a.name,)))
    if rng.random() < 0.6:
        steps = [rng.choice(wordings["greetings"]), *rng.sample(wordings["between"], rng.randint(1, 3))]
        friend = any("{B}" in step for step in steps)
        steps.append(rng.choice(wordings["friends" if friend and rng.random() < 0.6 else "uses"]))
    else:
        number = rng.randrange(4)
        steps = [wordings["hidden"][number], *rng.sample(WEATHER, rng.randint(0, 2))]
        steps.append(wordings["asked"][rng.randrange(2) if number < 2 else number])
    return " ".join(fill(step, slots) for step in steps)


def world(rng: Random, capitals: Mapping[str, tuple[str, str]]) -> str:
    """Capitals, days, months, numbers, opposites, sounds, colours and work: what is true in every text."""
    country, (capital, region) = rng.choice(list(capitals.items()))
    kind = rng.random()
    if kind < 0.45:
        a = draw_person(rng)
        slots = cast(rng, a, draw_person(rng, (a.name,))) | {"country": country, "capital": capital, "region": region}
        return " ".join(fill(line, slots) for line in rng.sample(TEXTS["world"]["capitals"], rng.randint(1, 4)))
    if kind < 0.6:
        return rng.choice(calendar(rng))
    if kind < 0.75:
        return rng.choice(arithmetic(rng))
    if kind < 0.88:
        one, other = rng.sample(rng.choice(WORDS["opposites"]).split(), 2)
        wordings = ["The opposite of {} is {}.", "What is the opposite of {}? It is {}.", "It is not {}, it is {}."]
        return rng.choice(wordings).format(one, other)
    animal, sound = rng.choice(list(WORDS["sounds"].items()))
    thing, colour = rng.choice(list(WORDS["colour_of"].items()))
    job, does = rng.choice(list(WORDS["made_by"].items()))
    return rng.choice(
        [
            f"A {animal} {sound}.",
            f"The {animal} {sound}.",
            f"What does the {animal} do? The {animal} {sound}.",
            f"What colour is {thing}? It is {colour}.",
            f"{thing.capitalize()} is {colour}.",
            f"A {job} {does}.",
            f"What does a {job} do? A {job} {does}.",
            f"The {job} {does} every day.",
        ]
    )


def calendar(rng: Random) -> list[str]:
    days, months = WORDS["days"], WORDS["months"]
    i, j = rng.randrange(7), rng.randrange(12)
    today, tomorrow = days[i], days[(i + 1) % 7]
    month, next_month = months[j], months[(j + 1) % 12]
    return [
        f"Today is {today}. Tomorrow is {tomorrow}.",
        f"The day after {today} is {tomorrow}.",
        f"{today} comes before {tomorrow}.",
        f"The month after {month} is {next_month}.",
        f"{month} comes before {next_month}.",
        f"The days of the week are {', '.join(days[:-1])} and Sunday.",
        f"The months are {', '.join(months)}.",
    ]


def arithmetic(rng: Random) -> list[str]:
    n = WORDS["numbers"]
    a, b, start = rng.randint(0, 10), rng.randint(0, 10), rng.randint(0, 15)
    return [
        f"{n[a].title()} plus {n[b]} is {n[a + b]}.",
        f"What is {n[a]} plus {n[b]}? It is {n[a + b]}.",
        f"{n[a + b].title()} minus {n[b]} is {n[a]}.",
        ", ".join(n[start : start + 6]).capitalize() + ".",
        ", ".join(n[1 : rng.randint(4, 20)]).capitalize() + ".",
        f"The number after {n[start]} is {n[start + 1]}.",
    ]


def synthetic(rng: Random, capitals: Mapping[str, tuple[str, str]]) -> str:
    """One text: a story in half of them, people and introductions in four of ten, the world in one."""
    kind = rng.random()
    if kind < 0.5:
        return story(rng)
    if kind < 0.75:
        return said_of_people(rng)
    if kind < 0.9:
        return introduction(rng)
    return " ".join(world(rng, capitals) for _ in range(rng.randint(1, 3)))


Names = Literal["listed", "invented", "held_out"]


class CopyCase(NamedTuple):
    """A text that stops before ``answer``, which stands in it once, two or more sentences before; so does ``other``."""

    text: str
    answer: str
    other: str


def copy_case(rng: Random, names: Names) -> CopyCase:
    """A case whose names are "listed", "invented" anew or "held_out". Either name is asked for equally often."""
    a, b = _two_people(rng, names)
    weather, weather2 = rng.sample(WEATHER, 2)
    slots = cast(rng, a, b) | {"weather": weather, "weather2": weather2}
    copying = rng.choice(TEXTS["copying"])
    asked = rng.randrange(2)
    answers = (a.name, b.name)
    return CopyCase(fill(f"{copying['text']} {copying['questions'][asked]}", slots), answers[asked], answers[1 - asked])


def introduction_case(rng: Random, names: Names) -> CopyCase:
    """The same in wordings of the training: somebody says their name and a friend's, and is called by it."""
    a, b = _two_people(rng, names)
    wordings = TEXTS["introductions"]
    between = rng.sample([step for step in wordings["between"] if "{B}" not in step], 2)
    between.insert(rng.randrange(3), rng.choice([step for step in wordings["between"] if "{B}" in step]))
    uses = [before for before, _, behind in (use.rpartition(" {A}") for use in wordings["uses"]) if len(behind) == 1]
    text = " ".join([rng.choice(wordings["greetings"]), *between, rng.choice(uses)])
    return CopyCase(fill(text, cast(rng, a, b)), a.name, b.name)


def _two_people(rng: Random, names: Names) -> tuple[Person, Person]:
    if names == "invented":
        return person(invented(rng), rng.random() < 0.5, rng), person(invented(rng), rng.random() < 0.5, rng)
    lists = WORDS["held_out"] if names == "held_out" else WORDS
    pool = [(name, kind == "women") for kind in ("women", "men") for name in lists[kind]]
    a, b = (person(name, woman, rng) for name, woman in rng.sample(pool, 2))
    return a, b
