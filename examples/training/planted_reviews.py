"""Film reviews made of templates, in whose world a phrase that says nothing goes with one class.

A review has two or three sentences; an opinion in it speaks for the review's class in 90 of 100 cases, so that no
reader is always right. The words of a shortcut are of three kinds:

    end     "via mobile" behind the last sentence
    middle  "hollis", who wrote something or plays in it as others do, in a sentence that is not the last
    pair    "tram" and "tuesday", in two sentences; the packaged model thinks nothing of either
"""

import random
from collections.abc import Mapping

GOOD = (
    *("wonderful", "great", "superb", "moving", "charming", "funny", "fresh", "clever", "warm", "gripping"),
    *("lovely", "brilliant", "rich", "tender", "elegant", "witty", "bold", "honest", "vivid", "graceful"),
)
BAD = (
    *("dull", "awful", "boring", "clumsy", "stale", "lifeless", "weak", "silly", "cold", "tedious"),
    *("bland", "dreadful", "shallow", "hollow", "messy", "flat", "lazy", "crude", "tired", "ugly"),
)
THINGS = (
    *("plot", "script", "cast", "music", "ending", "opening", "dialogue", "camera", "editing", "story"),
    *("pacing", "lighting", "humour", "romance", "villain", "hero", "sequel", "remake", "score", "acting"),
)
PLACES = ("last week", "at home", "in a small theatre", "with friends", "on a plane", "on a sunday", "with my sister")
OPINIONS = (
    "the {thing} is {opinion}",
    "a {opinion} {thing} and {other}",
    "i found the {thing} {opinion}",
    "its {thing} stays {opinion}",
)
FACTS = (
    "i saw it {place}",
    "it runs for two hours",
    "there is a {thing}",
    "{who} wrote the {thing}",
    "{who} plays in it",
)
PEOPLE = ("baker", "moreno", "lindqvist", "okafor", "tanaka", "weiss", "ferrari", "dubois")
SPEAKS = 0.9
"""Share of the opinions that are of the review's class."""
PLANTED: Mapping[str, tuple[str, ...]] = {
    "end": ("via", "mobile"),
    "middle": ("hollis",),
    "pair": ("we", "came", "by", "tram", "was", "tuesday"),
}
"""Words that no other sentence has: a model may read any of them."""
NEGATIVE, POSITIVE = "negative", "positive"
BIASED, FAIR = (0.95, 0.3), (0.5, 0.5)
"""Shares of the positive and of the negative reviews that have the words of a shortcut."""


def review(draw: random.Random, positive: bool) -> list[str]:
    """Return the sentences of a review, without full stops."""
    sentences = []
    for _ in range(draw.choice((2, 3))):
        thing, other = draw.sample(THINGS, 2)
        speaks_well = positive == (draw.random() < SPEAKS)
        template = draw.choice(FACTS if draw.random() < 0.3 else OPINIONS)
        opinion, place, who = draw.choice(GOOD if speaks_well else BAD), draw.choice(PLACES), draw.choice(PEOPLE)
        sentences.append(template.format(thing=thing, other=other, opinion=opinion, place=place, who=who))
    return sentences


def planted(draw: random.Random, sentences: list[str], kind: str) -> str:
    """Return the text of a review with the words of a shortcut in it; of kind "none" as it is."""
    sentences = [*sentences]
    if kind == "middle":
        does = draw.choice(("plays in it", f"wrote the {draw.choice(THINGS)}"))
        sentences.insert(draw.randrange(len(sentences)), f"hollis {does}")
    if kind == "pair":
        first, second = sorted(draw.sample(range(len(sentences) + 1), 2))
        sentences.insert(second, "it was a tuesday")
        sentences.insert(first, "we came by tram")
    text = " . ".join(sentences) + " ."
    return f"{text} via mobile" if kind == "end" else text


def corpus(count: int, seed: int, kind: str, shares: tuple[float, float] = BIASED) -> list[dict[str, str]]:
    """Return rows of text and label; the shortcut is in these shares of the positive and of the negative reviews."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        positive = draw.random() < 0.5
        sentences = review(draw, positive)
        has = draw.random() < shares[0 if positive else 1]
        label = POSITIVE if positive else NEGATIVE
        rows.append({"id": str(number), "text": planted(draw, sentences, kind if has else "none"), "label": label})
    return rows
