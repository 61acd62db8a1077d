"""Deletion and swaps leave a text as a person would write it."""

import pytest

from hf_mambalrp.audit.wording import delete, occurrences, runs_of, swap
from hf_mambalrp.errors import InputError
from hf_mambalrp.results.audit_parts import named

DELETED = [
    ("A dull film.", "dull", "A film."),
    ("Dull film.", "dull", "Film."),
    ("A film, dull.", "dull", "A film."),
    ("A lovely, dull, film.", "dull", "A lovely, film."),
    ("It ends. Good. Bad.", "good", "It ends. Bad."),
    ("Wow! Dull, yes.", "dull", "Wow! Yes."),
    ("A (dull) film.", "dull", "A film."),
    ("He said “dull”.", "dull", "He said."),
    ('"Dull film" it was.', "dull", '"Film" it was.'),
    ("A DULL and Dull film.", "dull", "A and film."),
    ("Sent via mobile. Thanks via Mobile", "via mobile", "Sent. Thanks"),
    ("Via mobile it came.", "via mobile", "It came."),
    ("one\ndull\ntwo", "dull", "one\ntwo"),
    ("The end .", "end", "The."),
    ("No stop. Here.", ".", "No stop Here"),
    ("don’t go", "don't", "go"),
    ("Die Straße ist dull.", "STRASSE", "Die ist dull."),
]


@pytest.mark.parametrize(("text", "pattern", "left"), DELETED)
def test_what_is_left_reads_as_a_text(text, pattern, left):
    assert delete(text, runs_of(pattern)) == left


def test_a_text_without_the_words_or_without_others_is_none():
    assert delete("A lovely film.", runs_of("dull")) is None
    assert delete("Dull. Dull!", runs_of("dull")) is None
    assert delete("via the mobile", runs_of("via mobile")) is None
    assert delete("a dull end", runs_of(("dull", "film"))) is None
    assert delete("a dull, long film", runs_of(("film", "dull"))) == "a, long"


def test_runs_are_found_without_overlaps():
    assert occurrences(list("aaa"), ("a", "a")) == [0]
    assert occurrences(list("abab"), ("a", "b")) == [0, 2]


@pytest.mark.parametrize("pattern", ["", "  ", (), ("dull", ""), None, 3, ["dull", 3]])
def test_a_pattern_without_words_is_refused(pattern):
    with pytest.raises(InputError, match="has no words"):
        runs_of(pattern)


def test_names():
    assert (named("via mobile"), named(("a", "b"))) == ("via mobile", "a + b")


def test_a_swap_keeps_the_case():
    assert swap("He and HE saw he's himself.", {"he": "she", "himself": "herself"}) == "She and SHE saw he's herself."
