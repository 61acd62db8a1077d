"""The tab of pictures: examples, files of a visitor's own, what is refused, and what can be taken away."""

import base64
import io
import json
import struct
import zlib
from pathlib import Path
from urllib.parse import urlencode

import hostile
import numpy as np
import pytest
from gradio_client import Client
from PIL import Image
from playwright.sync_api import expect
from screen import SIZES, WAIT, answered, barriers, choose, panel, shot, show_in, take_away
from test_space_limits import ATTRIBUTES, TAGS, OwnMarkup, post
from test_space_use import answered_in_their_tabs

from hf_mambalrp import DEMO_VISION_MODEL
from hf_mambalrp.results.image_explanation import ImageExplanation
from hf_mambalrp.viz.wording import signed

PICTURES = f"{DEMO_VISION_MODEL}/scenes/pictures"
BOTH = f"{PICTURES}/bag_trouser.png"


class PictureMarkup(OwnMarkup):
    """Pictures that hold their data, and the buttons between image and map."""

    def handle_starttag(self, tag, attrs):
        more = {"form": {"method"}, "figure": set(), "figcaption": set(), "fieldset": set(), "legend": set()}
        more |= {
            "label": set(),
            "img": {"src", "alt", "width", "height"},
            "input": {"type", "name", "checked", "value"},
        }
        assert tag in TAGS | set(more), tag
        assert {name for name, _ in attrs} <= ATTRIBUTES | more.get(tag, set()), attrs
        assert all(value.startswith("data:image/png;base64,") for name, value in attrs if name == "src")


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def after(page, action):
    with answered(page, "image"):
        action()


def numbers(page):
    """The relevance of every patch, as its cell says it."""
    rows = page.locator("#image-answer table.heat tbody tr").evaluate_all(
        "all => all.map(r => [...r.cells].slice(1).map(c => c.title))"
    )
    return rows


def expected(ex):
    return [[signed(value) for value in row] for row in ex.relevance[0].tolist()]


def downloaded(page, form):
    with page.expect_download() as download:
        page.locator(f"#image-{form}").click()
    return download.value.suggested_filename, download.value.path().read_bytes()


def explanation(page):
    take_away(page)
    return ImageExplanation.from_dict(json.loads(downloaded(page, "json")[1]))


GIVE = """([event, data]) => {
  const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0)), files = new DataTransfer();
  files.items.add(new File([bytes], "a.png", { type: "image/png" }));
  const options = { bubbles: true, cancelable: true };
  document.querySelector(".drop").dispatchEvent(event === "drop"
    ? new DragEvent("drop", { ...options, dataTransfer: files })
    : new ClipboardEvent("paste", { ...options, clipboardData: files }));
}"""

# What is on the screen


@pytest.mark.parametrize(("size", "passed"), [("desktop", "light"), ("phone", "dark")])
def test_an_example_with_a_target_and_a_contrast(visit, demo_vision, size, passed):
    page = visit("#kind=image&picture=bag_trouser&target=bag&contrast=trouser", size, "image")
    ex = demo_vision.explain(BOTH, target="bag", contrast="trouser")
    assert "What speaks for bag rather than trouser?" in page.locator("#image-answer").inner_text()
    assert numbers(page) == expected(ex)
    preview, thumb = (
        page.locator(which).get_attribute("src") for which in (".drop img", "[data-picture=bag_trouser] img")
    )
    assert preview == thumb
    for scheme in ("light", "dark"):
        show_in(page, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0], "the page scrolls sideways"
        shot(page, f"picture-{size}-{scheme}")
    show_in(page, passed)
    assert barriers(page) == []
    shot(page, f"picture-open-{size}-{passed}")


def test_one_picture_after_another(visit, demo_vision, tmp_path, monkeypatch):
    page = visit("#kind=image&picture=bag", kind="image")
    by_keyboard_from_the_picture_to_the_map_and_its_numbers(page, demo_vision)
    which_view_is_chosen_can_be_seen(page)
    a_file_is_explained_as_it_is_and_nothing_is_left_on_the_server(page, demo_vision, tmp_path, monkeypatch)
    a_large_photo_on_its_side_is_made_small_and_upright(page, tmp_path)
    what_the_server_does_not_read_is_sent_as_what_the_browser_sees(page, demo_vision, tmp_path)
    a_picture_can_be_dropped_and_pasted(page, demo_vision)
    a_file_that_is_no_picture_is_answered_with_a_sentence(page, tmp_path)


