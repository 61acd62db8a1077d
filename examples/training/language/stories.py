"""Synthetic texts: short stories that come back to their names, facts about people, and facts about the world.

A story is a chain of steps, each one of several wordings; its people, places and things are drawn anew. What a text
says once it says again two or more sentences later, so that a model that reads it must carry it. ``copy_case`` makes
the test of that: a text that stops before a name that stands in it once, next to another name.
"""

from collections.abc import Mapping
from random import Random
from typing import NamedTuple

import words

WEATHER = [
    "It was a warm day.", "It was raining.", "The sun was shining.", "It was cold outside.", "The wind was strong.",
    "Snow was falling.", "The sky was grey.", "It was a quiet morning.", "It was late in the evening.",
    "The birds were singing.", "There were many people in the street.", "Nobody was at home.", "The streets were empty.",
    "It was almost dark.", "The trees were green.", "It was the first day of spring.", "Everybody was tired.",
]  # fmt: skip
OPENINGS = [
    "One {time}, {A} went to the {place}.", "Once there was a {girl} named {A}.", "{A} lived in a small house near the {place}.",
    "There was once a {job} called {A}.", "{A} was a {girl} who lived in {city}.", "{A} was a {job} in {city}.",
    "Last {day}, {A} walked to the {place}.", "It was {day}, and {A} had nothing to do.", "{A} loved to go to the {place}.",
    "Long ago, a {girl} named {A} lived by the {place}.", "In {month}, {A} came to {city}.",
    "Every {day}, {A} went to the {place} with {his} {animal}.", "{A} woke up early and looked out of the window.",
]  # fmt: skip
MEETINGS = [
    "{He} had a {relative} named {B}.", "There {he} met {his} {relative} {B}.", "{He} saw a {boy} whose name was {B}.",
    "A {boy} named {B} was there too.", "{His} best friend was called {B}.", "On the way {he} met a {boy} called {B}.",
    "{He} lived with {his} {relative} {B}.", "{B} was waiting for {him}.", "Then {he} saw {B} at the {place}.",
]  # fmt: skip
ENDINGS = [
    "{A} and {B} were happy.", "From that day on, {A} and {B} were good friends.", "{A} smiled, and {B} laughed.",
    '"Thank you, {B}," said {A}.', '"Good night, {A}," said {B}.', "Then {A} and {B} went home together.",
    "In the evening {A} told {his} {relative} about it.", '"See you tomorrow, {A}!" said {B}.', "{A} never forgot that {time}.",
    '"You are a good friend, {A}," said {B}.', "After that, {A} was very tired and went to bed.", "{B} waved to {A}, and {A} waved back.",
    "That night {A} slept very well.", "Everybody thanked {B}, and {A} was proud of {him2}.",
]  # fmt: skip
MIDDLES: list[list[list[str]]] = [
    [  # something is lost and found
        ["{A} had lost {his} {colour} {thing}.", "{A} could not find {his} {colour} {thing}.", "{His} {colour} {thing} was gone, and {A} was sad."],
        ['"What is wrong?" asked {B}.', '"Why are you crying?" asked {B}.', "{B} saw that {he} was sad.", '"Can I help you?" said {B}.'],
        ['"I have lost my {thing}," said {A}.', '"My {colour} {thing} is gone," {A} answered.', '"I cannot find my {thing}," said {A}.'],
        ["They looked in the {room} and in the {room2}.", "They looked under the bed and behind the door.", "They asked everybody in the {place}.", "They looked everywhere."],
        ["At last {B} found the {thing} in the {container}.", "Then {B} opened the {container}, and there was the {thing}.", "The {animal} had taken the {thing}!", "{B} found it under a tree near the {place}."],
        ['"Here is your {thing}, {A}!" said {B}.', '"Look, {A}, here is your {colour} {thing}!" {he2} said.', "{B} gave the {thing} back to {A}."],
    ],
    [  # a present
        ["It was the birthday of {B}.", "Tomorrow was the birthday of {B}.", "{B} was ill and had to stay in bed."],
        ["{A} wanted to give {him2} a present.", "{A} did not know what to give {him2}.", "{A} went to the {place} to buy a present."],
        ["{He} bought a {colour} {thing} for {him2}.", "{He} found a {colour} {thing} and put it in a {container}.", "{He} made a {colour} {thing} for {him2}."],
        ['"This is for you," said {A}.', '"Happy birthday, {B}!" said {A}.', "{A} gave the {container} to {B}.", '"Open it, {B}!" said {A}.'],
        ['"A {colour} {thing}!" said {B}.', "When {B} saw the {thing}, {he2} was very happy.", "{B} opened it and saw a {colour} {thing}."],
        ['"Thank you, {A}," said {B}.', '"I always wanted a {thing}," said {B}.', '"It is the best present of all," {he2} said.'],
    ],
    [  # an animal
        ["{A} had a {colour} {animal} called {pet}.", "{B} gave {him} a little {animal} named {pet}.", "{He} had found a small {animal}, and {he} called it {pet}."],
        ["The {animal} liked to sleep in the {room}.", "Every morning the {animal} ate some {food}.", "The {animal} was {colour2} and very clever.", "It followed {him} everywhere."],
        ["One day the {animal} ran away.", "One {time} the door was open, and the {animal} was gone.", "Then there was a loud noise, and the {animal} ran away."],
        ['"{pet}! {pet}!" called {A}.', '"Where are you, {pet}?" called {A}.', "{A} and {B} looked for {pet} all day.", '"Have you seen my {animal}?" asked {A}. "It is called {pet}."'],
        ["They found {pet} at the {place}.", "At last {B} saw {pet} under a tree.", "{pet} was sitting in the {room2} all the time.", "A {job2} had found {pet} near the {place}."],
        ['"Good {animal}!" said {A}.', "{A} gave {pet} some {food}.", "{pet} was hungry and ate all the {food}.", "{A} was glad that {pet} was back."],
    ],
    [  # a meal
        ['"I am hungry," said {B}.', '"What shall we eat?" asked {B}.', '"Are you hungry, {B}?" asked {A}.'],
        ['"I will make some {food}," said {A}.', '"We have {food} and {food2}," said {A}.', '"Let us make {food}," said {A}.'],
        ["{A} went into the kitchen and looked for the {thing}.", "{B} went to the shop and bought {food2}.", "They bought {food} and {drink} at the market."],
        ["{A} made the {food}, and {B} made some {drink}.", "Soon the {food} was ready.", "{B} put the {food} on the table."],
        ['"This {food} is very good, {A}," said {B}.', '"Do you like it, {B}?" asked {A}.', "{B} ate all the {food} and drank some {drink}.", '"Can I have more {food}?" asked {B}.'],
    ],
    [  # a journey
        ["{A} wanted to see {city2}.", '"I have never been to {city2}," said {A}.', "{A} had a {relative} in {city2}.", "{A} got a letter from {city2}."],
        ['"Then let us go to {city2}!" said {B}.', '"Come with me to {city2}," {A} said to {B}.', "{B} had been to {city2} many years ago."],
        ["They took the train in the morning.", "They went by ship, and it took two days.", "They packed a {container} and a {colour} {thing}.", "The way was long, and they were tired."],
        ["When they came to {city2}, it was dark.", "{city2} was a big and beautiful city.", "In {city2} they saw the {place} and the {place2}.", "There were many people in {city2}."],
        ['"I like {city2}," said {A}.', '"I want to live in {city2}," said {B}.', "They stayed in {city2} for a week.", "{A} bought a {colour} {thing} there."],
    ],
    [  # a stranger asks the way
        ["At the {place} a man stopped {him}.", "An old woman came to {him}.", "A stranger came through the {place}."],
        ['"What is your name?" the stranger asked.', '"Who are you?" the stranger asked.', '"Hello, what are you called?" the stranger said.'],
        ['"My name is {A}," {he} said.', '"I am {A}," {he} said, "and this is {B}."', '"They call me {A}," {he} answered.'],
        ['"Well, {A}, can you tell me the way to the {place2}?"', '"Can you help me, {A}? I am looking for the {place2}."', '"{A}, do you know a {job2} here?"'],
        ['"It is behind the {place}," said {A}.', '"I will go with you to the {place2}," said {A}.', '"{B} can show you the way," said {A}.'],
        ['"Thank you, {A}," said the stranger, and gave {him} a {colour} {thing}.', "The stranger thanked {A} and went away.", "The stranger gave {B} a {thing} and {A} a {thing2}."],
    ],
    [  # afraid, and brave
        ["There was a strange noise in the {room}.", "Something moved behind the {place}.", "Suddenly the light went out.", "A big {colour} {animal} stood before them."],
        ['"I am afraid," said {B}.', "{B} was afraid and took {his} hand.", '"What was that?" asked {B}.', "{B} began to cry."],
        ['"Do not be afraid, {B}," said {A}.', '"Stay behind me," said {A}.', '"It is nothing," said {A}, but {he} was afraid too.'],
        ["{A} took a {thing} and went to look.", "{A} opened the door very slowly.", "{A} took the {thing} and counted to three."],
        ["It was only a {animal2}.", "There was nobody there.", "It was only the wind in the trees.", "There stood {his} {relative} with a {thing2}."],
        ['"You are very brave, {A}," said {B}.', "They laughed and laughed.", '"I was not afraid at all," said {B}.'],
    ],
    [  # work
        ["{A} was a {job}, and {B} was a {job2}.", "{A} worked as a {job} in the {place}.", "{A} wanted to be a {job}."],
        ["The work was hard, but {he} liked it.", "Every morning {he} got up at {number} o'clock.", "{He} worked from morning to night.", "One day {he} had too much to do."],
        ['"I need help," {he} said to {B}.', '"Will you help me, {B}?" {he} asked.', "Then {B} came to help {him}."],
        ["{B} worked for {number} days.", "Together they were done before {day}.", "{B} brought a {colour} {thing} and {food}.", "They worked until the sun went down."],
        ['"You are a good {job}, {A}," said {B}.', "{A} paid {B} with {number} coins.", '"Now I know what a {job} does," said {B}.', "The people of {city} liked the {job} very much."],
    ],
]  # fmt: skip


