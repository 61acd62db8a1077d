"""Phones, keyboards, links and the way back: the page as different people use it."""

from types import SimpleNamespace

import pytest
from playwright.sync_api import expect
from screen import PRAISE, SIZES, WAIT, answered, opened, panel, shot, take_away

from hf_mambalrp.viz.wording import signed


def test_on_a_phone_that_is_touched(visit, demo):
    page = visit(size="phone", touch=True)
    the_number_of_a_word_is_one_line_and_what_is_pressed_is_large_enough(page)
    with answered(page):
        panel(page).get_by_label("Layers").check()
    cells_say_their_number_by_keyboard_and_touch(page, demo)
    with answered(page):
        panel(page).get_by_label("Methods", exact=True).check()
    with answered(page):
        panel(page).get_by_label("Integrated Gradients").check()
    words_of_a_table_stay_whole(page)


def the_number_of_a_word_is_one_line_and_what_is_pressed_is_large_enough(page):
    word = page.locator("#sentence-answer .text .w").first
    word.tap()
    box = word.evaluate("w => { const s = getComputedStyle(w, '::after'); return [s.width, s.height].map(parseFloat) }")
    assert box[0] > box[1], "a short word squeezes its number into a column"
    shot(page, "tip-phone")
    take_away(page)
    buttons = page.locator(".chips button:visible, .code button:visible")
    buttons.nth(8).wait_for()  # the page puts them in one after another
    sizes = buttons.evaluate_all("all => all.map(b => [b.innerText || b.ariaLabel, b.offsetWidth, b.offsetHeight])")
    assert len(sizes) >= 9
    assert [size for size in sizes if min(size[1:]) < 24] == []


def cells_say_their_number_by_keyboard_and_touch(page, demo):
    page.mouse.move(0, 0)  # away from the cells: what lies under it is read, too
    ex = demo.explain(PRAISE, per_layer=True)
    names, last = [word.text for word in ex.words()], ex.layer_relevance[3, 0]

    def said(block, word):
        number = ex.words()[word]
        value = sum(ex.layer_relevance[block, 0][i].item() for i in number.tokens)
        return f"{f'block {block}' if block else 'embedding'} / {names[word]}: {signed(value)}"

    assert len(names) > 11, "cells without room for their numbers"
    assert last.sum().item() == pytest.approx(ex.score.item(), rel=1e-4)
    cells = page.locator("#sentence-answer .heat td")
    assert cells.evaluate_all("all => all.filter(c => c.tabIndex === 0).length") == 1
    cells.first.focus()
    line = page.locator("#sentence-answer .read")
    assert line.inner_text() == said(3, 0)
    for key, block, word in (("ArrowRight", 3, 1), ("ArrowDown", 2, 1), ("End", 2, -1), ("ArrowDown", 1, -1)):
        page.keyboard.press(key)
        assert line.inner_text() == said(block, word)
    page.keyboard.press("ArrowRight")
    assert line.inner_text() == said(1, -1), "there is nothing beyond the end"
    cells.nth(2).tap()
    assert line.inner_text() == said(3, 2)


def words_of_a_table_stay_whole(page):
    assert page.locator(".panels h4").count() == 3
    heights = page.locator(".answer .wide tbody th").evaluate_all("all => all.map(c => c.offsetHeight)")
    assert max(heights) == min(heights), "a word is broken over lines"
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"][0]
    shot(page, "methods-phone")


def test_empty_tabs_say_what_they_are_for_and_links_of_long_documents_survive_a_reload(visit):
    """The text is behind the #, so no server has to take an address of its length."""
    text = "Тёплый, но скучный фильм. " * 150
    page = visit()
    for name in ("Picture", "Next word", "Generate", "Attention", "Compare", "Document"):
        page.get_by_role("tab", name=name).click()
        button = panel(page).locator("button.primary").inner_text()
        assert f"Press “{button}” to see" in panel(page).inner_text()
    panel(page).locator("textarea").first.fill(text)
    page.get_by_role("button", name="Find what mattered").click()
    page.wait_for_selector("#document-answer .answer")
    page.wait_for_url("**/#kind=document*")
    asked = []
    page.on("request", lambda request: asked.append(len(request.url)))
    page.reload()
    page.wait_for_selector("#document-answer .passages")
    expect(panel(page).locator("textarea").first).to_have_value(text, timeout=WAIT)
    assert max(asked) < 500


