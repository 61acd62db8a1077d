"""What a visitor sees and does, in a real browser."""

import json

import pytest
from playwright.sync_api import expect
from screen import (
    PRAISE,
    SIZES,
    WAIT,
    answered,
    ask,
    barriers,
    changed,
    choose,
    marks,
    panel,
    shot,
    show_in,
    take_away,
    words,
)
from space_server import LANGUAGE_MODEL, MARKUP

from hf_mambalrp import (
    AutoMambaLRPForCausalLM,
    Explanation,
    GenerationExplanation,
    compare,
)
from hf_mambalrp.viz.wording import signed


@pytest.mark.parametrize(("size", "passed"), [("desktop", "light"), ("phone", "dark")])
def test_first_screen_shows_an_explanation(visit, demo, size, passed):
    page = visit(size=size)
    ex = demo.explain(PRAISE)
    assert page.title() == "Why did the model say that?"
    assert page.locator("h1").count() == 1
    assert page.locator(".chances li").first.inner_text().split() == ["positive", f"{ex.probability.item():.1%}"]
    assert page.locator(".answer .sum").inner_text() == str(ex.conservation)
    assert marks(page) == words(ex)
    for scheme in ("light", "dark"):
        show_in(page, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0], "the page scrolls sideways"
        place = page.locator(".answer .text").first.bounding_box()
        assert place["y"] < SIZES[size][1], "the words are below the screen"
        asked = panel(page).get_by_label("Method", exact=True).bounding_box()
        assert asked["y"] < place["y"] or asked["x"] < place["x"], "the method is below the answer"
        lines = page.locator(".answer .signs > span").evaluate_all("all => all.map(line => line.offsetHeight)")
        assert max(lines) < 60, "the legend is squeezed into a column"
        shot(page, f"sentence-{size}-{scheme}")
    show_in(page, passed)
    assert barriers(page) == []


def test_one_question_after_another(visit, demo):
    page = visit()
    the_keyboard_reaches_every_word_and_shows_its_number(page)
    blue_and_solid_is_for_red_and_dashed_against(page)
    layers_methods_and_another_method(page, demo)
    a_document_shows_the_passages_that_mattered(page, demo)


def test_examples_target_contrast_and_tokens(visit, demo):
    page = visit()
    before = page.locator("#sentence-answer").inner_html()
    panel(page).get_by_role("button", name="A pan").click()
    changed(page, before)
    assert marks(page) == words(demo.explain("A coarse and stupid gross out."))
    ask(page, "A warm and lovely film with a dull end.")
    before = page.locator("#sentence-answer").inner_html()
    choose(page, "Explain the score of", "negative")
    changed(page, before)
    before = page.locator("#sentence-answer").inner_html()
    choose(page, "rather than", "positive")
    changed(page, before)
    assert "What speaks for negative rather than positive?" in page.locator("#sentence-answer").inner_text()
    before = page.locator("#sentence-answer").inner_html()
    panel(page).get_by_label("Tokens").check()
    changed(page, before)
    ex = demo.explain("A warm and lovely film with a dull end.", target="negative", contrast="positive")
    assert marks(page) == words(ex, "token")


