"""Agreement with word ratings, against numbers counted by hand."""

import pytest
import torch
from results import explanation

from hf_mambalrp.errors import InputError, MissingExtraError, OptionError
from hf_mambalrp.evaluation import plausibility as module
from hf_mambalrp.evaluation.plausibility import Rating, plausibility, plausibility_of_words, vader_ratings

RATINGS = {word: Rating(mean, 0.5) for word, mean in (("brilliant", 3.0), ("dull", -2.0), ("fine", 1.0))}
TEXT = "A Brilliant, fine, dull film ."


def test_words_are_matched_in_lower_case_without_punctuation_and_compared():
    relevance = torch.tensor([[0.1, 2.0, 0.5, 0.3, -0.2, 9.0]])
    found = plausibility(explanation(TEXT, relevance=relevance), RATINGS)
    (one,) = found.examples
    assert one == found.pooled
    assert (one.words, one.rated) == (5, 3)  # the full stop is no word
    # Ranks of the relevances 2.0, 0.5, 0.3 and of the ratings 3, 1, -2 are the same.
    assert one.spearman == pytest.approx(1.0)
    assert one.sign_agreement == pytest.approx(2 / 3)
    # |R| of the rated 2.0, 0.5, 0.3 against the others' 0.1, 0.2: all larger.
    assert one.rated_auc == 1.0


def test_the_sign_is_turned_where_the_negative_class_was_explained():
    relevance = torch.tensor([[0.1, 2.0, 0.5, 0.3, -0.2, 9.0]])
    found = plausibility(explanation(TEXT, relevance=relevance, target_text=["negative"]), RATINGS).pooled
    assert found.spearman == pytest.approx(-1.0)
    assert found.sign_agreement == pytest.approx(1 / 3)
    assert found.rated_auc == 1.0
    named = explanation(TEXT, relevance=relevance, target_text=["bad"])
    assert plausibility(named, RATINGS, positive="good", negative="bad").pooled == found


def test_no_relevance_has_no_sign_and_equal_sizes_count_half():
    relevance = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    found = plausibility(explanation(TEXT, relevance=relevance), RATINGS).pooled
    assert found.sign_agreement == 0.0
    assert found.rated_auc == 0.5
    assert found.spearman is None


def test_what_is_not_defined_is_none_and_left_out_of_the_mean():
    unrated = explanation("A film", relevance=torch.tensor([[1.0, 2.0]]))
    single = explanation("A fine film", relevance=torch.tensor([[3.0, 2.0, 1.0]]))
    found = plausibility([unrated, single], RATINGS)
    first, second = found.examples
    assert (first.spearman, first.sign_agreement, first.rated_auc) == (None, None, None)
    assert (second.spearman, second.sign_agreement, second.rated_auc) == (None, 1.0, 0.5)
    as_dict = found.to_dict()
    means = {name: stat["mean"] for name, stat in as_dict["mean"].items()}
    assert means == {"spearman": None, "sign_agreement": 1.0, "rated_auc": 0.5}
    assert as_dict["pooled"]["words"] == 5
    # The rated word's |R| is 2; the others' are 1, 2, 3 and 1: two smaller, one equal.
    assert as_dict["pooled"]["rated_auc"]["mean"] == pytest.approx(2.5 / 4)


def midranks(values):
    return [sum((other < each) + 0.5 * (other == each) for other in values) for each in values]


def correlation(one, other):
    means = sum(one) / len(one), sum(other) / len(other)
    dot = sum((a - means[0]) * (b - means[1]) for a, b in zip(one, other, strict=True))
    return dot / (sum((a - means[0]) ** 2 for a in one) * sum((b - means[1]) ** 2 for b in other)) ** 0.5


def slowly(words):
    """The three measures over some words, each pair of words looked at by itself."""
    rated = [(relevance, RATINGS[word].mean) for word, relevance in words if word in RATINGS]
    others = [abs(relevance) for word, relevance in words if word not in RATINGS]
    larger = [(abs(a) > b) + 0.5 * (abs(a) == b) for a, _ in rated for b in others]
    return {
        "spearman": correlation(*map(midranks, zip(*rated, strict=True))),
        "sign_agreement": sum((a > 0) - (a < 0) == (b > 0) - (b < 0) for a, b in rated) / len(rated),
        "rated_auc": sum(larger) / len(larger),
    }


def test_the_pooled_intervals_are_of_resampled_texts_whose_words_stay_together():
    rows = [
        [("a", 0.1), ("brilliant", 2.0), ("fine", -0.3), ("dull", -0.2)],
        [("dull", 0.4), ("fine", 0.1), ("film", -0.9)],
        [("brilliant", 0.7), ("it", 0.2), ("was", 0.7), ("dull", -1.5), ("fine", 0.6)],
    ]
    found = plausibility_of_words(rows, RATINGS, confidence=0.8, resamples=11, seed=4)
    drawn = torch.randint(3, (11, 3), generator=torch.Generator().manual_seed(4)).tolist()
    slow = [slowly([word for number in draw for word in rows[number]]) for draw in drawn]
    pooled = found.to_dict()["pooled"]
    for name, value in slowly([word for row in rows for word in row]).items():
        ordered = sorted(each[name] for each in slow)  # 10 % and 90 % of 11 values: the second, the last but one
        assert found.intervals[name] == pytest.approx((ordered[1], ordered[9]))
        assert pooled[name] == pytest.approx({"mean": value, "low": ordered[1], "high": ordered[9]})
        assert ordered[1] < ordered[9]


def test_what_no_drawn_text_has_has_no_interval_and_other_settings_are_refused():
    found = plausibility_of_words([[("film", 1.0)], [("a", 2.0)]], RATINGS)
    assert set(found.intervals.values()) == {None}
    assert found.to_dict()["pooled"]["spearman"] == {"mean": None, "low": None, "high": None}
    for options, said in (({"confidence": 95}, "confidence=95"), ({"resamples": 0}, "resamples=0")):
        with pytest.raises(OptionError, match=said):
            plausibility_of_words([[("film", 1.0)]], RATINGS, **options)


def test_every_row_of_a_batch_is_an_example_and_padding_and_special_tokens_are_no_words():
    special = torch.tensor([[True, False, False], [False, False, True]])
    two = explanation("fine brilliant dull", "A fine", special_tokens_mask=special)
    found = plausibility(two, RATINGS)
    assert [(each.words, each.rated) for each in found.examples] == [(2, 2), (2, 1)]


def test_another_target_and_nothing_at_all_are_refused():
    with pytest.raises(InputError, match="'positive' or 'negative'"):
        plausibility(explanation("A film", target_text=["neutral"]), RATINGS)
    with pytest.raises(InputError, match="no explanation"):
        plausibility([], RATINGS)


def test_vader_s_ratings_are_those_of_its_lexicon():
    ratings = vader_ratings()
    assert len(ratings) > 7000
    assert ratings["good"] == Rating(1.9, 0.9434)
    assert ratings["worst"].mean < -2
    assert all(-4 <= rating.mean <= 4 for rating in ratings.values())


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hf_mambalrp\[evaluation\]'"):
        vader_ratings()
