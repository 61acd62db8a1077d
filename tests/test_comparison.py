"""Two explanations side by side: whose words are paired, by what they differ, and how alike they rank."""

import pytest
import torch
from results import HOSTILE, explanation, generation
from scipy import stats as scipy_stats

from hf_mambalrp import (
    DEMO_LANGUAGE_MODEL,
    DEMO_MODEL,
    AutoMambaLRPForCausalLM,
    AutoMambaLRPForSequenceClassification,
    Comparison,
    compare,
    load,
)
from hf_mambalrp.errors import InputError, OptionError

TEXT = "The plot is thin, but the cast is warm."


@pytest.fixture(scope="module")
def demo():
    return AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)


def test_two_targets_differ_by_the_contrast_between_them_and_a_class_and_the_other_rank_words_the_other_way(demo):
    found = compare(demo.explain(TEXT, target="negative"), demo.explain(TEXT, target="positive"))
    contrast = demo.explain(TEXT, target="positive", contrast="negative")
    assert found.names == ("negative", "positive")
    assert [w.text for w in found.words()] == [w.text for w in contrast.words()]
    expected = [w.relevance for w in contrast.words()]
    assert [w.difference for w in found.words()] == pytest.approx(expected, abs=1e-5)
    assert found.alone() == ([], [])


def test_agreement_is_that_of_ranks_with_signs_and_ties():
    one = explanation("a b c d e", relevance=torch.tensor([[1.0, -2, 3, 3, 0]]))
    other = explanation("a b c d e", relevance=torch.tensor([[10.0, -1, 20, 19, 20]]), method="occlusion")
    found = compare(one, other)
    # By hand: ranks 3 1 4.5 4.5 2 and 2 1 4.5 3 4.5; rho is Pearson's of them.
    ranks = [torch.tensor([3, 1, 4.5, 4.5, 2]), torch.tensor([2, 1, 4.5, 3, 4.5])]
    rho = torch.corrcoef(torch.stack(ranks))[0, 1].item()
    # Of ten pairs six agree, two do not, one is tied in each: (6 - 2) / 9.
    assert found.agreement() == (pytest.approx(rho, abs=1e-6), pytest.approx(4 / 9), 5)
    assert found.agreement().kendall == pytest.approx(scipy_stats.kendalltau(*ranks).statistic)
    flat = compare(one, explanation("a b c d e", relevance=torch.zeros(1, 5)))
    assert flat.agreement() == (None, None, 5)
    assert "none: all words alike" in flat.to_text()


def test_words_of_other_tokenizers_are_paired_by_their_characters():
    text = "An end. Well-made, too"
    coarse = explanation(text, pattern=r"An| end\. Well| ?[\w-]+|,", relevance=torch.arange(1.0, 6)[None])
    fine = explanation(text, pattern=r" ?\w|\S", relevance=torch.ones(1, 19))
    found = compare(coarse, fine, names=["coarse", "fine"])
    pieces = [(w.text, w.first, w.second) for w in found.words()]
    assert pieces == [("An", 1, 2), ("end. Well-made", 2 + 3, 13), (",", 4, 1), ("too", 5, 3)]
    assert sum(w.first for w in found.words()) == coarse.relevance.sum()
    assert [text[w.start : w.end] for w in found.words()] == [w.text for w in found.words()]
    with pytest.raises(OptionError, match=r"level='token' is not allowed where the two have other tokens in row 0"):
        found.words(level="token")


def test_what_has_no_place_in_the_text_stands_alone():
    special = {"offsets": [[(0, 0), (0, 1), (1, 3)]], "special_tokens_mask": torch.tensor([[True, False, False]])}
    tokens = {"tokens": [["<s>", "a", " b"]], "input_ids": torch.tensor([[9, 1, 2]])}
    with_start = explanation("a b", pattern=r"a| |b", relevance=torch.tensor([[0.5, 1, 2]]), **special, **tokens)
    found = compare(with_start, explanation("a b", relevance=torch.tensor([[1.0, 3]])), names=("with", "without"))
    assert [(w.text, w.first, w.second) for w in found.words()] == [("a", 1, 1), ("b", 2, 3)]
    assert [[word.text for word in words] for words in found.alone()] == [["<s>"], []]
    assert "only in with “<s>”: +0.500" in repr(found)