def layers_methods_and_another_method(page, demo):
    text = "Dull, but never boring."
    ask(page, text)  # in the view of layers, which is chosen
    ex = demo.explain(text, per_layer=True)
    rows = page.locator("table.heat tbody tr").evaluate_all("all => all.map(r => [...r.cells].map(c => c.innerText))")
    assert [row[0] for row in rows] == ["block 3", "block 2", "block 1", "embedding"]
    for row, relevance in zip(rows[::-1], ex.layer_relevance[:, 0], strict=True):
        by_word = [sum(relevance[i].item() for i in word.tokens) for word in ex.words()]
        assert [float(number) for number in row[1:]] == pytest.approx(by_word, abs=0.0051)
    shot(page, "layers")
    before = page.locator("#sentence-answer").inner_html()
    panel(page).get_by_label("Methods", exact=True).check()
    changed(page, before)
    compared = {"MambaLRP": "mambalrp", "Gradient × Input": "gradient_x_input"}
    assert page.locator(".panels h4").all_inner_texts() == list(compared)
    columns = [[number for _, number in words(demo.explain(text, method=name))] for name in compared.values()]
    cells = page.locator(".answer .wide tbody tr").evaluate_all(
        "all => all.map(r => [...r.cells].map(c => c.innerText))"
    )
    assert [row[1:] for row in cells] == [list(pair) for pair in zip(*columns, strict=True)]
    before = page.locator("#sentence-answer").inner_html()
    panel(page).get_by_label("LRP (LN-rule)").check()
    changed(page, before)
    assert page.locator(".panels h4").count() == 3
    shot(page, "methods")


def the_keyboard_reaches_every_word_and_shows_its_number(page):
    box = panel(page).locator("textarea").first
    box.focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.text .w')"):
            break
    shown = marks(page)

    def focused():
        tip = "getComputedStyle(document.activeElement, '::after').content"
        return page.evaluate(f"[document.activeElement.ariaLabel.split(':')[0], {tip}]")

    assert focused() == [shown[0][0], f'"{shown[0][1]}"']
    page.keyboard.press("ArrowRight")
    assert focused() == [shown[1][0], f'"{shown[1][1]}"']
    page.keyboard.press("End")
    assert focused()[0] == shown[-1][0]
    page.keyboard.press("ArrowLeft")
    assert focused()[0] == shown[-2][0]
    page.locator(".text .w").nth(2).hover()
    assert page.locator(".text .w").nth(2).evaluate("w => getComputedStyle(w, '::after').content") == f'"{shown[2][1]}"'


def blue_and_solid_is_for_red_and_dashed_against(page):
    """What is seen, not which class it has: colour, line and, where it is strong, a sign."""
    ask(page, "A warm and lovely film with a dull end.")
    for scheme in ("light", "dark"):
        show_in(page, scheme)
        words_are_as_they_count(page)
    with answered(page):
        panel(page).get_by_label("Layers").check()
    for scheme in ("dark", "light"):
        show_in(page, scheme)
        cells_are_as_they_count(page)


def words_are_as_they_count(page):
    numbers = [float(number) for _, number in marks(page)]
    seen = page.locator("#sentence-answer .text .w").evaluate_all(
        """all => all.map(w => { const s = getComputedStyle(w), [r, g, b] = s.backgroundColor.match(/[\\d.]+/g);
           const line = s.borderBottomStyle + s.textDecorationStyle;
           return [Number(b) - Number(r), line, w.querySelector('sup')?.innerText] })"""
    )
    assert min(numbers) < 0 < max(numbers)
    peak = max(map(abs, numbers))
    for number, (blue, line, sign) in zip(numbers, seen, strict=True):
        assert (blue > 0) == (number > 0)
        assert ("dashed" in line) == (number < 0)
        assert sign == (("+" if number > 0 else "−") if abs(number) / peak >= 0.25 else None)


def cells_are_as_they_count(page):
    sides = page.locator("#sentence-answer .heat td").evaluate_all(
        """all => all.map(c => { const below = getComputedStyle(c.firstChild).borderBottomStyle;
           return [Number(c.title), getComputedStyle(c).backgroundImage + below] })"""
    )
    strong = [(value, drawn) for value, drawn in sides if abs(value) > 0.1]
    assert {value > 0 for value, _ in strong} == {True, False}
    assert all(("dashed" in drawn or "gradient" in drawn) == (value < 0) for value, drawn in strong)