class Person(NamedTuple):
    """A name and its pronouns."""

    name: str
    he: str
    him: str
    his: str
    girl: str


def draw_person(rng: Random, besides: tuple[str, ...] = ()) -> Person:
    woman = rng.random() < 0.5
    name = rng.choice([name for name in (words.WOMEN if woman else words.MEN) if name not in besides])
    return person(name, woman, rng)


def person(name: str, woman: bool, rng: Random) -> Person:
    if woman:
        return Person(name, "she", "her", "her", rng.choice(["girl", "woman"]))
    return Person(name, "he", "him", "his", rng.choice(["boy", "man"]))


def cast(rng: Random, a: Person, b: Person) -> dict[str, str]:
    """What fills the slots of one story; slots that end in 2 differ from their first."""
    slots = {
        "A": a.name,
        "he": a.he,
        "him": a.him,
        "his": a.his,
        "girl": a.girl,
        "He": a.he.title(),
        "His": a.his.title(),
    }
    slots |= {"B": b.name, "he2": b.he, "him2": b.him, "his2": b.his, "boy": b.girl}
    for slot, choices in {
        "place": words.PLACES,
        "thing": words.THINGS,
        "colour": words.COLOURS,
        "animal": words.ANIMALS,
        "food": words.FOODS,
        "city": words.CITIES,
        "job": words.JOBS,
        "room": words.ROOMS,
    }.items():
        slots[slot], slots[f"{slot}2"] = rng.sample(choices, 2)
    slots |= {
        "container": rng.choice(words.CONTAINERS),
        "drink": rng.choice(words.DRINKS),
        "pet": rng.choice(words.PETS),
    }
    slots |= {"day": rng.choice(words.DAYS), "month": rng.choice(words.MONTHS), "number": rng.choice(words.NUMBERS[2:])}
    slots |= {"time": rng.choice(["day", "morning", "evening", "night", "afternoon"])}
    return slots | {"relative": rng.choice(words.RELATIVES[b.his])}


