"""HTML: well-formed, inert whatever the text says, readable in light and dark, and complete."""

import json
import re
import sys
import types
from base64 import b64decode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from results import HOSTILE, REVIEW, capital, explanation, generation, long_generation

from hf_mambalrp.viz.generation import SCRIPT

VOID = {"meta", "br", "img", "link", "input", "hr", "base", "embed", "source"}


class Page(HTMLParser):
    """Checks that tags nest, and collects elements (name, attributes) and visible text."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.scripts, self.text, self.style = [], [], [], "", ""
        self.feed(source)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            self.style += data
        elif "script" in self.open:
            self.scripts.append(data)
        else:
            self.text += data

    def words(self):
        return [attrs for _, attrs in self.elements if attrs.get("role") == "img"]


def everything(ex):
    return [ex.to_html(), ex.to_html(level="token"), ex._repr_html_()]


def hostile():
    texts = [f"fine {HOSTILE} end", HOSTILE]
    return explanation(
        *texts,
        target_text=[HOSTILE] * 2,
        contrast=[3, 4],
        contrast_text=[HOSTILE] * 2,
        method=HOSTILE,
        model_id=HOSTILE,
        versions={HOSTILE: HOSTILE},
        position=torch.tensor([1, 1]),
    )


def hostile_generation():
    tokens = [[HOSTILE, " cat", HOSTILE, " down", "."], ["<pad>", "Hi", " there", HOSTILE, "<pad>"]]
    return generation(tokens=tokens, method=HOSTILE, model_id=HOSTILE, versions={HOSTILE: HOSTILE})


def test_document_is_complete():
    page = Page(capital().to_html())
    assert capital().to_html().startswith("<!DOCTYPE html>")
    for part in (
        "What speaks for “Paris” rather than “London”?",
        "Score (logit of “Paris” minus “London”)", "11.250",
        "Probability of “Paris”", "75.0%",
        "Prediction after position",
        "The capital of France is",
        "blue, solid underline: speaks for “Paris” rather than “London”",
        "red, dashed underline: speaks for “London” rather than “Paris”",
        "-8.000", "+8.000",
        "sum of relevance +11.500 + biases -0.250 = 11.250 of score 11.250 (gap 0.000)",
        "Each number is a part of the score",
        "Strongest words", "66.7%",
        "Method mambalrp · model me/mamba · torch 2.13.0",
    ):  # fmt: skip
        assert part in page.text, part
    assert [attrs["aria-label"] for attrs in page.words()] == [
        "The: +0.250 (speaks for “Paris” rather than “London”)",
        "capital: +3.000 (speaks for “Paris” rather than “London”)",
        "of: -0.250 (speaks for “London” rather than “Paris”)",
        "France: +8.000 (speaks for “Paris” rather than “London”)",
        "is: +0.500 (speaks for “Paris” rather than “London”)",
    ]
    assert [attrs["class"] for attrs in page.words()] == ["w pos", "w pos", "w neg", "w pos", "w pos"]
    assert all(attrs["title"] == attrs["aria-label"] for attrs in page.words())


def test_signs_differ_without_colour():
    style = Page(capital().to_html()).style
    assert re.search(r"\.pos \{[^}]*border-bottom: 2px solid", style)
    assert re.search(r"\.neg \{[^}]*border-bottom: 2px dashed", style)
    page = Page(explanation("a b c").to_html())
    assert [attrs["title"] for attrs in page.words()] == [
        "a: -1.000 (speaks against positive)",
        "b: 0.000 (no relevance)",
        "c: +1.000 (speaks for positive)",
    ]
    assert "blue, solid underline: speaks for positive" in page.text
    assert "red, dashed underline: speaks against positive" in page.text


def test_a_gap_is_not_hidden():
    ex = explanation("a b", score=torch.tensor([2.0]))
    ex.conservation = type(ex.conservation)(ex.score, ex.relevance.sum(-1), torch.zeros(1))
    text = Page(ex.to_html()).text
    assert "of score 2.000 (gap 3.000)" in text
    assert "do not add up to it" in text
    assert "Each number is a part" not in text


@pytest.mark.parametrize("build", [hostile, hostile_generation, capital, generation])
def test_nothing_but_markup_of_our_own(build):
    for source in everything(build()):
        page = Page(source)
        allowed = {
            "html", "head", "meta", "title", "style", "body", "main", "div", "section", "footer", "h1", "h2", "p", "b",
            "br", "i", "dl", "dt", "dd", "span", "bdi", "table", "caption", "thead", "tbody", "tr", "th", "td",
            "details", "summary", "nav", "ol", "li", "a", "button", "script",
        }  # fmt: skip
        assert {tag for tag, _ in page.elements} <= allowed
        assert page.scripts == [SCRIPT] * ("script" in source and build in (generation, hostile_generation))
        for tag, attrs in page.elements:
            names = {name for name in attrs if not name.startswith(("aria-", "data-"))}
            names -= {"class", "style", "title", "role", "scope", "open", "id", "href", "type", "tabindex", "value"}
            assert names <= {"lang", "dir", "charset", "name", "content", "http-equiv"}, (tag, attrs)
            assert re.fullmatch(r"#[\w-]+", attrs.get("href", "#a"))
            assert re.fullmatch(r"(-?-?[a-z-]+:[-\w.%(), ]+;?)*", attrs.get("style", "")), attrs["style"]
        written = [{**attrs, "data-values": None} for _, attrs in page.elements]
        assert not re.search(r"url\(|@import|https?:|//", page.style + "".join(map(str, written)))
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", source)
        source.encode()


def test_hostile_text_is_still_shown():
    page = Page(hostile().to_html(title=HOSTILE))
    assert page.text.count("alert(1)") >= 8
    assert "⟨U+202E⟩evil⟨U+0007⟩" in page.text
    assert "⟨U+001B⟩[31m" in page.text
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "img"})


def channels(color):
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


def luminance(color):
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    """WCAG 2.2 contrast ratio."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_wcag_formula():
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    assert contrast(channels("#767676"), [255, 255, 255]) == pytest.approx(4.54, abs=0.01)