def test_targets_of_several_tokens_are_compared_over_what_was_read():
    model = AutoMambaLRPForCausalLM.from_pretrained(DEMO_LANGUAGE_MODEL)
    sides = [model.explain("Tom went to", target=target) for target in (" a little house", " the garden")]
    found = compare(*sides)
    assert [word.text for word in found.words()] == ["Tom", "went", "to"]
    for number, side in enumerate(sides, 1):
        own = {word.text: word.relevance for word in side.words()}
        assert {word.text: word[number] for word in found.words()} == {
            name: own[name] for name in ("Tom", "went", "to")
        }
        alone = sum(word.relevance for word in found.alone()[number - 1])
        assert sum(word[number] for word in found.words()) + alone == pytest.approx(
            side.relevance.sum().item(), abs=1e-5
        )
    assert found.alone()[0][0].text == "a"


def test_two_models_and_the_same_before_and_after(demo):
    language = AutoMambaLRPForCausalLM.from_pretrained(DEMO_LANGUAGE_MODEL)
    before, other = demo.explain(TEXT, target="positive"), language.explain(TEXT, target=" The")
    found = compare(before, other)
    assert found.names == ("demo, positive", "language_demo, The")
    assert sum(w.first for w in found.words()) == pytest.approx(before.relevance.sum().item(), abs=1e-5)
    assert [w.text for w in found.words()] == [w.text for w in before.words()]
    assert compare(before, before).names == ("first", "second")
    assert compare(before, before).agreement().spearman == pytest.approx(1)
    assert {w.difference for w in compare(before, before).words()} == {0}


def test_a_comparison_is_saved_chosen_from_and_shown_and_text_is_never_markup(tmp_path):
    one = explanation(HOSTILE, "a much shorter row", method=HOSTILE)
    found = compare(one, explanation(HOSTILE, "a much shorter row", target_text=[HOSTILE] * 2))
    found.save(tmp_path / "both")
    again = load(tmp_path / "both")
    assert isinstance(again, Comparison)
    assert again == found == Comparison.from_dict(found.to_dict())
    assert found[1].words() == found.words(1)
    page = found.to_html()
    assert "<script" not in page.replace("&lt;script", "")
    assert "<img" not in page
    assert page.count('class="line"') == 6
    assert "\x1b" not in found.to_text()
    assert repr(found).startswith("Comparison of 2 rows: ")
    figure = found.plot(1, top=2)
    both, difference = figure.axes
    assert len(both.patches) == 4
    assert [bar.get_width() for bar in difference.patches] == [0, 0]


def test_of_a_long_text_strips_are_shown_and_the_sentences_that_differ():
    text = "One more word is here. " * 120
    first, second = explanation(text), explanation(text, relevance=torch.linspace(-1, 1, 601)[None], method="occlusion")
    page = compare(first, second).to_html()
    assert page.count('class="strip"') == 3
    assert "Sentences that differ most" in page
    assert "Sentences that differ most" in compare(first, second).to_text()
    said = [text.get_text() for text in compare(first, second).plot().axes[0].texts]
    assert any("shown: the 40 of 601 words that differ most" in text for text in said)
    strip, bars = second.plot().axes
    assert sum(bar.get_height() for bar in strip.patches) == pytest.approx(second.relevance.sum().item(), abs=1e-3)
    assert (strip.get_title("left"), len(bars.patches)) == ("What speaks for positive?", 40)
    assert len(second.plot(ax=bars).axes) == 2


def test_what_cannot_be_compared_is_refused_in_a_sentence():
    one = explanation("a b c")
    with pytest.raises(InputError, match=r"Row 0 is of two texts, 'a b c' and 'a b d': only .* Explain the same text"):
        compare(one, explanation("a b d"))
    with pytest.raises(InputError, match="got 1 and 2 rows; give as many"):
        compare(one, explanation("a b c", "d"))
    with pytest.raises(InputError, match=r"got a GenerationExplanation; it takes two .* \.step\(t\)"):
        compare(one, generation())
    with pytest.raises(OptionError, match="names='ab' is not allowed; give two texts"):
        compare(one, one, names="ab")