def fill(template: str, slots: Mapping[str, str]) -> str:
    text = template.format_map(slots)
    for vowel in "aeio":
        text = text.replace(f" a {vowel}", f" an {vowel}").replace(f"A {vowel}", f"An {vowel}")
    return text


def story(rng: Random) -> str:
    """Opening, meeting, one or two middles, an ending; the weather now and then."""
    a = draw_person(rng)
    slots = cast(rng, a, draw_person(rng, (a.name,)))
    steps = [rng.choice(OPENINGS), rng.choice(MEETINGS)]
    if rng.random() < 0.5:
        steps.insert(rng.randrange(3), rng.choice(WEATHER))
    for middle in rng.sample(MIDDLES, 1 if rng.random() < 0.7 else 2):
        for number, wordings in enumerate(middle):
            if number == 0 or rng.random() < 0.9:
                steps.append(rng.choice(wordings))
            if rng.random() < 0.1:
                steps.append(rng.choice(WEATHER))
    steps.append(rng.choice(ENDINGS))
    return " ".join(fill(step, slots) for step in steps)


# What can be said of a person, asked about it, and answered. {X} is the person, {v} what is said of it.
RELATIONS: list[tuple[list[str], list[str], list[str], list[str]]] = [
    (
        words.CITIES,
        ["{X} lives in {v}.", "{X} comes from {v}.", "{X} has a house in {v}.", "The home of {X} is in {v}."],
        ["Where does {X} live?", "Where is the home of {X}?", "In which city does {X} live?"],
        ["{X} lives in {v}.", "{X} lives in the city of {v}.", "In {v}."],
    ),
    (
        words.JOBS,
        ["{X} is a {v}.", "{X} works as a {v}.", "The name of the {v} is {X}."],
        ["What does {X} do?", "What is the work of {X}?", "What is {X}?"],
        ["{X} is a {v}.", "{X} works as a {v}."],
    ),
    (
        words.THINGS,
        ["{X} has a {v}.", "{X} bought a {v}.", "{X} found a {v}.", "There is a {v} in the hand of {X}."],
        ["What does {X} have?", "What is in the hand of {X}?"],
        ["{X} has a {v}.", "A {v}."],
    ),
    (
        words.COLOURS,
        ["The coat of {X} is {v}.", "{X} wears a {v} coat.", "{X} likes the colour {v}."],
        ["What colour does {X} like?", "What colour is the coat of {X}?"],
        ["{X} likes {v}.", "The coat of {X} is {v}."],
    ),
    (
        words.FOODS,
        ["{X} likes {v}.", "{X} eats {v} every day.", "The best food for {X} is {v}."],
        ["What does {X} like to eat?", "What does {X} eat?"],
        ["{X} likes {v}.", "{X} eats {v}."],
    ),
    (
        words.ROOMS,
        ["{X} is in the {v}.", "{X} went into the {v}.", "{X} sits in the {v}."],
        ["Where is {X}?", "In which room is {X}?"],
        ["{X} is in the {v}.", "In the {v}."],
    ),
]