def test_downloads_python_and_link(visit, demo, server):
    page = visit()
    take_away(page)
    link = page.locator("#sentence-link").locator("textarea, input")
    assert link.input_value().startswith(server.url + "#text=The+plot"), "the first screen has its link"
    text = 'She said "wow" and it\'s a dull\\boring film.'
    ask(page, text)
    ex = demo.explain(text)
    files = {}
    for form in ("html", "json", "json", "png"):  # one of them a second time
        with page.expect_download() as download:
            page.locator(f"#sentence-{form}").click()
        assert download.value.suggested_filename == f"explanation.{form}"
        files[form] = download.value.path().read_bytes()
    loaded = Explanation.from_dict(json.loads(files["json"]))
    assert loaded.texts == [text]
    assert loaded.relevance.equal(ex.relevance)
    assert files["html"].startswith(b"<!DOCTYPE html>")
    assert b"boring" in files["html"]
    assert files["png"].startswith(b"\x89PNG")

    code = page.locator("#sentence-python textarea").input_value()
    run = {}
    exec(code, run)
    assert run["result"].relevance.equal(ex.relevance)
    page.evaluate("document.addEventListener('copy', () => { copied = document.activeElement.value })")
    for name, copied in (("python", code), ("link", page.url)):
        page.locator(f"#sentence-{name}").get_by_role("button", name="Copy").click()
        assert page.evaluate("copied") == copied

    assert link.input_value() == page.url
    assert page.url.startswith(server.url)
    shot(page, "take-away")


def test_a_link_restores_every_choice_and_leaves_gradios_own_query_alone(visit, space, server):
    text = 'She said "wow" and it\'s a dull\\boring film.'
    choices = {"target": "positive", "contrast": "negative", "method": "lrp_ln", "level": "token"}
    _, query, _ = space.shown(None, text=text, **choices, view="methods", compared=["lrp_ln"])
    page = visit(f"?view=api#{query}")
    assert page.url == f"{server.url}?view=api#{query}"
    assert "What speaks for positive rather than negative? 1 methods" in page.locator("#sentence-answer").inner_text()
    expect(panel(page).locator("textarea").first).to_have_value(text, timeout=WAIT)
    expect(panel(page).get_by_label("Methods", exact=True)).to_be_checked(timeout=WAIT)
    expect(panel(page).get_by_label("Tokens")).to_be_checked(timeout=WAIT)
    expect(panel(page).get_by_label("LRP (LN-rule)")).to_be_checked(timeout=WAIT)
    expect(panel(page).get_by_label("Gradient × Input")).not_to_be_checked(timeout=WAIT)
    take_away(page)
    assert page.locator("#sentence-link").locator("textarea, input").input_value() == page.url.replace("?view=api", "")


def test_next_word_and_another(visit, allow_list):
    page = visit("#kind=next&text=The+capital+of+France+is&target=+Paris&contrast=+One", kind="next")
    model = AutoMambaLRPForCausalLM.from_pretrained(json.loads(allow_list.read_text())[0]["id"])
    ex = model.explain("The capital of France is", target=" Paris", contrast=" One")
    assert marks(page, "next") == words(ex)
    assert "What speaks for “Paris” rather than “One”?" in page.locator("#next-answer").inner_text()
    assert page.locator("#next-answer .chances li").count() == 5
    shot(page, "next-word")
    assert barriers(page) == []
    before = page.locator("#next-answer").inner_html()
    panel(page).get_by_label("Explain the next word").fill(" of")
    panel(page).get_by_label("Explain the next word").press("Enter")
    changed(page, before, "next")
    assert "What speaks for “of” rather than “One”?" in page.locator("#next-answer").inner_text()