def test_another_example_target_method_and_gamma(visit, demo_vision):
    page = visit("#kind=image&picture=bag", kind="image")
    assert panel(page).get_by_label("Gamma").first.is_visible()
    after(page, page.get_by_role("button", name="Bag and trouser").click)
    after(page, lambda: choose(page, "Explain the score of", "trouser"))
    after(page, lambda: choose(page, "rather than", "bag"))
    assert numbers(page) == expected(demo_vision.explain(BOTH, target="trouser", contrast="bag"))
    slider = panel(page).get_by_role("slider")
    slider.focus()
    after(page, lambda: slider.press("Home"))
    assert numbers(page) == expected(demo_vision.explain(BOTH, target="trouser", contrast="bag", gamma=0))
    after(page, lambda: choose(page, "Method", "Gradient × Input"))
    ex = demo_vision.explain(BOTH, target="trouser", contrast="bag", method="gradient_x_input")
    assert numbers(page) == expected(ex)
    slider.wait_for(state="hidden")


def by_keyboard_from_the_picture_to_the_map_and_its_numbers(page, demo_vision):

    def tab_to(selector):
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("(s) => document.activeElement.matches(s)", selector):
                return
        pytest.fail(f"no way by Tab to {selector}")

    page.locator("[role=tab][aria-selected=true]").focus()
    tab_to("#picture-file")
    tab_to("[data-picture=trouser]")
    after(page, lambda: page.keyboard.press("Enter"))
    ex = demo_vision.explain(f"{PICTURES}/trouser.png")
    assert numbers(page) == expected(ex)

    def opacities():
        return page.locator("#image-answer .stage img").evaluate_all("all => all.map(i => getComputedStyle(i).opacity)")

    tab_to(".views input")
    seen = [opacities()]
    for _ in range(2):
        page.keyboard.press("ArrowRight")
        seen.append(opacities())
    assert seen[-1] == ["0", "1"], "the map alone"
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    assert opacities() == ["1", "0"], "the image alone"
    page.locator("summary", has_text="patch by patch").focus()
    page.keyboard.press("Enter")
    tab_to(".heat td")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    value = ex.relevance[0, 1, 1].item()
    assert page.locator("#image-answer .read").inner_text() == f"1 / 1: {signed(value)}"


def test_what_is_pressed_on_a_phone_is_large_enough(visit):
    page = visit("#kind=image&picture=bag", "phone", "image", touch=True)
    pressed = page.locator(".thumb:visible, .drop:visible, .views label:visible, #image-answer summary:visible")
    sizes = pressed.evaluate_all("all => all.map(b => [b.className, b.offsetWidth, b.offsetHeight])")
    assert len(sizes) >= 6 + 1 + 5 + 2
    assert [size for size in sizes if min(size[1:]) < 24] == []
    after(page, page.locator("[data-picture=trouser]").tap)
    page.locator(".views label", has_text="map").tap()
    assert page.locator("#image-answer .stage .over").evaluate("i => getComputedStyle(i).opacity") == "1"


def which_view_is_chosen_can_be_seen(page):
    """What is seen of a button that is chosen is not what is seen of the others."""
    for scheme in ("dark", "light"):
        show_in(page, scheme)
        looks = []
        for number in (0, 1):
            page.locator(".views input").nth(number).check()
            page.mouse.move(0, 0)
            looks.append([page.locator(".views input").nth(n).screenshot(animations="disabled") for n in (0, 1)])
        assert looks[0][0] != looks[1][0]
        assert looks[0][1] != looks[1][1]


# A visitor's own file


