"""A card shows an audit of its own model: on which data, how many texts, by which thresholds."""

import html

import pytest
from planted import counting_model
from test_audit import corpus, run

from hf_mambalrp.errors import InputError


@pytest.fixture(scope="module")
def model():
    return counting_model()


@pytest.fixture(scope="module")
def found(model):
    return run(model, corpus(40))


def test_the_card_says_what_was_confirmed_on_which_data_and_by_which_thresholds(model, found, tmp_path):
    model.save_pretrained(tmp_path, audit=found)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    section = card[card.index("### What it relies on") :]
    for words in ("a list", "40 explained", "q < .05", "0.2", "good (+", "Not examined"):
        assert words in html.unescape(section), words


def test_what_a_later_card_does_not_bring_stays_and_what_it_brings_is_replaced(model, found, tmp_path):
    from planted import tokenizer

    model.save_pretrained(tmp_path, audit=found)
    first = (tmp_path / "README.md").read_text(encoding="utf-8")
    model.save_pretrained(tmp_path, audit=found)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == first
    model.save_pretrained(tmp_path, explanations=model.explain("good film", tokenizer=tokenizer()))
    both = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "What speaks for" in both
    assert first[first.index("### What it relies on") :] == both[both.index("### What it relies on") :]
    model.save_pretrained(tmp_path, audit=run(model, corpus(30)))
    again = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert again.count("### What it relies on") == 1
    assert "30 explained" in again
    assert "What speaks for" in again


def test_an_audit_of_other_weights_or_something_else_is_refused(found, tmp_path):
    other = counting_model(weight=2.0)
    with pytest.raises(InputError, match="audit was measured on weights"):
        other.save_pretrained(tmp_path / "out", audit=found)
    with pytest.raises(InputError, match="audit is a dict"):
        other.save_pretrained(tmp_path / "out", audit={})