def test_contrast_in_light_and_dark():
    """Every text colour on every background it meets, with the largest opacity that the page uses."""
    page = Page(explanation(REVIEW).to_html())
    themes = [
        dict(re.findall(r"--([\w-]+):([^;}\s]+)", block)) for block in re.findall(r"\{ (--bg[^}]*)\}", page.style)
    ]
    assert len({theme["bg"] for theme in themes}) == 2
    alpha = max(float(a) for _, attrs in page.elements for a in re.findall(r"--a:([\d.]+)", attrs.get("style", "")))
    assert 0.4 < alpha < 1
    for theme in themes:
        background = channels(theme["bg"])
        for name in ("fg", "muted", "pos-text", "neg-text"):
            assert contrast(channels(theme[name]), background) >= 4.5, name
        for name in ("pos", "neg"):
            color = [int(c) for c in theme[name].split(",")]
            behind = [alpha * c + (1 - alpha) * b for c, b in zip(color, background, strict=True)]
            assert contrast(channels(theme["fg"]), behind) >= 4.5, name
            assert contrast(color, background) >= 3, "the underline and the bar are graphics: 3:1"


def test_strength_follows_relevance():
    page = Page(explanation("a b c", relevance=torch.tensor([[2.0, -1.0, 0.0]])).to_html())
    alphas = [float(re.search(r"--a:([\d.]+)", attrs.get("style", "--a:0"))[1]) for attrs in page.words()]
    assert alphas[1] == pytest.approx(alphas[0] / 2, abs=1e-3)
    assert alphas[2] == 0
    assert "class" in page.words()[2]


@pytest.mark.parametrize(
    "ex",
    [
        explanation("a b", relevance=torch.zeros(1, 2)),
        explanation("one"),
        explanation("a\nb \n\n c"),
        explanation("a b", texts=None, offsets=None),
        explanation("a b", probability=None, target=[None], target_text=["entropy"], model_id=None, versions={}),
        explanation("x" * 5000),
        explanation("a b", attention_mask=torch.zeros(1, 2), relevance=torch.zeros(1, 2)),
    ],
)
def test_edge_cases_render(ex):
    for source in everything(ex):
        page = Page(source)
        assert "nan" not in source.lower().replace("finance", "")
        assert "What speaks for" in page.text


def test_thousands_of_tokens():
    ex = explanation(" ".join(f"w{i}" for i in range(3000)))
    page = Page(ex.to_html())
    assert all(f"w{i}" in page.text for i in range(3000))
    assert len([tag for tag, _ in page.elements if tag == "tr"]) == 11


def test_newlines_break_lines():
    page = Page(explanation("one\ntwo").to_html())
    assert "one⏎\ntwo" in page.text
    assert "white-space: pre-wrap" in page.style


def test_rows_and_title(tmp_path):
    ex = explanation("a b", "c d", "e f")
    page = Page(ex.to_html(tmp_path / "ex.html", title="Three & more"))
    assert (tmp_path / "ex.html").read_text(encoding="utf-8") == ex.to_html(title="Three & more")
    assert page.text.count("Three & more") == 2
    assert ("title", {}) in page.elements
    assert "Row 3 of 3" in page.text
    for legend in ("blue, solid underline", "red, dashed underline"):
        assert page.text.count(legend) == 1, "one for all rows"
    led = [attrs["href"] for tag, attrs in page.elements if tag == "a"]
    places = [attrs["id"] for tag, attrs in page.elements if tag == "section"]
    assert led == [f"#{place}" for place in places]
    assert len(led) == len({*led}) == 3
    many = explanation(*["a b"] * 12)
    assert "2 more rows are not shown here" in Page(many._repr_html_()).text
    assert "Row 12 of 12" in Page(many.to_html()).text


