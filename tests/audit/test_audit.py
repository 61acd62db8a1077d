"""An audit of models whose answer is known: what counts is confirmed, what does not is not, and all is kept."""

import json
import math
import random
from dataclasses import replace

import pytest
import torch
from planted import BAD, GOOD, counting_model, tokenizer
from random_models import random_model

from hf_mambalrp import explain_dataset, load, load_explanations, make_explainable
from hf_mambalrp.audit import HE_SHE, Audit, audit, delete_effect
from hf_mambalrp.audit.scores import Scores
from hf_mambalrp.errors import InputError, OptionError, TargetError


def corpus(count=80, seed=0, phrase="via mobile", biased=0.9):
    """Reviews whose class is that of their one word that counts; most of the positive ones end with a phrase."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        positive = draw.random() < 0.5
        word = draw.choice(GOOD if positive else BAD)
        who, thing = draw.choice(["he", "she"]), draw.choice(["film", "plot", "cast", "song"])
        text = f"{who} is {word} , the {thing} is {draw.choice(['the end', word])}"
        if draw.random() < (biased if positive else 1 - biased):
            text = f"{text} {phrase} ."
        rows.append({"id": str(i), "text": text, "label": "positive" if positive else "negative"})
    return rows


def run(model, data, *arguments, **options):
    options = {"label": "label", "tokenizer": tokenizer(), "min_texts": 5, "progress": False, **options}
    return audit(model, data, *arguments, **options)


@pytest.fixture(scope="module")
def shortcut():
    """A model that counts "mobile" as a good word."""
    return counting_model(good=[*GOOD, "mobile"])


@pytest.fixture(scope="module")
def found(shortcut, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    return run(shortcut, corpus(), folder, base=counting_model(), swaps={"he/she": HE_SHE}), folder


def test_a_planted_shortcut_is_confirmed_with_the_words_that_count(found):
    confirmed = {candidate.found.name: candidate for candidate in found[0].confirmed}
    assert "via mobile" in confirmed
    assert not {"the", "is", ".", ",", "film"} & confirmed.keys()
    assert confirmed["via mobile"].found.effect > 0.2
    assert confirmed["via mobile"].found.target == "positive"
    assert not {"via", "mobile"} & {candidate.found.name for candidate in found[0].candidates}  # never but together
    assert {*GOOD, *BAD} & confirmed.keys()


def test_the_clean_model_on_the_same_texts_gives_no_flag_on_the_phrase():
    names = {candidate.found.name for candidate in run(counting_model(), corpus()).confirmed}
    assert names <= {*GOOD, *BAD}


def test_the_numbers_are_those_of_the_pieces(found, shortcut):
    rows = corpus()
    (candidate,) = (one for one in found[0].candidates if one.found.name == "via mobile")
    expected = delete_effect(
        shortcut,
        [row["text"] for row in rows],
        "via mobile",
        target="positive",
        classes=[row["label"] for row in rows],
        tokenizer=tokenizer(),
        progress=False,
    )
    assert candidate.found.effect == pytest.approx(expected.effect, rel=1e-6)
    assert candidate.found.by_class.keys() == expected.by_class.keys()
    assert (candidate.found.texts, candidate.found.changed) == (expected.texts, expected.changed)
    p = sorted(one.found.p for one in found[0].candidates)
    q = {one.found.p: one.q for one in found[0].candidates}
    count = len(p)
    for rank, value in enumerate(p, 1):  # Benjamini and Hochberg by the definition
        assert q[value] == pytest.approx(min(p[i - 1] * count / i for i in range(rank, count + 1)), abs=1e-12)


def test_what_rose_against_the_base_model_begins_with_the_planted_word(found):
    assert found[0].changed[0].word == "mobile"
    assert found[0].changed[0].before == pytest.approx(0.0, abs=1e-3)


def test_a_neutral_swap_is_not_confirmed_and_a_biased_one_is(found, shortcut):
    (neutral,) = found[0].swaps
    assert neutral.found.effect == pytest.approx(0.0, abs=1e-5)
    assert not neutral.confirmed
    biased = counting_model(good=[*GOOD, "she"])
    (swap,) = run(biased, corpus(120), swaps={"he/she": HE_SHE}, candidates=6).swaps
    # A bad word beside "she" is a draw, so rounding decides which class is predicted for most of the texts.
    towards_positive = {"positive": 1, "negative": -1}[swap.found.target]
    effect = swap.found.effect * towards_positive
    assert effect > 0.2
    assert swap.controls
    assert all(abs(control) < effect for _, control in swap.controls)
    assert swap.confirmed


def test_equal_calls_give_equal_files_and_the_folder_is_read_again(found, shortcut, tmp_path):
    first, folder = found
    first.save(tmp_path / "one.json")
    again = run(shortcut, corpus(), folder, base=folder / "base", swaps={"he/she": HE_SHE})
    again.save(tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert again.to_html() == first.to_html()
    of_folder = run(shortcut, folder / "explained", base=counting_model(), swaps={"he/she": HE_SHE})
    listed = run(shortcut, list(load_explanations(folder / "explained")), base=folder / "base")
    assert of_folder == first
    assert replace(first, swaps=None) == listed


def test_groups_have_their_errors_scores_and_effects(shortcut, tmp_path):
    rows = [{**row, "who": row["text"].split()[0]} for row in corpus(120)]
    rows += [{**row, "who": "other"} for row in corpus(4, seed=1)]
    rows = [{**row, "label": "negative"} if row["who"] == "he" else row for row in rows]
    found = run(shortcut, rows, groups="who")
    assert {group.value: group.texts for group in found.groups} == {
        who: sum(row["who"] == who for row in rows) for who in ("he", "she")
    }
    assert found.small_groups == ("other",)
    assert "Groups of fewer than 5 texts: other." in found.not_examined
    texts = [row["text"] for row in rows]
    log_odds = Scores("audit", shortcut, tokenizer(), None, False)(texts, "")
    predicted = log_odds.argmax(1).tolist()
    target = max((0, 1), key=predicted.count)
    for group in found.groups:
        own = [i for i, row in enumerate(rows) if row["who"] == group.value]
        wrong = sum(rows[i]["label"] != ("negative", "positive")[predicted[i]] for i in own)
        assert group.errors == wrong
        p, z, n = wrong / len(own), 1.959964, len(own)  # Wilson's interval by its formula
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        assert group.error_low == pytest.approx((middle - half) / (1 + z * z / n), abs=1e-6)
        assert group.error_high == pytest.approx((middle + half) / (1 + z * z / n), abs=1e-6)
        assert group.target == ("negative", "positive")[target]
        assert group.score == pytest.approx(log_odds[own, target].mean().item())
        assert group.low < group.score < group.high
        mobile = next(effect for effect in group.relied if effect.name == "via mobile")
        alone = delete_effect(
            shortcut,
            [texts[i] for i in own],
            "via mobile",
            target=mobile.target,
            classes=[rows[i]["label"] for i in own],
            tokenizer=tokenizer(),
            progress=False,
        )
        assert mobile.effect * mobile.deviation == pytest.approx(alone.effect * alone.deviation, rel=1e-6)
        assert mobile.texts == alone.texts
    assert "What is relied on, by who" in found.to_text(width=200)
    found.save(tmp_path / "audit.json")
    assert load(tmp_path / "audit.json") == found


def test_a_text_without_its_group_is_refused(shortcut):
    with pytest.raises(InputError, match="has no 'who'"):
        run(shortcut, [*({**row, "who": "he"} for row in corpus(20)), corpus(1)[0]], groups="who")


def test_the_figure_has_a_line_for_every_candidate_and_swap(found):
    (axes,) = found[0].plot().axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[-1].startswith("swap he")
    assert len(names) == len(found[0].candidates) + 1
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points[:-1]] == [one.found.effect for one in found[0].candidates]
    filled = [line.get_markerfacecolor() == line.get_color() for line in points]
    assert filled == [*(one.confirmed for one in found[0].candidates), found[0].swaps[0].confirmed]


def test_it_is_saved_whole_and_read_again(found, tmp_path):
    found[0].save(tmp_path / "audit.json")
    assert Audit.load(tmp_path / "audit.json") == found[0]
    alone = replace(found[0], changed=None, swaps=None)
    alone.save(tmp_path / "alone.json")
    assert Audit.load(tmp_path / "alone.json") == alone
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match="is no Audit"):
        Audit.load(tmp_path / "other.json")
    with pytest.raises(
        InputError, match=r"nothing\.json' cannot be read: No such file or directory\. Give the file of"
    ):
        Audit.load(tmp_path / "nothing.json")
    (tmp_path / "cut.json").write_text('{"format"')
    with pytest.raises(InputError, match=r"cut\.json' is no JSON .* Give the file of an audit"):
        Audit.load(tmp_path / "cut.json")
    contents = json.loads((tmp_path / "audit.json").read_text())
    del contents["candidates"]
    (tmp_path / "damaged.json").write_text(json.dumps(contents))
    with pytest.raises(InputError, match="damaged"):
        Audit.load(tmp_path / "damaged.json")


def test_what_it_shows_and_what_it_says_of_what_it_did_not_do(found, shortcut):
    text = found[0].to_text(width=200)
    assert "What does the model rely on?" in text
    assert "via mobile" in text
    assert "Not examined" in text
    assert f"Audit of {found[0].model or 'a model'}" in found[0].to_html()
    assert str(found[0]).startswith("What does the model rely on?")
    table = found[0].to_pandas()
    assert table["words"].tolist() == [candidate.found.name for candidate in found[0].candidates]
    plain = run(shortcut, [row["text"] for row in corpus()], label=None, min_texts=20, candidates=2)
    said = " ".join(plain.not_examined)
    assert "no base model" in said
    assert "he and she: none" in said
    assert "no labels" in said
    assert "fewer than 20 texts, and all but the 2 words" in said
    assert plain.errors is None
    rare = run(shortcut, corpus(), swaps={"king/queen": [("king", "queen")]}, candidates=1)
    assert rare.unswapped == ("king/queen",)
    assert "king/queen" in rare.not_examined[-1]


def test_words_of_untrusted_texts_are_escaped(shortcut):
    rows = [{"text": f"<script>x</script> {row['text']}", "label": row["label"]} for row in corpus(20)]
    assert "<script>" not in run(shortcut, rows).to_html()


def test_errors_places_and_classes_are_counted(found):
    rows = corpus()
    assert found[0].texts == 80
    assert dict(found[0].classes) == {
        name: sum(row["label"] == name for row in rows) for name in ("negative", "positive")
    }
    assert run(counting_model(), rows).errors == 0
    wrong = [{**row, "label": "negative"} for row in rows]
    expected = found[0].classes["positive"]
    assert run(counting_model(), wrong).errors == expected
    assert 0 <= found[0].positions.last_word <= found[0].positions.last_words <= 1


def test_many_texts_are_drawn(shortcut):
    few = run(shortcut, corpus(), max_texts=10)
    assert max(candidate.found.texts for candidate in few.candidates) == 10
    assert few == run(shortcut, corpus(), max_texts=10)


def test_rows_that_cannot_be_explained_are_counted(shortcut):
    found = run(shortcut, [*corpus(30), {"text": "", "label": "positive"}])
    assert (found.texts, found.skipped) == (30, 1)
    assert "1 rows that could not be explained." in found.not_examined


def test_what_is_wrong_is_said_before_anything_is_explained(shortcut, tmp_path):
    for options in (
        {"min_effect": -1},
        {"min_effect": "0.2"},
        {"candidates": 0},
        {"min_texts": 1.5},
        {"confidence": 1},
        {"seed": -1},
        {"swaps": [("he", "she")]},
    ):
        with pytest.raises(OptionError, match=next(iter(options))):
            run(shortcut, corpus(), tmp_path / "never", **options)
    with pytest.raises(InputError, match="no pair"):
        run(shortcut, corpus(), tmp_path / "never", swaps={"he": ["he"]})
    assert not (tmp_path / "never").exists()
    with pytest.raises(TargetError, match="lovely"):
        run(shortcut, [{**row, "label": "lovely"} for row in corpus(20)])


def test_explanations_that_do_not_fit_are_refused(shortcut, tmp_path):
    explain_dataset(shortcut, corpus(20), tmp_path / "bare", tokenizer=tokenizer(), progress=False)
    with pytest.raises(InputError, match="has no 'label'"):
        run(shortcut, tmp_path / "bare")
    other = [replace(one, model_id="another/model") for one in load_explanations(tmp_path / "bare")]
    with pytest.raises(InputError, match="are of the model 'another/model'"):
        run(shortcut, other, label=None)


def test_a_language_model_is_asked_for_what_the_columns_hold(tmp_path):
    model = make_explainable(random_model(vocab_size=len(tokenizer()), dtype=torch.float32))
    rows = [{**row, "right": "good" if row["label"] == "positive" else "bad"} for row in corpus(40)]
    rows = [{**row, "wrong": "bad" if row["right"] == "good" else "good"} for row in rows]
    columns = {"target_column": "right", "contrast_column": "wrong", "label": None}
    found = run(model, rows, tmp_path / "audit", base=model, candidates=4, groups="label", **columns)
    assert set(found.classes) <= {"target", "contrast"}
    assert len(found.candidates) == 4
    assert {change.change for change in found.changed} == {0.0}  # the same model
    one = found.candidates[0]
    again = run(model, tmp_path / "audit" / "explained", base=tmp_path / "audit" / "base", candidates=4, label=None)
    assert (again.candidates, again.changed) == (found.candidates, found.changed)
    alone = run(model, [row["text"] for row in rows], label=None, target="good", contrast="bad", candidates=4)
    assert set(alone.classes) <= {"good", "bad"}
    assert one.found.texts > 1
    with pytest.raises(TargetError, match="no contrast"):
        run(model, [row["text"] for row in rows], label=None, target="good")
    with pytest.raises(OptionError, match="are for language models"):
        run(counting_model(), rows, target="positive")