def a_file_is_explained_as_it_is_and_nothing_is_left_on_the_server(page, demo_vision, tmp_path, monkeypatch):
    path = tmp_path / "my photo.png"
    Image.open(BOTH).convert("RGBA").save(path)
    after(page, lambda: page.locator("#picture-file").set_input_files(path))
    ex = demo_vision.explain(path)
    assert numbers(page) == expected(ex)
    assert page.locator(".drop img").get_attribute("src").startswith("data:image/png;base64,")
    found = explanation(page)
    assert found.relevance.equal(ex.relevance)
    name, data = downloaded(page, "picture")
    assert (name, data) == ("picture.png", path.read_bytes())
    assert page.locator("#image-link").locator("textarea, input").input_value() == "", "no link holds a file"
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(data)
    run = {}
    exec(page.locator("#image-python textarea").input_value(), run)
    assert run["result"].to_json() == found.to_json()
    assert downloaded(page, "html")[1].startswith(b"<!DOCTYPE html>")
    assert downloaded(page, "png")[1].startswith(b"\x89PNG")


def quarters(width, height):
    """Red, green, blue and yellow from the upper left clockwise, with noise that no file makes small."""
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3), dtype=np.uint8)
    corners = np.array([[[200, 0, 0], [0, 200, 0]], [[180, 180, 0], [0, 0, 200]]], np.uint8)
    return Image.fromarray(noise + corners.repeat(height // 2, 0).repeat(width // 2, 1))


def a_large_photo_on_its_side_is_made_small_and_upright(page, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    shown = quarters(1600, 1600)
    shown.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", quality=95, exif=exif)
    assert (tmp_path / "a.jpg").stat().st_size > 10**6
    after(page, lambda: page.locator("#picture-file").set_input_files(tmp_path / "a.jpg"))
    found = explanation(page)
    corners = [found.images[0, y, x].tolist() for y, x in ((8, 8), (8, 55), (55, 55), (55, 8))]
    assert np.abs(np.subtract(corners, [[230, 30, 30], [30, 230, 30], [30, 30, 230], [210, 210, 30]])).max() < 40
    name, data = downloaded(page, "picture")
    assert name == "picture.jpeg"
    assert len(data) < 400_000


def what_the_server_does_not_read_is_sent_as_what_the_browser_sees(page, demo_vision, tmp_path):
    Image.open(BOTH).save(tmp_path / "a.bmp")
    after(page, lambda: page.locator("#picture-file").set_input_files(tmp_path / "a.bmp"))
    found, ex = explanation(page), demo_vision.explain(BOTH)
    assert downloaded(page, "picture")[0] == "picture.jpeg"
    assert (found.images.int() - ex.images.int()).abs().float().mean() < 5


def a_picture_can_be_dropped_and_pasted(page, demo_vision):
    for event, name in (("drop", "trouser"), ("paste", "bag_trouser")):
        data = base64.b64encode(Path(PICTURES, f"{name}.png").read_bytes()).decode()
        after(page, lambda event=event, data=data: page.evaluate(GIVE, [event, data]))
        assert numbers(page) == expected(demo_vision.explain(f"{PICTURES}/{name}.png"))


def a_file_that_is_no_picture_is_answered_with_a_sentence(page, tmp_path):
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>hacked=1</script></svg>"
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(10**6)
    for name, data, says in (
        ("a.heic", heic, "The picture is HEIC, a format that is not read"),
        ("a.svg", svg, "The picture is SVG"),
        ("a.txt", b"no picture", "The picture is of no format that is read, or damaged"),
        ("empty.png", b"", "The picture is an empty file"),
    ):
        (tmp_path / name).write_bytes(data)
        after(page, lambda name=name: page.locator("#picture-file").set_input_files(tmp_path / name))
        assert says in page.locator("#image-answer [role=alert]").inner_text()


TAMPERED = {
    "https://example.org/a.png": "sent as base64",
    "": "no picture yet",
    "javascript:hacked=1": "sent as base64",
    "data:text/html;base64,PHNjcmlwdD5oYWNrZWQ9MTwvc2NyaXB0Pg==": "no format that is read",
    '"><img src=x onerror=hacked=1>': "sent as base64",
    "../../config": "sent as base64",
}


def test_a_tampered_link_is_answered_in_its_tab(visit, space):
    """One in a browser, where the page's script then asks about others as about a file; all as the page opens."""
    first, *others, _ = TAMPERED
    page = visit("#" + urlencode({"kind": "image", "picture": first}), kind="image")
    assert page.locator("#image-answer").is_visible()
    for value in (first, *others):  # each is answered otherwise than the one before it
        if value != first:
            page.evaluate("value => askAbout(value)", value)
        expect(page.locator("#image-answer [role=alert]")).to_contain_text(TAMPERED[value], timeout=WAIT)
    links = [urlencode({"kind": "image", "picture": value}) for value in TAMPERED]
    answered_in_their_tabs(space, [(link, "image", says) for link, says in zip(links, TAMPERED.values(), strict=True)])


def test_a_link_restores_every_choice(visit, space, demo_vision, server):
    choices = {"target": "trouser", "contrast": "bag", "gamma": 0.5}
    _, query, _ = space.shown(None, kind="image", picture="bag_trouser", **choices)
    page = visit(f"#{query}", kind="image")
    expect(panel(page).get_by_role("slider")).to_have_value("0.5", timeout=WAIT)
    assert numbers(page) == expected(demo_vision.explain(BOTH, **choices))
    page.get_by_text("Take it with you").locator("visible=true").click()
    link = page.locator("#image-link").locator("textarea, input").input_value()
    assert link == page.url == f"{server.url}#{query}"


# Without a browser


def bomb(side):
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes((side // 8 + 2) * side), 9)
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode()


def several():
    return encoded(Image.new("L", (9, 9)), "GIF", save_all=True, append_images=[Image.new("L", (9, 9), 7)])


REFUSED = {
    "bomb": (lambda: bomb(4000), "has more than 4.1943 million pixels"),
    "bomb beyond Pillow's limit": (lambda: bomb(20_000), "has more than 4.1943 million pixels"),
    "strip": (lambda: encoded(Image.new("L", (5000, 1))), "is 5000 x 1 pixels"),
    "animation": (several, "has several frames or pages"),
    "half a picture": (lambda: encoded(Image.open(BOTH))[:3000], "is damaged, incomplete or closed"),
    "no base64": (lambda: "what is this?", "A picture is sent as base64"),
    "no picture": (lambda: base64.b64encode(b"no picture").decode(), "is of no format that is read"),
    "nothing": (lambda: "", "There is no picture yet"),
    "path": (lambda: "/etc/passwd", "A picture is sent as base64"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_page_and_the_api_refuse_alike(space, server, case):
    make, says = REFUSED[case]
    given = make()
    html, query, code = space.shown(None, kind="image", picture=given)
    assert says in html
    assert "Image.open" not in html, "a visitor has no Python"
    assert (query, code) == ("", "")
    PictureMarkup().feed(html)
    with pytest.raises(Exception, match=says):
        Client(server.url, verbose=False).predict(given, api_name="/explain_image")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"gamma": "much"}, "“gamma” can be a number from 0 to 1"),
        ({"gamma": "nan"}, "“gamma” can be a number from 0 to 1"),
        ({"gamma": 1.5}, "“gamma” can be a number from 0 to 1"),
        ({"target": "hat"}, "is no class of this model"),
        ({"method": "latim"}, "one direction"),
        ({"model": "Film reviews: positive or negative"}, "cannot answer this"),
        ({"kind": "sentence", "text": "a", "model": "Scenes of clothes: ten garments"}, "cannot answer this"),
    ],
)
def test_values_that_are_not_allowed(space, values, says):
    html, _, _ = space.shown(None, **{"kind": "image", "picture": "bag", **values})
    assert says in html
    PictureMarkup().feed(html)


def test_hostile_values(space):
    for value in hostile.inputs()[::4]:
        for name in ("picture", "gamma", "target", "contrast", "method", "model"):
            html, _, _ = space.shown(None, **{"kind": "image", "picture": "bag", name: value})
            PictureMarkup().feed(html)
            html.encode("utf-8")


def test_the_api_takes_base64_and_names(server, demo_vision):
    client = Client(server.url, verbose=False)
    ex = demo_vision.explain(BOTH, target="bag", contrast="trouser", gamma=0)
    with open(BOTH, "rb") as file:
        text = base64.b64encode(file.read()).decode()
    options = {"target": "bag", "contrast": "trouser", "gamma": 0, "api_name": "/explain_image"}
    for given in ("bag_trouser", text, f"data:image/png;base64,{text}"):
        found = client.predict(given, **options)
        assert ImageExplanation.from_dict(found["result"]).relevance.equal(ex.relevance)
        assert found["probabilities"]["bag"] == pytest.approx(ex.probability.item(), rel=1e-5)
    assert len(found["probabilities"]) == 5
    assert found["result"]["sources"] == ["picture.png"]


def test_a_picture_that_is_larger_than_a_request_may_be_is_refused(server):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8))
    status, said = post(server, "explain_image", [encoded(noise), "", "", "mambalrp", 0.25, ""])
    assert status == 413
    assert "a smaller picture" in said


def test_what_the_page_sends_at_most_fits_into_a_request(space):
    body = json.dumps(
        {"data": ["m" * 100, "data:image/jpeg;base64," + "A" * (space.limits.picture_bytes * 4 // 3), *["t" * 100] * 4]}
    )
    assert 0.7 * space.limits.body_bytes < len(body) + 1000 < space.limits.body_bytes


@pytest.mark.parametrize(
    "method", ["mambalrp", "lrp_ln", "occlusion", "raw_attention", "attention_rollout", "mamba_attribution", "random"]
)
def test_methods(space, demo_vision, method):
    html, _, code = space.shown(None, kind="image", picture="trouser", method=method)
    PictureMarkup().feed(html)
    assert 'class="picture"' in html
    assert f"method={method!r}" in code
    assert ("gamma=" in code) == (method == "mambalrp")


def test_every_method_that_is_offered_can_answer(space, demo_vision):
    from hf_mambalrp.methods import METHODS
    from hf_mambalrp.space.question import PICTURE_METHODS

    assert set(METHODS) - set(PICTURE_METHODS) == {"latim"}


def test_names_of_classes_are_never_markup(space, monkeypatch):
    from hf_mambalrp.space.catalog import PACKAGED_VISION

    model, _ = space.catalog.get(PACKAGED_VISION.title)
    attack = "<img src=x onerror=hacked=1>"
    monkeypatch.setattr(model.config, "id2label", {i: f"{attack} {i}" for i in range(10)})
    space.answers.kept.cache_clear()
    space.written.cache_clear()
    html, _, _ = space.shown(None, kind="image", picture="bag")
    space.answers.kept.cache_clear()
    space.written.cache_clear()
    PictureMarkup().feed(html)
    assert attack not in html
    assert "&lt;img src=x" in html


def test_a_model_of_pictures_on_the_list(tmp_path):
    """Beside the packaged one, with classes and a processor of its own."""
    import torch

    from hf_mambalrp import VimConfig, VimLRPForImageClassification
    from hf_mambalrp.models.vim.processor import image_processor
    from hf_mambalrp.space.catalog import read_allow_list
    from hf_mambalrp.space.serve import App

    torch.manual_seed(0)
    config = VimConfig(image_size=32, patch_size=8, stride=4, hidden_size=16, num_hidden_layers=1, num_labels=3)
    model = VimLRPForImageClassification(config)
    model.save_pretrained(tmp_path)
    image_processor(config, image_mean=[0.1] * 3).save_pretrained(tmp_path)
    (tmp_path / "models.json").write_text(
        json.dumps([{"id": str(tmp_path), "title": "Mine", "task": "image-classification"}])
    )
    app = App(read_allow_list(tmp_path / "models.json"))
    html, _, code = app.shown(None, kind="image", picture="bag", target="LABEL_2")
    run = {}
    exec(code, run)
    assert str(run["result"].conservation.score[0].item())[:5] in html
    assert run["result"].relevance.shape == (1, 7, 7)
    found = json.loads(
        base64.b64decode(json.loads(app.downloaded(None, "json", kind="image", picture="bag", target="LABEL_2"))[2])
    )
    assert ImageExplanation.from_dict(found).relevance.equal(run["result"].relevance)


def test_without_a_model_of_pictures_there_is_no_tab():
    from hf_mambalrp.space.catalog import PACKAGED
    from hf_mambalrp.space.page import build
    from hf_mambalrp.space.serve import App

    app = App([PACKAGED])
    labels = [
        part["props"].get("label") for part in build(app).get_config_file()["components"] if part["type"] == "tabitem"
    ]
    assert "Picture" not in labels
    assert "Sentence" in labels
    html, _, _ = app.shown(None, kind="image", picture="bag")
    assert "No image model is configured for this Space" in html
