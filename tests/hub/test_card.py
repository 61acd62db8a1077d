"""Cards: extended between markers, untrusted text shown as text, figures as the Hub's metadata."""

import ast
import html
import re

import pytest
import yaml
from huggingface_hub import ModelCardData
from markdown_it import MarkdownIt

from hf_mambalrp.errors import CardError, InputError
from hf_mambalrp.hub.card import (
    BEGIN,
    END,
    card_text,
    listed,
    metadata,
    section_of,
    with_data,
    with_metadata,
    with_section,
)
from hf_mambalrp.hub.figures import checked_results, evaluation_section, model_index
from hf_mambalrp.viz.markdown import escaped, literal
from hf_mambalrp.viz.wording import visible

CARD = """---
# chosen by hand
license: mit   # ours
tags:
- sentiment
# more to come

language: [en,   de]
---
\t# A title

Some *text*.  \n"""
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</td></table><script>alert(1)</script>",
    "](javascript:alert(1)) ![x](http://evil.example/p.png)",
    "**bold** __b__ `code` ```",
    "a|b|c",
    "# title",
    "1. one",
    "- item",
    "+ item",
    "> quote",
    "---",
    "===",
    "www.evil.example http://evil.example @someone #12 :smile:",
    "&lt;b&gt; &#60;",
    "$$x$$ \\(y\\) ~~z~~",
    f"{END} and {BEGIN}",
    "line\nbreak\r\n\ttab",
    "right\u202eto left",
    "\x00\x1b[31m",
    "日本語 ñ 😀",
]


def results():
    """Two methods over three texts, in the form of ``evaluate_faithfulness``."""

    def stat(mean):
        return {"mean": mean, "low": mean - 0.5, "high": mean + 0.25, "values": [mean] * 3}

    def method(base):
        names = ("delta_flip", "delta_insert", "comprehensiveness", "sufficiency")
        return {name: stat(base + i) for i, name in enumerate(names)}

    return {
        "model": "m",
        "settings": {"methods": ["mambalrp", "random"], "measure": "logit", "confidence": 0.95},
        "examples": [{"id": str(i)} for i in range(3)],
        "methods": {"mambalrp": method(1.0), "random": method(-1.0)},
    }


def test_keys_are_set_and_every_other_byte_stays():
    changed = with_metadata(CARD, {"tags": ["sentiment", "mamba"], "library_name": "transformers", "license": "mit"})
    assert changed == CARD.replace("tags:\n- sentiment\n", "tags:\n- sentiment\n- mamba\n").replace(
        "language: [en,   de]\n", "language: [en,   de]\nlibrary_name: transformers\n"
    )
    assert with_metadata(changed, {"tags": ["sentiment", "mamba"]}) is changed


def test_data_is_added_to_what_is_there_and_overwrites_nothing():
    data = ModelCardData(library_name="transformers", license="apache-2.0", tags=["a", "b"])
    card = "---\nlicense: mit # ours\nlibrary_name:\ntags: [a, a]\n---\n"
    changed = with_data(card, data)
    assert metadata(changed) == {"license": "mit", "library_name": "transformers", "tags": ["a", "a", "b"]}
    assert "license: mit # ours\n" in changed
    assert with_data(changed, data) is changed
    assert with_data("---\ntags: [b, a, a]\n---\n", ModelCardData(tags=["a"])) == "---\ntags: [b, a, a]\n---\n"


@pytest.mark.parametrize(
    "card",
    [
        "---\ntags: mamba\n---\ntext",
        "---\ntags: [a,\n  b]\nx: 1\n---\n",
        "---\nx: &list\n- a\ntags: *list\ny: *list\n---\n",
        "---\n{tags: [a], x: 1}\n---\n",
        "---\ntags:\nx: 1\n---\n",
        "---\n# nothing\n---\nend",
        "\ufeff---\r\nx: 1\r\ntags:\r\n- a\r\n---\r\nbody\r\n",
        "no front matter\n\n\n",
        f"---\nx: '{BEGIN}'\n---\ntext\n",
        "",
    ],
)
def test_front_matter_of_any_form_keeps_its_other_keys_and_the_text(card):
    before = metadata(card)
    changed = with_metadata(card, {"tags": ["new"], "model-index": [{"name": "n", "results": []}]})
    assert metadata(changed) == {**before, "tags": ["new"], "model-index": [{"name": "n", "results": []}]}
    text = re.sub(r"\A\ufeff?---\r?\n[\s\S]*?\n---\r?\n", "", card)
    assert changed.endswith(text)
    assert ("\r\n" in card) == ("\r\n" in changed)
    assert not re.search(r"[^\r]\n", changed) or "\r\n" not in card


def test_a_section_is_appended_once_and_then_replaced():
    once = with_section(CARD, "ours")
    assert once == f"{CARD}\n{BEGIN}\nours\n{END}\n"
    with_tail = once + "after\n"
    assert with_section(with_tail, "new\nlines") == f"{CARD}\n{BEGIN}\nnew\nlines\n{END}\nafter\n"
    assert with_section("a\r\n", "x\ny") == f"a\r\n\r\n{BEGIN}\r\nx\r\ny\r\n{END}\r\n"