def said_of_people(rng: Random) -> str:
    """Two to four people, something of each, then a question or a name to complete."""
    choices, statements, questions, answers = rng.choice(RELATIONS)
    people: list[str] = []
    for _ in range(rng.randint(2, 4)):
        people.append(draw_person(rng, tuple(people)).name)
    values = rng.sample(choices, len(people))
    text = [fill(rng.choice(statements), {"X": x, "v": v}) for x, v in zip(people, values, strict=True)]
    for _ in range(rng.choice([0, 0, 1, 2])):
        text.append(rng.choice(WEATHER))
    for x, v in rng.sample(list(zip(people, values, strict=True)), rng.randint(1, len(people))):
        if rng.random() < 0.7:
            text += [fill(rng.choice(questions), {"X": x}), fill(rng.choice(answers), {"X": x, "v": v})]
        else:
            text.append(fill(rng.choice(statements), {"X": x, "v": v}))
    return " ".join(text)


def introductions(rng: Random) -> str:
    """A name given, a sentence or two between, the name used: the first person, and things in containers."""
    a = draw_person(rng)
    slots = cast(rng, a, draw_person(rng, (a.name,)))
    between = [
        "I live in {city} and work as a {job}.", "I am from {city}.", "I have a {colour} {thing} and a {animal}.", "I like {food} and {drink}.",
        "I was born in {month}.", "My {relative} is a {job2}.", "I have come from {city2} to see you.", "It is cold in {city} today.",
    ]  # fmt: skip
    greetings = [
        "My name is {A}.",
        "I am {A}.",
        "Hello, I am called {A}.",
        '"My name is {A}," {he} said.',
        "You can call me {A}.",
    ]
    uses = [
        "Nice to meet you, {A}.", "Good morning, {A}!", "How are you, {A}?", "Welcome to {city2}, {A}.", "Please come in, {A}.",
        "What is your name? My name is {A}.", "Goodbye, {A}!", "Sit down, {A}, and have some {drink}.", "Thank you for coming, {A}.",
    ]  # fmt: skip
    hidden = [
        "{A} put the {thing} in the {container}.", "The {thing} is in the {container}.", "{A} left the {thing} in the {room}.",
        "The {colour} {thing} belongs to {A}, and the {colour2} {thing} belongs to {B}.",
    ]  # fmt: skip
    asked = [
        "Where is the {thing}? The {thing} is in the {container}.", "Where is the {thing}? It is in the {container}.", "Where is the {thing}? It is in the {room}.",
        "Whose is the {colour} {thing}? It is the {thing} of {A}. Whose is the {colour2} {thing}? It is the {thing} of {B}.",
    ]  # fmt: skip
    if rng.random() < 0.6:
        steps = [rng.choice(greetings), *rng.sample(between, rng.randint(1, 3)), rng.choice(uses)]
    else:
        number = rng.randrange(4)
        steps = [hidden[number if number > 0 else 0], *rng.sample(WEATHER, rng.randint(0, 2))]
        steps.append(asked[rng.randrange(2) if number < 2 else number])
    return " ".join(fill(step, slots) for step in steps)


