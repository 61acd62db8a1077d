"""What the tests of the page share: how it is asked, and how its answer is read."""

from contextlib import contextmanager

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from space_server import SHOTS

from hf_mambalrp.viz.wording import signed

PRAISE = "The plot is thin, but the cast is warm and the ending is simply wonderful."
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
WAIT = 90_000
"""Milliseconds until what a test waits for has to be there: nobody waits for it on a quiet machine."""


POLLING = 100
"""Milliseconds between two looks: at every frame they would be most of what the browser does."""


def panel(page):
    return page.locator("[role=tabpanel]:not([inert]):visible")


def ask(page, text, button="Explain", kind="sentence"):
    """Type a text, press the button, wait for its answer."""
    before = page.locator(f"#{kind}-answer").inner_html()
    panel(page).locator("textarea").first.fill(text)
    panel(page).get_by_role("button", name=button, exact=True).click()
    changed(page, before, kind)


def choose(page, label, name):
    """Choose from a list of options, and wait until it is closed: the next list may have the same names."""
    panel(page).get_by_label(label).click()
    page.get_by_role("option", name=name).click()
    expect(page.get_by_role("option")).to_have_count(0, timeout=WAIT)


def changed(page, before, kind="sentence"):
    page.wait_for_function(
        "([id, before]) => { const now = document.getElementById(id).innerHTML;"
        " return now !== before && now.includes('answer') && !document.querySelector('#' + id + ' .wrap:not(.hide)') }",
        arg=[f"{kind}-answer", before],
        polling=POLLING,
    )


def marks(page, kind="sentence"):
    """Text and number of every word, as a screen reader gets them."""
    return [
        tuple(label.rsplit(", ", 1)[0].rsplit(": ", 1))
        for label in page.locator(f"#{kind}-answer .text .w").evaluate_all("all => all.map(w => w.ariaLabel)")
    ]


def words(ex, level="word"):
    return [(word.text.strip(), signed(word.relevance)) for word in ex.words(level=level)]


@contextmanager
def answered(page, kind="sentence"):
    """Do something, and wait for the answer to it."""
    before = page.locator(f"#{kind}-answer").inner_html()
    yield
    changed(page, before, kind)


def show_in(page, scheme):
    """As somebody sees the page that is open in the dark, or by day."""
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function(
        "dark => document.body.classList.contains('dark') === dark", arg=scheme == "dark", polling=POLLING
    )
    settled(page)


def settled(page):
    """Wait for colours and places that fade from one to another."""
    page.wait_for_function("document.getAnimations().every(one => !(one instanceof CSSTransition))")


def take_away(page):
    """Open what can be taken away, where it is closed."""
    if not page.locator(".code textarea:visible").count():
        page.get_by_text("Take it with you").locator("visible=true").click()
        page.locator(".code textarea:visible").first.wait_for()


def barriers(page):
    """What axe finds that keeps people out, with everything open that can be opened."""
    take_away(page)
    for details in page.locator(".answer details").all():
        details.evaluate("d => d.open = true")
    settled(page)
    return [
        (v["id"], [node["html"][:160] + " // " + node["failureSummary"][:200] for node in v["nodes"][:3]])
        for v in Axe().run(page).response["violations"]
        if v["impact"] in ("serious", "critical")
    ]


def shot(page, name):
    """A picture for whoever makes the folder that it goes to."""
    if SHOTS.is_dir():
        page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def opened(page, link, kind, request):
    """What a tab of the page that was built does about a link when it opens with it: the rest by the names."""
    calls = [call for call in page.fns.values() if getattr(call.fn, "__name__", "") == "_open"]
    (call,) = [call for call in calls if f"{kind}-answer" in [part.elem_id for part in call.outputs]]
    return dict(zip([part.elem_id for part in call.outputs], call.fn(link, request), strict=True))
