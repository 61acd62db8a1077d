"""Sentences and passages of a text: every word in one of them, and the sums of the row."""

import math
import re
from html import unescape

import pytest
import torch
from results import explanation

from hf_mambalrp.viz import html
from hf_mambalrp.viz.document import Passages, Words
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


def long_text(sentences=100):
    """Sentences of six words; those of one of them have all relevance but a little."""
    words = sum(6 for _ in range(sentences))
    relevance = torch.full((1, words), 1e-4)
    relevance[0, 60:66] = torch.tensor([1.0, 2.0, 3.0, -1.0, 0.5, 0.5])
    relevance[0, 300:306] = -0.5
    text = " ".join(f"s{number} has {number} words of it." for number in range(sentences))
    return explanation(text, relevance=relevance, pattern=r" ?\S+")


def test_a_long_text_begins_with_what_mattered_and_is_folded():
    ex = long_text()
    (section,) = ex.document().sections
    passages = section.one(Passages)
    assert [passage.text for passage in passages.top(2)] == ["s10 has 10 words of it.", "s50 has 50 words of it."]
    page = html.page(ex.document(), "x")
    assert page.index("5 of 100 sentences mattered most") < page.index("<details>") < page.index("s99")
    assert page.count("<details open") == 0
    assert "<script" not in page
    text = ex.to_text()
    assert "1. +6.000 s10 has 10 words of it." in text
    assert "s99" not in text
    short = explanation("A short film.").document().sections[0]
    assert not [block for block in short.blocks if isinstance(block, Passages)]
    assert not short.one(Words).folded


def test_the_strip_sums_to_the_row_and_each_part_leads_into_the_text():
    ex = long_text()
    passages = ex.document().sections[0].one(Passages)
    for count in (1, 7, 48, 1000):
        strip = passages.strip(count)
        assert len(strip) <= count
        assert sum(stretch.relevance for stretch in strip) == pytest.approx(ex.relevance.sum().item(), abs=1e-4)
        words = [word for passage in passages.passages for word in passage.words]
        for stretch in strip:
            assert words[stretch.first] in passages.passages[stretch.passage].words
    page = html.page(ex.document(), "x")
    ids = re.findall(r'<span id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) == set(ids)


def test_words_that_cannot_be_seen_have_no_markup_and_the_whole_text_is_there():
    ex = long_text()
    page = html.page(ex.document(), "x")
    whole = page[page.index("<details>") : page.index("</details>")]
    marked = re.findall(r'<span class="w [^>]*>([^<]+)</span>', whole)
    assert marked == [*["s10", "has", "10", "words", "of", "it."], *["s50", "has", "50", "words", "of", "it."]]
    shown = unescape(re.sub(r"<[^>]+>", "", whole[whole.index('<p class="text"') :]))
    assert shown == ex.texts[0]


def test_a_page_of_a_hundred_thousand_tokens_is_small():
    generator = torch.Generator().manual_seed(0)
    text = "Nothing is said in these many words of it. " * 11_112
    length = len(re.findall(r" ?\S+|\s", text))
    assert length >= 100_000
    ex = explanation(text, relevance=torch.randn(1, length, generator=generator))
    assert len(ex.to_html().encode()) < 3_000_000
