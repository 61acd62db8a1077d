"""Effects on a classifier that counts planted words: what they are follows from the texts."""

import statistics
from types import SimpleNamespace

import pytest
import torch
from planted import GOOD, counting_model, tokenizer
from random_models import random_model

from hf_mambalrp import make_explainable
from hf_mambalrp.audit import delete_effect, scores, swap_effect
from hf_mambalrp.audit.scores import Scores, log_odds
from hf_mambalrp.errors import InputError, OptionError, TargetError

TEXTS = [
    "the film is good via mobile.",
    "The plot is bad, via mobile.",
    "via mobile the cast is great.",
    "the song is awful",
    "via mobile his end is bad bad",
    "the film is good",
]


def run(call, model, *arguments, **options):
    return call(model, *arguments, tokenizer=tokenizer(), progress=False, **options)


def log_odds_of(model, texts):
    """By the model's own forward, one text at a time."""
    scores = []
    for text in texts:
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer()(text)["input_ids"]])).logits[0].double()
        scores.append((logits[1] - logits[0]).item())
    return torch.tensor(scores, dtype=torch.float64)


def test_the_model_is_what_the_tests_take_it_for():
    odds = log_odds_of(
        counting_model(), ["the film", "good", "good film the", "great film good .", "bad", "film bad ."]
    )
    assert odds[0] == 0
    assert odds[1] == pytest.approx(odds[2].item())
    assert odds[3] > odds[2]
    assert odds[4] == pytest.approx(-odds[1].item())


def test_a_neutral_phrase_has_no_effect_and_a_planted_one_that_of_its_words():
    clean = run(delete_effect, counting_model(), TEXTS, "via mobile", target="positive")
    assert clean.texts == 4
    assert clean.effect == pytest.approx(0.0, abs=1e-6)
    model = counting_model(good=[*GOOD, "mobile"])
    found = run(delete_effect, model, TEXTS, "via mobile", target="positive")
    left = ["the film is good.", "The plot is bad.", "The cast is great.", "his end is bad bad"]
    before = log_odds_of(model, TEXTS)
    differences = before[[0, 1, 2, 4]] - log_odds_of(model, left)
    assert (differences > 0).all()
    decided = before[[0, 1, 2, 4]] > 0
    means = [differences[decided == side].mean() for side in decided.unique() if (decided == side).sum() > 1]
    assert found.effect == pytest.approx((torch.stack(means).mean() / before.std()).item(), rel=1e-5)
    assert found.deviation == pytest.approx(before.std().item(), rel=1e-5)
    assert found.low <= found.effect <= found.high
    assert found.target == "positive"


def test_the_other_class_has_the_opposite_effect_and_classes_weigh_the_same():
    model = counting_model(good=[*GOOD, "mobile"])
    classes = ["positive", "negative", "positive", "negative", "negative", "positive"]
    ours = run(delete_effect, model, TEXTS, "mobile", target="positive", classes=classes)
    theirs = run(delete_effect, model, TEXTS, "mobile", target=0, classes=[1, 0, 1, 0, 0, 1])
    assert ours.effect == pytest.approx(-theirs.effect)
    assert (ours.p, ours.by_class.keys()) == (pytest.approx(theirs.p), {"negative", "positive"})
    assert ours.effect == pytest.approx(sum(mean for _, mean in ours.by_class.values()) / 2)


def test_decisions_that_change_are_counted_and_pairs_go_together():
    model = counting_model(good=[*GOOD, "mobile"])
    texts = ["the mobile plot", "the mobile film", "bad", "the bad film"]
    found = run(delete_effect, model, texts, "mobile", target="positive")
    assert found.changed == 2  # to no evidence at all, which the first class gets
    both = run(delete_effect, model, TEXTS, ("mobile", "via"), target="positive")
    assert both.name == "mobile + via"
    assert both.effect == pytest.approx(run(delete_effect, model, TEXTS, "mobile", target="positive").effect)


def test_equal_calls_are_equal_and_batches_change_nothing():
    model = counting_model(good=[*GOOD, "mobile"])
    first = run(delete_effect, model, TEXTS, "mobile")
    assert first == run(delete_effect, model, TEXTS, "mobile")
    assert first.effect == pytest.approx(run(delete_effect, model, TEXTS, "mobile", batch_tokens=1).effect)


def test_a_swap_tells_the_sides_whichever_a_text_has():
    model = counting_model(good=[*GOOD, "he"], bad=["bad", "awful"])
    texts = ["he is the film", "The plot is she.", "she is bad", "the song", "he and she", "He"]
    found = run(swap_effect, model, texts, target="positive", classes=[0] * 6)
    assert found.texts == 4  # not the one with both
    she = log_odds_of(model, ["she is the film", "The plot is she.", "she is bad", "She"])
    he = log_odds_of(model, ["he is the film", "The plot is he.", "he is bad", "He"])
    expected = (she - he).mean() / log_odds_of(model, texts).std()
    assert found.effect == pytest.approx(expected.item(), rel=1e-5)
    assert found.effect < 0
    none = run(swap_effect, counting_model(), [*texts, "good"], target="positive", classes=[0] * 7)
    assert none.effect == pytest.approx(0.0, abs=1e-6)