def world(rng: Random, capitals: Mapping[str, tuple[str, str]]) -> str:
    """Capitals, opposites, days, months, numbers, sounds and colours: what is true in every text."""
    country, (capital, region) = rng.choice(list(capitals.items()))
    kind = rng.random()
    if kind < 0.45:
        a = draw_person(rng)
        slots = cast(rng, a, draw_person(rng, (a.name,))) | {"country": country, "capital": capital, "region": region}
        lines = [
            "The capital of {country} is {capital}.", "{capital} is the capital of {country}.", "{country} is a country in {region}.",
            "{country} is in {region}, and its capital is {capital}.", "What is the capital of {country}? It is {capital}.",
            "What is the capital of {country}? The capital of {country} is {capital}.", "{A} lives in {capital}, the capital of {country}.",
            "{A} went to {country} and saw {capital}.", "Where is {country}? {country} is in {region}.", "{capital} is a city in {country}.",
        ]  # fmt: skip
        return " ".join(fill(line, slots) for line in rng.sample(lines, rng.randint(1, 4)))
    if kind < 0.6:
        i = rng.randrange(7)
        today, next_day = words.DAYS[i], words.DAYS[(i + 1) % 7]
        j = rng.randrange(12)
        month, next_month = words.MONTHS[j], words.MONTHS[(j + 1) % 12]
        return rng.choice([
            f"Today is {today}. Tomorrow is {next_day}.", f"The day after {today} is {next_day}.", f"{today} comes before {next_day}.",
            f"The month after {month} is {next_month}.", f"{month} comes before {next_month}.",
            "The days of the week are " + ", ".join(words.DAYS[:-1]) + " and Sunday.", "The months are " + ", ".join(words.MONTHS) + ".",
        ])  # fmt: skip
    if kind < 0.75:
        a, b = rng.randint(0, 10), rng.randint(0, 10)
        n = words.NUMBERS
        start = rng.randint(0, 15)
        return rng.choice([
            f"{n[a].title()} plus {n[b]} is {n[a + b]}.", f"What is {n[a]} plus {n[b]}? It is {n[a + b]}.", f"{n[a + b].title()} minus {n[b]} is {n[a]}.",
            " ".join(n[start : start + 5]).capitalize() + ".", f"The number after {n[start]} is {n[start + 1]}.",
        ])  # fmt: skip
    if kind < 0.88:
        one, other = rng.sample(rng.choice(words.OPPOSITES).split(), 2)
        return rng.choice(
            [
                f"The opposite of {one} is {other}.",
                f"What is the opposite of {one}? It is {other}.",
                f"It is not {one}, it is {other}.",
            ]
        )
    animal, sound = rng.choice(list(words.SOUNDS.items()))
    thing, colour = rng.choice(list(words.COLOUR_OF.items()))
    job, does = rng.choice(list(words.MADE_BY.items()))
    return rng.choice([
        f"A {animal} {sound}.", f"The {animal} {sound}.", f"What does the {animal} do? The {animal} {sound}.", f"What colour is {thing}? It is {colour}.",
        f"{thing.capitalize()} is {colour}.", f"A {job} {does}.", f"What does a {job} do? A {job} {does}.", f"The {job} {does} every day.",
    ])  # fmt: skip


