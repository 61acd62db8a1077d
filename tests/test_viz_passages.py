"""Sentences and passages of a text: every word in one of them, and the sums of the row."""

import math

import pytest
from results import explanation

from hf_mambalrp.viz.passages import PASSAGE, SENTENCE, grouped
from hf_mambalrp.viz.words import Word

TEXT = 'We came late. "Why?" she asked.\n\nThe second act is long, 3.5 hours!  It ends\nwell'


def words_of(text):
    """Words between spaces, the n-th with relevance n and token n."""
    found, at = [], 0
    for number, part in enumerate(text.split()):
        start = text.index(part, at)
        at = start + len(part)
        found.append(Word(part, float(number), start, at, (number,)))
    return found


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (
            "sentence",
            ["We came late.", '"Why?"', "she asked.", "The second act is long, 3.5 hours!", "It ends", "well"],
        ),
        ("passage", ['We came late. "Why?" she asked.', "The second act is long, 3.5 hours!  It ends\nwell"]),
    ],
)
def test_sentences_and_paragraphs(level, expected):
    found = grouped(words_of(TEXT), TEXT, level)
    assert [group.text for group in found] == expected
    assert [TEXT[group.start : group.end] for group in found] == expected
    assert [i for group in found for i in group.tokens] == list(range(len(TEXT.split())))
    assert sum(group.relevance for group in found) == sum(range(len(TEXT.split())))


@pytest.mark.parametrize("text", ["word " * 700, "x" * 3000, "A sentence of some length stands here. " * 100])
@pytest.mark.parametrize("level", ["sentence", "passage"])
def test_long_ones_are_cut_and_nothing_is_lost(text, level):
    longest = {"sentence": SENTENCE, "passage": PASSAGE}[level]
    words = words_of(text)
    found = grouped(words, text, level)
    assert [i for group in found for i in group.tokens] == [word.tokens[0] for word in words]
    assert math.fsum(group.relevance for group in found) == math.fsum(word.relevance for word in words)
    if len(words) > 1:
        assert max(len(group.text) for group in found) <= longest
        assert len(found) <= 2 * len(text) / longest + 1 if level == "passage" else True


def test_words_without_places_are_read_with_a_space_between_them():
    words = [Word(text, 1.0, 0, 0, (i,)) for i, text in enumerate(["One", "two.", "Three", "four"])]
    found = grouped(words, None, "sentence")
    assert [(group.text, group.start, group.end, group.tokens) for group in found] == [
        ("One two.", 0, 0, (0, 1)),
        ("Three four", 0, 0, (2, 3)),
    ]
    assert grouped([], None, "passage") == []


def test_every_rendering_takes_the_level(tmp_path):
    ex = explanation("A warm film. It is long. It ends.")
    for level, count in (("sentence", 3), ("passage", 1)):
        found = ex.words(level=level)
        assert len(found) == count
        assert sum(group.relevance for group in found) == pytest.approx(ex.relevance.sum().item(), abs=1e-5)
        assert len(ex.document(level=level).sections[0].blocks[3].words) == count
        assert f"Strongest {level}s" in ex.to_html(level=level)
        assert ex.to_pandas(level=level)[level].tolist() == [group.text for group in found]
        assert ex.top(1, level=level)[0] in found
        ex.plot(level=level).savefig(tmp_path / "plot.png")
        assert "film" in ex.to_text(level=level)