def test_log_odds_are_the_logit_against_the_rest():
    logits = torch.tensor([[0.3, -1.2, 2.0]], dtype=torch.float64)
    p = logits.softmax(1)
    assert torch.allclose(log_odds(logits), (p / (1 - p)).log())
    model = counting_model(labels=("negative", "positive", "neither"))
    odds = Scores("test", model, tokenizer(), None, False)(["the good film"], "")
    with torch.no_grad():
        p = model(torch.tensor([tokenizer()("the good film")["input_ids"]])).logits.double().softmax(1)
    assert torch.allclose(odds, (p / (1 - p)).log(), atol=1e-6)


def test_what_cannot_be_asked_is_refused():
    model = counting_model()
    with pytest.raises(InputError, match="Fewer than two texts"):
        run(delete_effect, model, TEXTS, "song")
    with pytest.raises(InputError, match="Fewer than two texts"):
        run(swap_effect, model, TEXTS, [("nobody", "somebody")])
    with pytest.raises(InputError, match="no scale"):
        run(delete_effect, model, ["the film", "the plot"], "the")
    with pytest.raises(InputError, match="list of texts"):
        run(delete_effect, model, [], "the")
    with pytest.raises(OptionError, match="classes has 1 entries for 6"):
        run(delete_effect, model, TEXTS, "the", classes=[1])
    with pytest.raises(TargetError, match="lovely"):
        run(delete_effect, model, TEXTS, "the", target="lovely")
    with pytest.raises(OptionError, match="confidence=95"):
        run(delete_effect, model, TEXTS, "the", confidence=95)
    for pairs in ([], ["he"], [("he", "he")], [("he", "she"), ("she", "it")], [("via mobile", "she")]):
        with pytest.raises(InputError):
            run(swap_effect, model, TEXTS, pairs)


@pytest.fixture(scope="module")
def language_model():
    return make_explainable(random_model(vocab_size=len(tokenizer()), dtype=torch.float32))


def test_of_a_language_model_the_score_is_one_next_token_rather_than_another(language_model):
    read = tokenizer()

    def score(text):
        with torch.no_grad():
            logits = language_model(torch.tensor([read(text)["input_ids"]])).logits[0, -1].double()
        return (logits[read.convert_tokens_to_ids("good")] - logits[read.convert_tokens_to_ids("bad")]).item()

    without = {0: "the film is good.", 1: "The plot is bad.", 2: "The cast is great.", 4: "His end is bad bad"}
    every = [score(text) for text in TEXTS]
    differences = [every[row] - score(text) for row, text in without.items()]
    asked = {"target": "good", "contrast": "bad", "classes": ["target"] * len(TEXTS)}
    found = run(delete_effect, language_model, TEXTS, "via mobile", **asked)
    assert found.texts == 4
    assert (found.target, [*found.by_class]) == ("good", ["good"])
    assert found.deviation == pytest.approx(statistics.stdev(every), rel=1e-4)
    assert found.effect == pytest.approx(statistics.fmean(differences) / statistics.stdev(every), rel=1e-3)
    assert found.changed == sum((every[row] > 0) != (score(text) > 0) for row, text in without.items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "Give both"),
        ({"target": "good"}, "Give both"),
        ({"target": "good great", "contrast": "bad"}, "target has 2 tokens"),
        ({"target": "good", "contrast": "bad", "classes": ["awful"] * len(TEXTS)}, "'awful' is no side"),
    ],
)
def test_what_a_language_model_cannot_be_asked(language_model, options, said):
    with pytest.raises(TargetError, match=said):
        run(delete_effect, language_model, TEXTS, "via mobile", **options)


def test_a_classifier_has_no_contrast():
    with pytest.raises(OptionError, match="contrast='negative'"):
        run(delete_effect, counting_model(), TEXTS, "the", contrast="negative")


def test_processes_share_the_texts_and_all_get_the_whole(monkeypatch):
    """As two processes would, one after the other: the first gets what both computed."""
    model, texts = (
        counting_model(),
        ["good", "the good film", "bad", "the film is bad", "a", "good good", "the bad film"],
    )
    expected = Scores("test", model, tokenizer(), None, False)(texts, "")
    computed = []
    monkeypatch.setattr(scores, "everywhere", lambda action: action())
    monkeypatch.setattr(scores, "gather_object", lambda share: computed.extend(share) or computed)
    for process in (1, 0):
        state = SimpleNamespace(num_processes=2, process_index=process, is_main_process=process == 0)
        monkeypatch.setattr(scores, "launched", lambda state=state: state)
        found = Scores("test", model, tokenizer(), None, False)(texts, "")
    assert [len(part) for share in computed for part in share.values()] == [3, 4]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