def synthetic(rng: Random, capitals: Mapping[str, tuple[str, str]]) -> str:
    """One text: a story in six of ten, people and introductions in three, the world in one."""
    kind = rng.random()
    if kind < 0.6:
        return story(rng)
    if kind < 0.78:
        return said_of_people(rng)
    if kind < 0.9:
        return introductions(rng)
    return " ".join(world(rng, capitals) for _ in range(rng.randint(1, 3)))


class CopyCase(NamedTuple):
    """A text that stops before ``answer``, which stands in it once, two or more sentences before; so does ``other``."""

    text: str
    answer: str
    other: str


COPY_TEXTS = [
    (
        "There was once a {job} called {A}. {He} lived in {city}. In the same street lived a {job2} called {B}. "
        "{weather} {weather2}",
        "The name of the {job} was",
        "The name of the {job2} was",
    ),
    (
        "{A} has a {colour} {thing}. {B} has a {colour2} {thing}. {weather} {weather2}",
        "The {colour} {thing} belongs to",
        "The {colour2} {thing} belongs to",
    ),
    (
        "{A} went to the {place}. {B} stayed in the {room}. {weather} {weather2}",
        "At the {place} we saw",
        "In the {room} we saw",
    ),
    (
        "My name is {A}. I have a friend named {B}. {weather} I live in {city}.",
        "What is my name? My name is",
        "What is the name of my friend? The name of my friend is",
    ),
    (
        "{A} lives in {city}. {B} lives in {city2}. {weather} {weather2}",
        "In {city} lives",
        "In {city2} lives",
    ),
]
"""A text, then what asks for A and what asks for B. Training has none of these texts."""


def copy_case(rng: Random, *, held_out: bool) -> CopyCase:
    """A case whose names training uses, or (``held_out``) does not."""
    if held_out:
        pool = [(name, True) for name in words.HELD_OUT_WOMEN] + [(name, False) for name in words.HELD_OUT_MEN]
        a, b = (person(name, woman, rng) for name, woman in rng.sample(pool, 2))
    else:
        a = draw_person(rng)
        b = draw_person(rng, (a.name,))
    weather, weather2 = rng.sample(WEATHER, 2)
    slots = cast(rng, a, b) | {"weather": weather, "weather2": weather2}
    text, *questions = rng.choice(COPY_TEXTS)
    asked = rng.randrange(2)
    answers = (a.name, b.name)
    return CopyCase(fill(f"{text} {questions[asked]}", slots), answers[asked], answers[1 - asked])
