"""Synthetic plain sentences around words that people rated, and final punctuation that says nothing.

The rated snippets are quotations from reviews; hardly one reads like "I hated this film". These sentences do. The word
comes from the VADER lexicon with its human rating; the sentence around it is a template. Negation multiplies the rating
by -0.74, the factor of the VADER paper. No person rated the sentences themselves.
"""

import re
from random import Random

from data import normalised
from sentences import CHECKS

NEGATION = -0.74


def listed(text: str) -> list[str]:
    return text.split()


# Which lexicon words are adjectives, verbs or nouns that can be said of a film; their ratings come from the lexicon.
ADJECTIVES = listed("""
good great excellent perfect wonderful amazing fantastic beautiful brilliant funny clever smart interesting entertaining
enjoyable delightful charming lovely nice superb terrific fabulous gorgeous stunning impressive fascinating inspiring
thrilling exciting hilarious amusing creative original fresh powerful remarkable outstanding marvelous magnificent
thoughtful satisfying graceful elegant playful flawless breathtaking adorable sweet awesome sincere cheerful engaging
innovative pleasant splendid admirable convincing glorious intelligent joyful pleasing rewarding vibrant humorous
bad terrible awful horrible boring dull stupid poor weak dumb ugly pathetic ridiculous disappointing lousy lazy messy
useless pointless worthless painful annoying irritating depressing dreadful disgusting mindless meaningless repetitive
careless horrendous ludicrous idiotic frustrating appalling unimpressive nasty crude offensive shameful hateful hopeless
obnoxious unattractive miserable misleading insulting embarrassing dreary foolish disastrous heartless confusing
""")
VERBS = dict(
    pair.split("/")
    for pair in listed("""
love/loved like/liked enjoy/enjoyed adore/adored admire/admired appreciate/appreciated respect/respected
recommend/recommended hate/hated dislike/disliked despise/despised regret/regretted loathe/loathed resent/resented
""")
)
THINGS = listed("""
masterpiece joy delight triumph treat pleasure treasure success gem waste disaster mess failure torture disgrace insult
mistake
""")
HELD_OUT = set(
    listed("""
superb terrific charming clever thrilling graceful splendid engaging humorous admirable playful breathtaking
pathetic lousy dull dreadful irritating mindless appalling nasty ludicrous unimpressive disgusting meaningless
admire despise triumph disgrace
""")
)
"""Words in no training sentence; accuracy on sentences with them is reported."""

SUBJECTS = listed("film movie film movie story plot script acting cast comedy drama ending performance show book")
WHOLES = listed("film movie film movie film movie story comedy drama show book")
ADVERBS = ["", "", "", "really", "very", "so", "truly", "absolutely", "quite", "simply", "just", "incredibly"]
WEAKLY = ["", "", "", "very", "really", "so", "that", "particularly"]

# {x} is the rated word, {a} the article before what follows it, {s} and {w} a subject, {adv} and {weakly} an adverb.
PLAIN = {
    "adjective": [
        "{a} {x} {w}",
        "{a} {adv} {x} {w}",
        "{adv} {x}",
        "this {s} is {adv} {x}",
        "the {s} is {adv} {x}",
        "the {s} was {adv} {x}",
        "it is {adv} {x}",
        "it's {adv} {x}",
        "it was {x}",
        "this is {a} {adv} {x} {w}",
        "it was {a} {x} {w}",
        "what {a} {x} {w}",
        "such {a} {x} {w}",
        "i found it {adv} {x}",
        "i thought the {s} was {x}",
        "it is {x} from start to finish",
        "it gets {x}",
        "{x} and {y}",
        "{a} {x} and {y} {w}",
        "the {s} is {x} and {y}",
    ],
    "verb": [
        "i {past} this {s}",
        "i {past} the {s}",
        "i {past} it",
        "i {adv} {past} this {s}",
        "i {adv} {past} it",
        "we {past} it",
        "my friends {past} this {s}",
        "i {x} this {s}",
        "i {adv} {x} it",
        "you will {x} it",
        "i would {x} it",
        "i {adv} {x} this {s}",
    ],
    "thing": ["{a} {x}", "it is {a} {x}", "this {w} is {a} {x}", "what {a} {x}", "the {w} was {a} {adv0} {x}"],
}
NEGATED = {
    "adjective": [
        "not {weakly} {x}",
        "not {x} at all",
        "not {a} {x} {w}",
        "this is not {a} {x} {w}",
        "this isn't {a} {x} {w}",
        "it was not {a} {weakly} {x} {w}",
        "it is not {weakly} {x}",
        "it's not {x}",
        "it isn't {x} at all",
        "it was never {x}",
        "it is never {x}",
        "it never gets {x}",
        "the {s} never becomes {x}",
        "the {s} is not {weakly} {x}",
        "the {s} isn't {x}",
        "the {s} was not {x} at all",
        "the {s} wasn't {weakly} {x}",
        "this {s} is not {x}",
        "never {x}",
        "i did not find it {x}",
        "i don't think it is {x}",
        "there is nothing {x} about this {s}",
        "nothing {x} here",
        "far from {x}",
    ],
    "verb": [
        "i did not {x} it",
        "i did not {x} this {s}",
        "i didn't {x} the {s}",
        "i didn't {x} it at all",
        "i do not {x} this {s}",
        "i don't {x} it",
        "i would not {x} it",
        "i would not {x} this {s}",
        "i wouldn't {x} the {s}",
        "i could not {x} it",
        "you will not {x} it",
        "you won't {x} this {s}",
        "nobody will {x} it",
        "i never {past} it",
    ],
    "thing": [
        "not {a} {x}",
        "it is not {a} {x}",
        "this {w} is not {a} {x}",
        "the {w} wasn't {a} {x}",
        "hardly {a} {x}",
    ],
}
NEUTRAL = ["i saw this {s} {when}", "i watched the {s} {when}", "we saw it {when}", "this is a {w}", "it is a {w}"]
WHEN = ["yesterday", "last week", "on monday", "at home", "with my sister", "on television", "in the evening"]
ENDINGS = ["", "", "", "", ".", ".", ".", "!", "!!", "!!!"]


