"""The page of a generation in a browser: each token lights up what spoke for it, by mouse, keyboard and touch."""

import pytest
from results import long_generation

SEEN = """() => [document.querySelector('.asked').textContent, document.querySelector('.sum b').textContent,
  [...document.querySelectorAll('.before .w')].map(w => w.title.split(' (')[0]),
  [...document.querySelectorAll('.written .w')].flatMap((w, t) => w.classList.contains('lit') ? [t] : []),
  [...document.querySelectorAll('.map tbody tr')].flatMap((line, t) => line.classList.contains('lit') ? [t] : [])]"""


@pytest.fixture(scope="module")
def ex():
    return long_generation(30, 12)


@pytest.fixture
def visit(ex, tmp_path):
    """Open the page in a browser; nothing may be loaded for it, nor anything go wrong."""
    ex.to_html(tmp_path / "page.html")
    pages, loaded, broken = [], [], []

    def opened(browser, width=1280, scripts=True):
        page = browser.new_page()
        page.set_viewport_size({"width": width, "height": 800})
        page.on("request", lambda r: None if r.url.startswith(("data:", "file:")) else loaded.append(r.url))
        page.on("console", lambda message: broken.append(message.text))
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.context.new_cdp_session(page).send("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        page.goto((tmp_path / "page.html").as_uri())
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert (loaded, broken) == ([], [])


def lights(page, ex, start, stop):
    """What is lit is what the library says of these steps."""
    asked, total, words, lit, lines = page.evaluate(SEEN)
    span = ex.span(start, stop)
    of_prompt = ex.relevance[0, start:stop, : ex.prompt_length].sum(0)
    assert total == str(span.conservation)
    assert [float(word.rpartition(": ")[2]) for word in words] == pytest.approx(of_prompt.tolist(), abs=0.0005)
    assert lit == lines == list(range(start, stop))
    name = ex.tokens[0][ex.prompt_length + start].strip()
    assert asked.startswith(f"“{name}”: score" if stop - start == 1 else "Why “" if stop - start < 12 else "Why all 12")
    top = span.top(8, level="token")
    shown = page.locator(".sums tbody tr").evaluate_all(
        "all => all.map(r => [...r.cells].map(c => c.innerText.trim()))"
    )
    assert [abs(float(line[1])) for line in shown[: len(top)]] == [abs(word.relevance) for word in top]
    assert shown[0][2] == f"{abs(top[0].relevance) / span.relevance.abs().sum().item():.1%}"


def barriers(page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [(v["id"], [node["html"][:160] for node in v["nodes"][:3]]) for v in found]


def test_tokens_light_up_by_mouse_and_keyboard(browser, visit, ex):
    page = visit(browser)
    option, lines, listed = page.locator("[role=option]"), page.locator(".map tbody th"), "aria-selected"
    assert page.locator(".choices").is_visible()
    assert not page.locator(".still").is_visible()
    option.nth(3).hover()
    lights(page, ex, 3, 4)
    lines.nth(7).hover()
    lights(page, ex, 7, 8)
    page.mouse.move(0, 0)
    lights(page, ex, 0, 12)
    option.nth(2).click()
    page.mouse.move(0, 0)
    lights(page, ex, 2, 3)
    option.nth(5).click(modifiers=["Shift"])
    lights(page, ex, 2, 6)
    option.nth(9).hover()
    page.mouse.down()
    option.nth(8).hover()
    option.nth(7).hover()
    page.mouse.up()
    page.mouse.move(0, 0)
    lights(page, ex, 7, 10)
    assert option.evaluate_all(f"all => all.flatMap((o, t) => o.getAttribute('{listed}') === 'true' ? [t] : [])") == [
        *(7, 8, 9),
    ]
    second = ex.sentences()[1]
    page.get_by_role("button", name="Sentence 2").click()
    lights(page, ex, second.start, second.stop)

    page.reload()
    for _ in range(2):
        page.keyboard.press("Tab")  # the prompt, which scrolls, then the tokens
    lights(page, ex, 0, 1)
    for key, start, stop in (
        ("ArrowRight", 1, 2), ("ArrowDown", 2, 3), ("Shift+ArrowRight", 2, 4), ("Shift+ArrowRight", 2, 5),
        ("ArrowLeft", 3, 4), ("End", 11, 12), ("ArrowRight", 11, 12), ("Shift+ArrowLeft", 10, 12), ("Home", 0, 1),
        ("Control+a", 0, 12), ("Enter", 0, 1), ("Escape", 0, 12),
    ):  # fmt: skip
        page.keyboard.press(key)
        lights(page, ex, start, stop)
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert barriers(page) == []


def test_tokens_light_up_on_a_phone(phone, visit, ex):
    page = visit(phone, 390)
    option = page.locator("[role=option]")
    option.nth(4).tap()
    lights(page, ex, 4, 5)
    page.get_by_role("button", name="Up to the next one").tap()
    option.nth(6).tap()
    lights(page, ex, 4, 7)
    option.nth(1).tap()
    lights(page, ex, 1, 2)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    heights = page.locator(".choices button").evaluate_all("all => all.map(b => b.offsetHeight)")
    assert min(heights) >= 24, "large enough for a finger"
    assert barriers(page) == []


def test_without_scripts_the_sum_and_the_map_are_there(browser, visit, ex):
    page = visit(browser, scripts=False)
    assert not page.locator(".choices").is_visible()
    assert "Shown is the sum over all generated tokens" in page.inner_text("main")
    assert str(ex.span().conservation) in page.inner_text("main")
    assert page.locator(".map tbody tr").count() == 12
    assert page.locator(".map td[title]").first.is_visible()