def test_what_is_typed_into_a_tab_that_has_just_been_opened_stays(visit):
    """Where frames are slow: gradio gives fields what they begin with once more, a frame after it has shown them."""
    text = "A fine film. A dull end."
    page = visit()
    page.evaluate(
        "() => { const next = requestAnimationFrame; requestAnimationFrame = (f) => setTimeout(() => next(f), 500); }"
    )
    page.get_by_role("tab", name="Document").click()
    panel(page).locator("textarea").first.fill(text)
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert panel(page).locator("textarea").first.input_value() == text
    page.get_by_role("button", name="Find what mattered").click()
    page.wait_for_url("**/#kind=document*")
    assert "dull+end" in page.url


def test_what_is_typed_before_the_first_answer_stays(visit, server):
    text = "A fine film. A dull end."
    page = visit()
    field = panel(page).locator("textarea").first

    def typed_before(asked):
        field.fill(text)
        asked.continue_()

    page.route("**/queue/data*", typed_before, times=1)
    page.goto("about:blank")  # the address says what was asked
    page.goto(server.url)
    page.wait_for_selector("#sentence-answer .answer")
    assert field.input_value() == text


def test_another_link_in_the_same_tab_and_the_way_back(visit, server):
    page = visit("#text=A+dull+film")
    page.goto(server.url + "#text=A+warm+film")
    page.wait_for_function("document.querySelector('#sentence-answer .text')?.innerText.includes('warm')")
    page.go_back()
    page.wait_for_function("document.querySelector('#sentence-answer .text')?.innerText.includes('dull')")


TAMPERED = [
    ("kind=other&text=a", "sentence", "can be sentence, next"),
    ("kind=attention&layer=-1&text=a", "attention", "a whole number from 0 to"),
    ("kind=attention&layer=7&text=a", "attention", "a whole number from 0 to 2 for this model"),
    ("model=/etc/passwd&text=a", "sentence", "not one of this Space"),
    ("view=methods&compared=&text=a", "sentence", "Choose at least one method"),
    ("%ff%00=%zz&text=%ed%a0%80", "sentence", "What speaks for"),
    ("%ff%00=%zz&compared=<script>hacked=1</script>&text=a", "sentence", "methods that can be compared are"),
]


def test_what_a_tampered_link_asks_is_answered_in_its_tab(space):
    answered_in_their_tabs(space, TAMPERED)


@pytest.mark.parametrize("kind", ["sentence", "next", "attention", "compare", "image"])
def test_a_link_that_names_a_tab_alone_opens_it_as_it_begins(space, kind):
    answered_in_their_tabs(space, [(f"kind={kind}", kind, "hf_mambalrp 0.1.0")])


def answered_in_their_tabs(space, links):
    """By what the page calls when it opens with a link to a tab: it answers there alone."""
    from hf_mambalrp.space.page import build

    page = build(space)
    request = SimpleNamespace(client=SimpleNamespace(host="192.0.2.1"), headers={})
    for link, kind, says in links:
        answers = opened(page, f"#{link}", kind, request)
        assert says in answers[f"{kind}-answer"], link
        assert not [name for name in answers if str(name).endswith("-answer") and name != f"{kind}-answer"]


@pytest.mark.parametrize(("link", "kind", "says"), [TAMPERED[1], TAMPERED[-1]])
def test_a_tampered_link_is_answered_on_the_screen(visit, link, kind, says):
    page = visit(f"#{link}", kind=kind)
    assert says in page.locator(f"#{kind}-answer").inner_text()
    assert page.locator(f"#{kind}-answer").is_visible()