@pytest.mark.parametrize("card", [BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_markers_that_make_no_section_are_refused(card):
    with pytest.raises(CardError, match="there must be one of each"):
        with_section(card, "ours")


def test_a_byte_order_mark_does_not_come_to_stand_inside_the_text():
    assert with_metadata("\ufeff# Title\n", {"license": "mit"}) == "---\nlicense: mit\n---\n\n# Title\n"


def test_markers_in_the_front_matter_are_none_of_the_text():
    card = f"---\nx: '{END} {BEGIN}'\n---\ntext\n"
    once = with_section(card, "ours")
    assert once == f"{card}\n{BEGIN}\nours\n{END}\n"
    assert with_section(once, "new") == f"{card}\n{BEGIN}\nnew\n{END}\n"


def test_a_section_is_read_back():
    assert section_of(CARD) is None
    assert section_of(with_section(CARD, "a\n\nb")) == "a\n\nb"
    assert section_of(with_section("a\r\n", "a\n\nb")) == "a\n\nb"


def test_what_front_matter_lists():
    assert listed({"tags": ["a", 1]}, "tags") == ["a", 1]
    assert listed({"tags": "a"}, "tags") == ["a"]
    assert listed({"tags": None}, "tags") == listed({}, "tags") == []
    with pytest.raises(CardError, match=r"tags in the front matter.*is a dict; it must be a list"):
        listed({"tags": {"a": 1}}, "tags")


@pytest.mark.parametrize("card", ["---\na: [\n---\n", "---\n- a\n---\n"])
def test_damaged_front_matter_is_refused(card):
    with pytest.raises(CardError, match=r"front matter of README\.md"):
        with_metadata(card, {"tags": []})


def test_a_card_must_be_utf_8():
    with pytest.raises(CardError, match="UTF-8"):
        card_text(b"\xff\xfe")


@pytest.mark.parametrize("text", HOSTILE)
def test_untrusted_text_is_shown_as_text_everywhere(text):
    """Rendered by another program, every place of a card shows exactly the text, and no element comes of it."""
    render = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render
    shown = html.escape(visible(text).strip(), quote=False)
    safe = escaped(text)
    source = f"### {safe}\n\n> {safe}\n\n| a | b |\n|---|---|\n| {safe} | 1 |\n\n![{safe}](p.png)"
    page = render(source).replace("&quot;", '"')
    assert f"<h3>{shown}</h3>" in page
    assert f"<p>{shown}</p>" in page
    assert f"<td>{shown}</td>\n<td>1</td>" in page
    elements = set(re.findall(r"<(\w+)", page))
    assert elements == {"h3", "blockquote", "p", "table", "thead", "tbody", "tr", "th", "td", "img"}
    assert "hf_mambalrp:" not in safe


@pytest.mark.parametrize("text", HOSTILE)
def test_a_literal_is_the_text_in_one_line(text):
    code = literal(text)
    assert ast.literal_eval(code) == text
    assert code.isascii()
    assert not {"\n", "<"} & {*code}


def test_figures_become_model_index_beside_the_results_of_others():
    theirs = {"task": {"type": "text-classification"}, "dataset": {"name": "d", "type": "d"}, "metrics": []}
    there = [{"name": "theirs", "results": [theirs]}, {"name": "second", "results": []}]
    found = model_index(results(), "mine", there)
    ours = {
        "task": {"type": "explanation-faithfulness", "name": "Explanation faithfulness"},
        "dataset": {"type": "custom", "name": "3 texts"},
        "metrics": [
            {"type": "delta_flip", "value": 1.0, "name": "ΔA flipping, mambalrp"},
            {"type": "delta_insert", "value": 2.0, "name": "ΔA insertion, mambalrp"},
            {"type": "comprehensiveness", "value": 3.0, "name": "Comprehensiveness, mambalrp"},
            {"type": "sufficiency", "value": 4.0, "name": "Sufficiency, mambalrp"},
        ],
    }
    assert found == [{"name": "theirs", "results": [theirs, ours]}, {"name": "second", "results": []}]
    assert model_index(results(), "mine", found) == found
    assert model_index(results(), "mine", []) == [{"name": "mine", "results": [ours]}]
    assert yaml.safe_load(yaml.safe_dump(found)) == found


@pytest.mark.parametrize("there", [["a"], [{"name": "a", "results": "b"}]])
def test_a_model_index_that_is_none_is_refused(there):
    with pytest.raises(CardError, match="model-index"):
        model_index(results(), "mine", there)


def test_every_method_has_a_line_of_figures():
    section = evaluation_section(results())
    assert "3 texts" in section
    assert "95%" in section
    assert "| mambalrp | 1.000 [0.500, 1.250] | 2.000 [1.500, 2.250] |" in section
    assert "| random | -1.000 [-1.500, -0.750] |" in section


def without_number(value):
    found = results()
    found["methods"]["random"]["sufficiency"]["low"] = value
    return found


@pytest.mark.parametrize(
    "broken",
    [
        {},
        without_number(float("nan")),
        without_number("1"),
        {**results(), "settings": {"measure": "logit", "confidence": "high"}},
        {"methods": {}, "settings": {"measure": "logit", "confidence": 0.95}, "examples": [1]},
        {"methods": {"a": {}}},
        {**results(), "settings": {}},
        "text",
    ],
)
def test_something_else_than_results_is_refused(broken):
    with pytest.raises(InputError, match="evaluate_faithfulness"):
        checked_results(broken)