def test_generation_document():
    page = Page(generation().to_html())
    for part in (
        "What speaks for each generated token?", "Row 2 of 2", "Why all 3 tokens?", "Why all 2 tokens?",
        "blue, solid underline: speaks for the generated token",
        "sum of relevance +6.500 + biases 0.000 = 6.500 of score 6.500 (gap 0.000)",
    ):  # fmt: skip
        assert part in page.text, part
    choices = [attrs["title"] for _, attrs in page.elements if attrs.get("role") == "option"]
    assert choices == [
        "“sat”: score 3.000, probability 50.0%",
        "“down”: score 2.500, probability 25.0%",
        "“.”: score 1.000, probability 12.5%",
        "“there”: score 4.000, probability 50.0%",
        "“<eos>”: score -1.000, probability 25.0%",
    ]
    words = [attrs["title"] for attrs in page.words()]
    assert words == [
        *("The: +1.750 (speaks for it)", "cat: +1.250 (speaks for it)"),
        "Hi: +5.000 (speaks for it)",
    ], "without a script, what all tokens have together"
    numbers = [attrs["data-values"] for _, attrs in page.elements if "data-values" in attrs]
    first = np.frombuffer(b64decode(numbers[0]), "<f4").reshape(3, 5)
    assert first.tolist() == [[1, 2, 0, 0, 0], [0.5, -1, 3, 0, 0], [0.25, 0.25, 0.25, 0.25, 0]]
    (terms, _) = (json.loads(attrs["data-terms"]) for _, attrs in page.elements if "data-terms" in attrs)
    assert terms == {"score": [3.0, 2.5, 1.0], "sum of relevance": [3.0, 2.5, 1.0], "biases": [0.0, 0.0, 0.0]}
    absorbing = generation()
    absorbing.conservation = replace(absorbing.conservation, softmax=torch.ones(2, 3) / 8)
    assert "&quot;softmax&quot;: [0.125, 0.125, 0.125]" in absorbing.to_html()
    nothing = generation(attention_mask=torch.tensor([[0, 1, 0, 0, 0]] * 2), relevance=torch.zeros(2, 3, 5))
    assert "Nothing was generated." in Page(nothing.to_html()).text


def test_a_page_allows_the_one_script_that_it_has_and_other_pages_none():
    def policy(page):
        return next(attrs["content"] for _, attrs in page.elements if "http-equiv" in attrs)

    page = Page(generation().to_html())
    allowed = re.search(r"script-src 'sha256-([^']+)'$", policy(page))[1]
    assert b64decode(allowed) == sha256(page.scripts[0].encode()).digest()
    assert Page(capital().to_html()).scripts == []
    assert "script" not in policy(Page(capital().to_html()))


def test_fifty_tokens_on_a_prompt_of_a_thousand_are_less_than_a_megabyte():
    ex = long_generation(1000, 50)
    for level in ("word", "token"):
        assert len(ex.to_html(level=level).encode()) < 700_000


def test_show_in_a_notebook(monkeypatch, capsys):
    shown = []
    shell = types.SimpleNamespace(kernel=object())
    display = types.SimpleNamespace(display=lambda data, raw: shown.append(data) if raw else None)
    ipython = types.SimpleNamespace(get_ipython=lambda: shell, display=display)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    ex = capital()
    ex.show()
    ex.show(level="token")
    assert shown[0] == {"text/html": ex._repr_html_(), "text/plain": ex.to_text(width=100)}
    assert shown[1]["text/html"] == ex._repr_html_("token")
    assert capsys.readouterr().out == ""
    del shell.kernel
    ex.show()
    assert len(shown) == 2
    assert "France(+8.000)" in capsys.readouterr().out


def test_rules_of_the_page_around_a_notebook_cell_are_weaker():
    """JupyterLab styles tables, lists and headings by one class and some elements, and has a rem of its own."""
    for result in (capital(), generation()):
        (style,) = re.findall(r"<style>(.*?)</style>", result._repr_html_(), re.DOTALL)
        named = re.findall(r"(?:\.hfm)+", style)
        assert set(named) == {".hfm.hfm.hfm"}
        assert ".hfm.hfm.hfm * { all: revert }" in style
        assert not re.search(r"\drem\b", style)
        assert style.index("all: revert") < style.index("border-collapse"), "what is taken back comes first"
