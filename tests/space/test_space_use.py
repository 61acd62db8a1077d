"""Phones, keyboards, links and the way back: the page as different people use it."""

import pytest
from playwright.sync_api import expect
from screen import PRAISE, SIZES, WAIT, changed, choose, marks, panel, shot
from space_server import LANGUAGE_MODEL

from hf_mambalrp.viz.wording import signed


def test_the_number_of_a_word_is_one_line(visit):
    page = visit(size="phone", touch=True)
    word = page.locator("#sentence-answer .text .w").first
    word.tap()
    box = word.evaluate("w => { const s = getComputedStyle(w, '::after'); return [s.width, s.height].map(parseFloat) }")
    assert box[0] > box[1], "a short word squeezes its number into a column"
    shot(page, "tip-phone")


def test_cells_say_their_number_by_keyboard_and_touch(visit, demo):
    page = visit("#view=layers&text=" + PRAISE, size="phone", touch=True)
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


def test_words_of_a_table_stay_whole_on_a_phone(visit):
    page = visit("#view=methods&compared=mambalrp,gradient_x_input,integrated_gradients&text=" + PRAISE, size="phone")
    heights = page.locator(".answer .wide tbody th").evaluate_all("all => all.map(c => c.offsetHeight)")
    assert max(heights) == min(heights), "a word is broken over lines"
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"][0]
    shot(page, "methods-phone")


def test_what_is_pressed_is_large_enough(visit):
    page = visit(size="phone", touch=True)
    page.get_by_text("Take it with you").first.click()
    buttons = page.locator(".chips button:visible, .code button:visible")
    buttons.nth(8).wait_for()  # the page puts them in one after another
    sizes = buttons.evaluate_all("all => all.map(b => [b.innerText || b.ariaLabel, b.offsetWidth, b.offsetHeight])")
    assert len(sizes) >= 9
    assert [size for size in sizes if min(size[1:]) < 24] == []


def test_the_first_screen_has_its_link(visit, server):
    page = visit()
    page.get_by_text("Take it with you").first.click()
    link = page.locator("#sentence-link").locator("textarea, input").input_value()
    assert link.startswith(server.url + "#text=The+plot")
    other = visit(link.removeprefix(server.url))
    assert marks(other) == marks(page)


def test_links_of_long_documents_survive_a_reload(visit):
    """The text is behind the #, so no server has to take an address of its length."""
    text = "Тёплый, но скучный фильм. " * 150
    page = visit()
    page.get_by_role("tab", name="Document").click()
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


def test_another_link_in_the_same_tab_and_the_way_back(visit, server):
    page = visit("#text=A+dull+film")
    page.goto(server.url + "#text=A+warm+film")
    page.wait_for_function("document.querySelector('#sentence-answer .text')?.innerText.includes('warm')")
    page.go_back()
    page.wait_for_function("document.querySelector('#sentence-answer .text')?.innerText.includes('dull')")


def test_gradios_own_query_is_left_alone(visit):
    page = visit("?view=api#text=A+dull+film&view=layers")
    assert page.locator("#sentence-answer table.heat").count() == 1
    assert "?view=api#" in page.url


@pytest.mark.parametrize(
    ("link", "kind", "says"),
    [
        ("#kind=other&text=a", "sentence", "can be sentence, next"),
        ("#kind=attention&layer=-1&text=a", "attention", "a whole number from 0 to"),
        ("#kind=attention&layer=7&text=a", "attention", "a whole number from 0 to 2 for this model"),
        ("#model=/etc/passwd&text=a", "sentence", "not one of this Space"),
        ("#view=methods&compared=&text=a", "sentence", "Choose at least one method"),
        ("#compared=<script>hacked=1</script>&text=a", "sentence", "methods that can be compared are"),
        ("#%ff%00=%zz&text=%ed%a0%80", "sentence", "What speaks for"),
    ],
)
def test_a_tampered_link_is_answered_in_its_tab(visit, link, kind, says):
    page = visit(link, kind=kind)
    assert says in page.locator(f"#{kind}-answer").inner_text()
    assert page.locator(f"#{kind}-answer").is_visible()


def test_an_empty_tab_says_what_it_is_for(visit):
    page = visit()
    for name in ("Picture", "Next word", "Generate", "Attention", "Document"):
        page.get_by_role("tab", name=name).click()
        button = panel(page).locator("button.primary").inner_text()
        assert f"Press “{button}” to see" in panel(page).inner_text()


def test_another_model_and_another_target_are_answered_at_once(visit):
    page = visit("#kind=attention&text=Not+bad&layer=1", kind="attention")
    before = page.locator("#attention-answer").inner_html()
    choose(page, "Model", LANGUAGE_MODEL)
    changed(page, before, "attention")
    assert "Layer 0, of 0 to 1" in page.locator("#attention-answer h3").inner_text()
    page = visit("#kind=next&text=The+capital+of", kind="next")
    before = page.locator("#next-answer").inner_html()
    panel(page).get_by_label("Explain the next word").fill(" Paris")
    panel(page).get_by_label("Explain the next word").press("Enter")
    changed(page, before, "next")
    assert "What speaks for Paris" in page.locator("#next-answer h3").inner_text().replace("“", "").replace("”", "")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_blue_and_solid_is_for_red_and_dashed_against(visit, scheme):
    """What is seen, not which class it has: colour, line and, where it is strong, a sign."""
    page = visit("#text=A+warm+and+lovely+film+with+a+dull+end.", color_scheme=scheme)
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
    cells = visit("#view=layers&text=A+warm+and+lovely+film+with+a+dull+end.", color_scheme=scheme)
    sides = cells.locator("#sentence-answer .heat td").evaluate_all(
        """all => all.map(c => { const below = getComputedStyle(c.firstChild).borderBottomStyle;
           return [Number(c.title), getComputedStyle(c).backgroundImage + below] })"""
    )
    strong = [(value, drawn) for value, drawn in sides if abs(value) > 0.1]
    assert {value > 0 for value, _ in strong} == {True, False}
    assert all(("dashed" in drawn or "gradient" in drawn) == (value < 0) for value, drawn in strong)
