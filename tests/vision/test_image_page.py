"""The page of a result on images in a browser: by keyboard, on a phone, in light and dark, and by axe's rules."""

from itertools import product

import pytest
import torch
from results import image_explanation

VIEWS = ["image", "¼", "½", "¾", "map"]
EXPECTED = {"image": ("1", "0"), "¼": ("0.7", "0.6"), "½": ("0.4", "0.9"), "¾": ("0.2", "1"), "map": ("0", "1")}
"""Opacities of the image and of the map over it."""


def two():
    torch.manual_seed(3)
    return image_explanation(
        torch.randn(2, 6, 6), patch_size=8, target_text=["boot", "a coat with a very long name " * 3]
    )


@pytest.fixture
def visit(browser, tmp_path):
    """Open the page of a result; nothing may be loaded for it, nor anything go wrong."""
    two().to_html(tmp_path / "two.html")
    pages, loaded, broken = [], [], []

    def opened(width=1000, scheme="light"):
        page = browser.new_page()
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        page.on("request", lambda r: None if r.url.startswith(("data:", "file:")) else loaded.append(r.url))
        page.on("console", lambda message: broken.append(message.text))
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto((tmp_path / "two.html").as_uri())
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert (loaded, broken) == ([], [])


def seen(page, number):
    """Opacities of an image and its map, as they are drawn."""
    return tuple(
        page.locator(".stage")
        .nth(number)
        .locator("img")
        .evaluate_all("all => all.map(i => getComputedStyle(i).opacity)")
    )


def test_images_are_there_and_lie_on_each_other(visit):
    page = visit()
    sizes = page.locator(".stage img").evaluate_all(
        "all => all.map(i => [i.complete, i.naturalWidth, i.naturalHeight])"
    )
    assert sizes == [[True, 48, 48], [True, 480, 480]] * 2
    for stage in page.locator(".stage").all():
        image, over = (one.bounding_box() for one in stage.locator("img").all())
        assert image == over
        assert image["width"] == image["height"] > 300


def test_views_go_by_arrow_keys_each_picture_for_itself(visit):
    page = visit()
    assert seen(page, 0) == seen(page, 1) == EXPECTED["½"]
    for _ in range(3):  # two rows in the index
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "radio"
    for key, view in (("ArrowRight", "¾"), ("ArrowRight", "map"), ("ArrowRight", "image"), ("ArrowLeft", "map")):
        page.keyboard.press(key)
        assert seen(page, 0) == EXPECTED[view]
        assert page.evaluate("document.activeElement.closest('label').innerText") == view
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "where the focus is can be seen"
    before = page.url
    page.keyboard.press("Enter")
    assert page.url == before
    assert seen(page, 0) == EXPECTED["map"]
    assert seen(page, 1) == EXPECTED["½"]
    for view in VIEWS:
        page.locator("form").nth(1).get_by_label(view).check()
        assert seen(page, 1) == EXPECTED[view]
    assert seen(page, 0) == EXPECTED["map"]


@pytest.mark.parametrize("width", [1000, 390, 320])
def test_nothing_is_wider_than_the_page(visit, width):
    page = visit(width)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for box in page.locator(".views label").evaluate_all("all => all.map(l => l.getBoundingClientRect().toJSON())"):
            assert min(box["width"], box["height"]) >= 24, "large enough for a finger"


def test_accessibility(visit):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = visit()
    for width, scheme in product((1000, 390), ("light", "dark")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        found = axe.Axe().run(page).response["violations"]
        assert [(v["id"], [node["html"][:160] for node in v["nodes"][:3]]) for v in found] == [], (width, scheme)


def test_without_style_sheets_the_image_and_its_numbers_are_there(visit):
    page = visit()
    page.evaluate("document.querySelectorAll('style').forEach(style => style.remove())")
    assert page.locator(".stage img").first.is_visible()
    assert "is strongest in" in page.inner_text("main")
    page.locator("summary").first.click()
    assert "(centre)" in page.inner_text("main")