def test_generated_tokens_light_up_what_spoke_for_them(visit, allow_list):
    asked = "#kind=generation&text=The+capital+of&tokens=5&level=token&contrast=runner-up"
    page = visit(asked, kind="generation", size="phone", touch=True)
    model = AutoMambaLRPForCausalLM.from_pretrained(json.loads(allow_list.read_text())[0]["id"])
    ex = model.explain_generation("The capital of", max_new_tokens=5, contrast="runner-up")
    steps = ex.generated(0)
    answer = page.locator("#generation-answer")
    total, option = answer.locator(".sum b"), answer.locator("[role=option]")

    def is_lit(explained):
        shown = answer.locator(".before .w").evaluate_all("all => all.map(w => w.title.split(': ')[1].split(' (')[0])")
        assert shown == [signed(value) for value in explained.relevance[0, : ex.prompt_length].tolist()]
        assert total.inner_text().split(" (gap")[0] == str(explained.conservation).split(" (gap")[0]

    is_lit(ex.span())
    option.nth(2).tap()
    is_lit(ex.step(2))
    page.keyboard.press("Shift+ArrowRight")
    is_lit(ex.span(2, 4))
    rows = answer.locator(".map tbody tr").evaluate_all("all => all.map(r => [...r.cells].slice(1).map(c => c.title))")
    shown = [[float(number or 0) for number in row] for row in rows]
    peak = ex.relevance.abs().max().item()
    expected = ex.relevance[0, : len(steps), : ex.prompt_length + steps[-1]].tolist()
    assert shown == [pytest.approx(row, abs=peak / 40 + 0.0005) for row in expected], "what is too faint has no number"
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"][0]
    for scheme in ("light", "dark"):
        show_in(page, scheme)
        shot(page, f"generation-phone-{scheme}")
        assert barriers(page) == []
    page.set_viewport_size(dict(zip(("width", "height"), SIZES["desktop"], strict=True)))
    shot(page, "generation")
    with page.expect_download() as download:
        page.locator("#generation-json").click()
    loaded = GenerationExplanation.from_dict(json.loads(download.value.path().read_text()))
    assert loaded.relevance.equal(ex.relevance)


def test_hidden_attention_and_another_model(visit, demo):
    page = visit("#kind=attention&text=Not+a+bad+film&layer=2", kind="attention")
    rows = page.locator("table.heat tbody tr").evaluate_all(
        "all => all.map(r => [...r.cells].slice(1).map(c => c.title))"
    )
    expected = demo.hidden_attention("Not a bad film", layers=2).map(2)
    for i, row in enumerate(rows):
        assert [float(number) for number in row[: i + 1]] == pytest.approx(expected[i, : i + 1].tolist(), abs=0.00051)
        assert set(row[i + 1 :]) <= {""}
    shot(page, "attention")
    assert barriers(page) == []
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "queue/join" in request.url else None)
    with answered(page, "attention"):
        choose(page, "Model", LANGUAGE_MODEL)
    assert "Layer 0, of 0 to 1" in page.locator("#attention-answer h3").inner_text()
    with answered(page, "attention"):
        panel(page).get_by_label("Model").focus()
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
    assert "Layer 0, of 0 to 2" in page.locator("#attention-answer h3").inner_text()
    assert len(asked) == 2, "one choice is one question"


