"""The app with any list of models: tabs, examples, the API and the first answer are those that these models have."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from screen import opened

from hf_mambalrp import DEMO_LANGUAGE_MODEL, DEMO_MODEL, DEMO_VISION_MODEL
from hf_mambalrp.errors import InputError
from hf_mambalrp.space.catalog import PACKAGED, PACKAGED_LANGUAGE, read_allow_list
from hf_mambalrp.space.examples import FILMS, STORIES

CLASSIFIER, LANGUAGE, VISION = "text-classification", "text-generation", "image-classification"
REQUEST = SimpleNamespace(client=SimpleNamespace(host="192.0.2.1"), headers={})
AS_IT_IS = {"__type__": "update"}
"""What tells gradio to leave a field alone."""
LISTS = {
    "a classifier": (
        [(DEMO_MODEL, CLASSIFIER)],
        ["Sentence", "Attention", "Compare", "Document"],
        ["explain", "attention", "compare", "document"],
    ),
    "a language model": (
        [(DEMO_LANGUAGE_MODEL, LANGUAGE)],
        ["Next word", "Generate", "Attention", "Compare"],
        ["next_token", "generate", "attention", "compare"],
    ),
    "pictures": ([(DEMO_VISION_MODEL, VISION)], ["Picture"], ["explain_image"]),
}


@pytest.mark.parametrize("name", LISTS)
def test_the_page_has_what_its_models_can_do_and_opens_with_the_first(tmp_path, name, app_of, page_of):
    models, tabs, calls = LISTS[name]
    # A copy, as a model of which nothing is known: a packaged one is known by its folder.
    (tmp_path / "copy").symlink_to(models[0][0])
    listed = [{"id": str(tmp_path / "copy"), "title": "Mine", "task": models[0][1]}]
    (tmp_path / "models.json").write_text(json.dumps(listed))
    app = app_of(read_allow_list(tmp_path / "models.json"))
    page = page_of(app)
    parts = page.config["components"]
    assert [part["props"]["label"] for part in parts if part["type"] == "tabitem"] == tabs
    assert [call.api_name for call in page.fns.values() if call.api_visibility == "public"] == calls
    known = {*FILMS.values(), *STORIES.values()} - {"The capital of France is"}
    assert not known & {part["props"].get("value") for part in parts if part["type"] == "textbox"}
    first = {"Sentence": "sentence", "Next word": "next", "Picture": "image"}[tabs[0]]
    answers = opened(page, "", first, REQUEST)
    assert 'class="how"' in answers[f"{first}-answer"].replace("'", '"')
    answers = opened(page, "#kind=sentence" if first == "image" else "#kind=image", first, REQUEST)
    assert "is configured for this Space" in answers[f"{first}-answer"]


def test_another_model_brings_its_examples_and_keeps_what_a_visitor_wrote(app_of, page_of):
    app = app_of([PACKAGED, PACKAGED_LANGUAGE])
    page = page_of(app)
    call = next(call for call in page.fns.values() if getattr(call.fn, "__name__", "") == "_fit")  # of Attention

    def fitted(model, text):
        text, layer, chips, answer = call.fn(REQUEST, model, text, 3, "raw")
        return text, layer["value"], re.findall(r">([^<]+)</button>", chips), answer

    last = app.catalog.get(PACKAGED_LANGUAGE.title)[0].config.num_hidden_layers - 1
    assert last >= 3 > app.catalog.get(PACKAGED.title)[0].config.num_hidden_layers - 1
    text, layer, chips, answer = fitted(PACKAGED_LANGUAGE.title, FILMS["Praise"])
    assert (text, layer, chips) == (next(iter(STORIES.values())), 3, [*STORIES])
    assert f"Layer 3, of 0 to {last}" in answer
    assert fitted(PACKAGED_LANGUAGE.title, "My own words.")[0] == AS_IT_IS, "it stays, and so does what is typed now"
    text, layer, chips, answer = fitted(PACKAGED.title, FILMS["Torn"])
    assert (text, layer, chips) == (AS_IT_IS, 0, [*FILMS])
    assert "Layer 0, of 0 to 2" in answer


def test_another_model_keeps_the_classes_that_it_has(tmp_path, app_of, page_of):
    """A menu that closes as it was says so, too: nothing that was chosen may change."""
    (tmp_path / "copy").symlink_to(DEMO_MODEL)
    app = app_of([PACKAGED, replace(PACKAGED, id=str(tmp_path / "copy"), title="Again"), PACKAGED_LANGUAGE])
    call = next(call for call in page_of(app).fns.values() if getattr(call.fn, "__name__", "") == "_fit")  # of Sentence
    given = {"text": "A film.", "target": "negative", "contrast": "nonsense"}
    rest = {"method": "mambalrp", "level": "word", "view": "words", "compared": [], "rule": "cp"}
    for title in (PACKAGED.title, "Again"):
        text, target, contrast, *_, answer = call.fn(REQUEST, title, *given.values(), *rest.values())
        assert (text, target["value"], contrast["value"]) == (AS_IT_IS, "negative", "")
        assert "What speaks for negative?" in answer


def test_a_list_gives_examples_and_a_packaged_model_has_its_own(tmp_path):
    own = {"id": "a/model", "title": "Mine", "task": CLASSIFIER, "examples": {"One": "A text."}}
    packaged = {"id": "DEMO_MODEL", "title": "Films", "task": CLASSIFIER}
    (tmp_path / "models.json").write_text(json.dumps([own, packaged]))
    mine, films = read_allow_list(tmp_path / "models.json")
    assert mine.begun_with == {"One": "A text."}
    assert (films.begun_with, films.audit, films.title) == (FILMS, PACKAGED.audit, "Films")
    for lines in ([], [{**own, "examples": ["A text."]}], [{**own, "examples": {"One": 1}}]):
        (tmp_path / "models.json").write_text(json.dumps(lines))
        with pytest.raises(InputError, match=r"models.json: .* is no model|holds no list"):
            read_allow_list(tmp_path / "models.json")


def test_two_models_are_compared_and_the_python_says_how(app_of):
    app = app_of([PACKAGED, PACKAGED_LANGUAGE])
    html, query, code = app.shown(None, kind="compare", text="Tom is happy.", other_model=PACKAGED_LANGUAGE.title)
    assert "Rank agreement" in html or "rank agreement" in html
    assert "kind=compare" in query
    assert "other_model=Small" in query
    assert "AutoMambaLRPForCausalLM.from_pretrained(DEMO_LANGUAGE_MODEL)" in code
    found = app.described(None, kind="compare", text="Tom is happy.", target="negative", other_target="positive")
    assert found["result"]["class"] == "Comparison"
    assert "is no class of this model" in app.shown(None, kind="compare", text="A film.", other_target="x")[0]