def drop_ending(text: str, rng: Random) -> str:
    """Now and then drop the final punctuation, so that the last token alone decides nothing."""
    return text.rstrip(" .!?") or text if rng.random() < 0.4 else text


def any_ending(text: str, rng: Random) -> str:
    """Replace final full stops and exclamation marks by a random ending: they follow praise as often as blame."""
    bare = text.rstrip(" .!")
    return bare + rng.choice(ENDINGS) if bare else text


def fill(template: str, words: dict[str, str], rng: Random) -> str:
    """Fill a template; ``{a}`` becomes "a" or "an" by the letter after it."""
    slots = {"s": SUBJECTS, "w": WHOLES, "adv": ADVERBS, "weakly": WEAKLY, "when": WHEN, "adv0": ["complete", "real"]}
    text = template.format(a="{a}", **words, **{name: rng.choice(choices) for name, choices in slots.items()})
    text = re.sub(r"\{a\}\s+(?=[aeiou])", "an ", text).replace("{a}", "a")
    return " ".join(text.split())


def plain_sentences(
    lexicon: list[tuple[str, float]], number: int, rng: Random, *, held_out: bool = False
) -> list[tuple[str, float]]:
    """Return ``number`` different sentences with the rating that their word and the negation rule give.

    Four in ten are negated, one in fifty is neutral. Words are drawn by the strength of their rating. None is one of
    ``sentences.CHECKS``. With ``held_out`` only the words of ``HELD_OUT`` are used, otherwise all others.
    """
    ratings = {word: rating for word, rating in lexicon if abs(rating) >= 1}
    pools = {
        kind: [word for word in words if word in ratings and (word in HELD_OUT) == held_out]
        for kind, words in {"adjective": ADJECTIVES, "verb": list(VERBS), "thing": THINGS}.items()
    }
    if not any(pools.values()):
        return []
    kinds = [
        kind
        for kind, share in {"adjective": 12, "verb": 6, "thing": 2}.items()
        for _ in range(share * bool(pools[kind]))
    ]
    checks = {normalised(text) for text, _ in CHECKS}
    found: dict[str, float] = {}
    for _ in range(50 * number):
        if len(found) == number:
            break
        if not held_out and rng.random() < 0.02:
            text, rating = fill(rng.choice(NEUTRAL), {}, rng), 0.0
        else:
            kind = rng.choice(kinds)
            word = rng.choices(pools[kind], [abs(ratings[w]) for w in pools[kind]])[0]
            negated = rng.random() < 0.4
            template = rng.choice((NEGATED if negated else PLAIN)[kind])
            alike = [w for w in pools[kind] if w != word and ratings[w] * ratings[word] > 0] or [word]
            text = fill(template, {"x": word, "past": VERBS.get(word, ""), "y": rng.choice(alike)}, rng)
            rating = ratings[VERBS[word]] if "{past}" in template and VERBS[word] in ratings else ratings[word]
            rating *= NEGATION if negated else 1
        if normalised(text) not in checks:
            found[text] = rating
    return list(found.items())