def test_two_lines_side_by_side(visit, demo):
    text = "A warm film with a dull end."
    page = visit(f"#kind=compare&text={text}&other_target=positive&other_method=mambalrp", kind="compare", size="phone")
    found = compare(demo.explain(text), demo.explain(text, target="positive"))
    assert found.names == ("negative", "positive")
    lines = page.locator("#compare-answer section").evaluate_all(
        "all => all.map(line => [...line.querySelectorAll('.w[tabindex]')].map(w => w.dataset.tip))"
    )
    words = found.words()
    assert lines == [[signed(word[side]) for word in words] for side in (1, 2, 3)]
    assert f"{found.agreement().spearman:.2f}" in page.locator("#compare-answer .agreement").inner_text()
    page.locator("#compare-answer .w[tabindex='0']").last.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.tip") == signed(words[1].difference)
    for scheme in ("dark", "light"):
        show_in(page, scheme)
        assert barriers(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"][0]
        shot(page, f"compare-phone-{scheme}")
    run = {}
    exec(page.locator("#compare-python textarea").input_value(), run)
    assert run["result"] == found
    page.set_viewport_size({"width": SIZES["desktop"][0], "height": SIZES["desktop"][1]})
    shot(page, "compare")


def a_document_shows_the_passages_that_mattered(page, demo):
    page.get_by_role("tab", name="Document").click()
    page.get_by_role("button", name="Find what mattered").click()
    page.wait_for_selector("#document-answer .passages")
    text = panel(page).locator("textarea").first.input_value()
    ex = demo.explain(text)
    strip = page.locator("#document-answer .strip a").evaluate_all("parts => parts.map(part => part.title)")
    total = sum(float(part.rpartition(": ")[2]) for part in strip)
    assert total == pytest.approx(ex.relevance.sum().item(), abs=0.03)
    shown = page.locator("#document-answer .passages li > a").all_inner_texts()
    sizes = [abs(float(number)) for number in shown]
    assert len(shown) == 5
    assert sizes == sorted(sizes, reverse=True)
    before = page.locator("#document-answer").inner_html()
    panel(page).get_by_role("radio", name="Words").check()
    changed(page, before, "document")
    listed = page.locator("#document-answer .passages li").all_inner_texts()
    assert listed == [f"{word.text} {signed(word.relevance)}" for word in ex.top(10)]
    shot(page, "document-words")
    assert barriers(page) == []
    before = page.locator("#document-answer").inner_html()
    panel(page).get_by_role("radio", name="Passages").check()
    changed(page, before, "document")
    shown = page.locator("#document-answer .passages li > a").all_inner_texts()
    assert shown == [signed(word.relevance) for word in ex.top(5, level="passage")]
    assert barriers(page) == []
    before = page.locator("#document-answer").inner_html()
    panel(page).get_by_role("radio", name="Sentences").check()
    changed(page, before, "document")
    page.wait_for_function("!location.hash.includes('level=')")  # the address follows the answer
    address = page.url
    page.locator("#document-answer .strip a").last.click()
    assert page.locator("#document-answer details").first.get_attribute("open") == ""
    reached = page.locator("#document-answer .reached")
    assert reached.inner_text().startswith("Still, I left the theatre happy")
    assert reached.evaluate("sentence => sentence === document.activeElement")
    assert page.url == address
    shot(page, "document")
    show_in(page, "dark")
    assert barriers(page) == []


def test_refusals_stand_where_the_answer_would_be_and_text_and_vocabulary_are_never_markup(visit):
    page = visit()
    for text, says in (
        ("   ", "There is no text yet"),
        ("long " * 401, "The text has 2,005 characters, and at most 2,000 are read here"),
    ):
        ask(page, text)
        assert says in page.locator("#sentence-answer [role=alert]").inner_text()
    attack = f"{MARKUP} <script>hacked=1</script> <b onmouseover=hacked=1>fine film</b> \u202eevil"
    ask(page, attack)
    assert page.locator("#sentence-answer").locator("img, script, b[onmouseover]").count() == 0
    assert "<script>hacked=1</script>" in page.locator("#sentence-answer .text").inner_text().replace("+", "").replace(
        "−", ""
    )
    shot(page, "hostile")
    page.get_by_role("tab", name="Next word").click()
    panel(page).get_by_label("Explain the next word").fill(MARKUP)
    markup_is_text(page, attack, "next")
    page.get_by_role("tab", name="Generate").click()
    markup_is_text(page, attack, "generation")
    page.get_by_role("tab", name="Attention").click()
    with answered(page, "attention"):  # which puts an example of that model into the page
        choose(page, "Model", LANGUAGE_MODEL)
    markup_is_text(page, attack, "attention")


def markup_is_text(page, attack, kind):
    panel(page).locator("textarea").first.fill(attack)
    panel(page).locator("button.primary").click()
    expect(page.locator(f"#{kind}-answer")).to_contain_text("<img", timeout=WAIT)
    assert page.locator(f"#{kind}-answer").locator("img, script").count() == 0
