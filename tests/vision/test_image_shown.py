"""How a result on images shows itself in every format: the same facts, the right colours, names that act on nothing."""

import re
import sys
from base64 import b64decode
from html import unescape
from io import BytesIO, TextIOWrapper

import numpy as np
import pytest
import torch
from markdown_it import MarkdownIt
from PIL import Image
from results import HOSTILE, conserved, image_explanation
from rich.console import Console
from test_viz_html import Page, channels, contrast
from test_viz_terminal import ACTING, ESCAPES

from hf_mambalrp.results.explanation import Conservation
from hf_mambalrp.viz import markdown
from hf_mambalrp.viz.colors import LIGHT
from hf_mambalrp.viz.document import Balance, Facts, Heading, Picture, Table
from hf_mambalrp.viz.picture import overlay
from hf_mambalrp.viz.picture_places import PLACES, where

BLUE, RED = channels(LIGHT.positive), channels(LIGHT.negative)


def hostile():
    return image_explanation(
        torch.ones(2, 3, 3),
        target_text=[HOSTILE] * 2,
        contrast=[3, 4],
        contrast_text=[HOSTILE] * 2,
        sources=[HOSTILE, f"../{HOSTILE}.png"],
        method=HOSTILE,
        model_id=HOSTILE,
        versions={HOSTILE: HOSTILE},
        gamma_on=(HOSTILE,),
    )


def pictures(source):
    """The images of a page, decoded."""
    uris = [attrs["src"] for tag, attrs in Page(source).elements if tag == "img"]
    assert all(uri.startswith("data:image/png;base64,") for uri in uris)
    return [np.array(Image.open(BytesIO(b64decode(uri.partition(",")[2])))) for uri in uris]


def test_a_result_is_blocks():
    (section,) = image_explanation(contrast=[0], contrast_text=["coat"]).document().sections
    assert [type(block) for block in section.blocks] == [Heading, Facts, Picture, Balance, Table]
    assert section.one(Heading).text == "What speaks for boot rather than coat?"
    assert section.one(Facts).pairs == (
        ("score (logit of boot minus coat)", "42.750"),
        ("probability of boot", "75.0%"),
        ("image", "photo 0.jpg"),
        ("map", "3 x 4 patches of 4 x 4 pixels"),
        ("gamma", "0.25 on conv1d"),
    )
    picture = section.one(Picture)
    assert picture.positive == "speaks for boot rather than coat"
    assert picture.negative == "speaks for coat rather than boot"
    assert picture.end == 9, "the strongest patch, where patches do not overlap"
    table = section.one(Table)
    assert [(patch.relevance, table.share(patch)) for patch in table.words[:2]] == [(9, "18.8%"), (8, "16.7%")]
    plain = image_explanation(gamma=0.0, gamma_on=(), sources=None, probability=None, target=[None])
    assert [name for name, _ in plain.document().sections[0].one(Facts).pairs] == ["score (boot)", "map"]


def test_a_document_of_some_rows_says_what_it_leaves_out():
    many = image_explanation(torch.ones(12, 2, 2))
    assert [(section.row, section.of) for section in many.document(rows=1).sections] == [(0, 12)]
    assert "2 more rows are not shown here" in Page(many._repr_html_()).text
    assert "Row 12 of 12" in Page(many.to_html()).text


def test_where_the_score_went():
    """42 of patches, 0.5 of the class token, 0.25 of biases."""
    balance = image_explanation().document().sections[0].one(Balance)
    assert balance.sum == "patches +42.000 + class token +0.500 + biases +0.250 = 42.750 of score 42.750 (gap 0.000)"
    assert balance.reading.startswith("Each number is a part of the score")
    assert balance.ending == ""
    relevance, tokens = torch.tensor([[[1.0, -2.0]]]), torch.tensor([[3.0, -0.5]])
    kept = Conservation(torch.tensor([4.0]), torch.tensor([1.5]), torch.tensor([0.25]))
    lost = image_explanation(
        relevance, class_relevance=tokens, conservation=kept, convergence_delta=torch.tensor([0.5])
    )
    assert lost.document().sections[0].one(Balance).sum == (
        "patches -1.000 + 2 class tokens +2.500 + biases +0.250 = 1.750 of score 4.000 (gap 2.250); "
        "convergence delta +0.500"
    )
    apart = image_explanation(relevance, class_relevance=tokens, conservation=kept, score=kept.score)
    assert "do not add up to it" in apart.document().sections[0].one(Balance).reading


@pytest.mark.parametrize(
    ("token", "says"), [(0.2, ""), (0.3, "23% of what makes up"), (-0.3, "23% of what"), (9.0, "90% of what makes up")]
)
def test_a_large_share_of_the_class_token_is_said_in_every_rendering(token, says):
    """Of patches 0.75 and biases 0.25."""
    ex = image_explanation(torch.tensor([[[1.75, -1.0]]]), class_relevance=torch.tensor([[token]]))
    for shown in (ex.to_text(width=300), unescape(ex.to_html()), unescape(markdown.body(ex.document()))):
        assert ("all images have in common" in shown) == bool(says)
        assert says in shown


def test_places_are_ninths_of_the_image():
    def places(rows, columns):
        grid = torch.zeros(rows, columns)
        for r in range(rows):
            for c in range(columns):
                one = grid.clone()
                one[r, c] = 1.0
                yield (r, c), re.search(r"strongest in the ([a-z ]+) \(100% of it\)", where(one, "a", "b"))[1]

    for rows, columns in ((3, 3), (14, 14), (8, 27), (1, 2)):
        for (r, c), found in places(rows, columns):
            expected = PLACES[int((r + 0.5) / rows * 3)][int((c + 0.5) / columns * 3)]
            assert found == expected, (rows, columns, r, c)
    assert [name for _, name in places(3, 3)] == [
        "top left", "top middle", "top right", "middle left", "centre", "middle right", "bottom left", "bottom middle",
        "bottom right",
    ]  # fmt: skip


def test_where_the_relevance_is_in_words():
    patches = torch.tensor([[1.0, 0.0, -2.0], [6.0, 0.0, 0.0], [1.0, 2.0, 0.0]])
    assert where(patches, "speaks for a", "speaks against a") == (
        "What speaks for a (83% of all |R|) is strongest in the middle left (60% of it) and the bottom middle (20%). "
        "What speaks against a (17% of all |R|) is strongest in the top right (100% of it)."
    )
    assert where(patches.clamp(min=0), "speaks for a", "speaks against a").endswith("No patch speaks against a.")
    assert where(torch.zeros(2, 2), "x", "y") == "No patch of the image has relevance."


def test_a_page_is_complete():
    ex = image_explanation(torch.tensor([[[1.0, 0.0, -3.0]] * 3]))
    source = ex.to_html(title="Boots & more")
    page = Page(source)
    assert source.startswith("<!DOCTYPE html>")
    for part in (
        "What speaks for boot?", "Score (logit of boot)", "photo 0.jpg", "blue: speaks for boot",
        "red, striped: speaks against boot", "-3.000", "+3.000", "the relevance of 4 x 4 pixels",
        "What speaks against boot (75% of all |R|) is strongest in the top right (33% of it)",
        "Strongest patches", "row 0, column 2 (top right)", "25.0%", "Method mambalrp · model me/vim · torch 2.13.0",
    ):  # fmt: skip
        assert part in page.text, part
    alts = [attrs["alt"] for tag, attrs in page.elements if tag == "img"]
    assert alts == ["What the model saw, relevance strongest in the top right", ""]
    assert page.text.count("Boots & more") == 2
    assert ex.to_html() == ex.to_html()


def test_the_images_of_a_page_are_what_the_model_saw_and_its_map():
    relevance = torch.tensor([[[2.0, -1.0], [0.0, -2.0]]])
    ex = image_explanation(relevance, patch_size=100)
    saw, over = pictures(ex.to_html())
    assert np.array_equal(saw, ex.images[0].numpy())
    side = over.shape[0] // 2
    assert over.shape == (6 * 100, 6 * 100, 4)
    for r, c in ((0, 0), (0, 1), (1, 0), (1, 1)):
        cell = over[r * side : (r + 1) * side, c * side : (c + 1) * side]
        value = relevance[0, r, c].item()
        assert {int(a) for a in cell[..., 3].flatten()} == {round(255 * abs(value) / 2)}
        found = {tuple(map(int, rgb)) for rgb in cell[..., :3].reshape(-1, 3)}
        assert found == ({tuple(RED), (255, 255, 255)} if value < 0 else {tuple(BLUE)}), "stripes mark the negative"
    striped = (over[:side, side:, :3] == 255).all(-1).mean()
    assert 0.1 < striped < 0.4


def test_scales_are_symmetric_and_overlap_adds_up():
    ex = image_explanation(torch.tensor([[[1.0, 1.0]]]), patch_size=4, stride=2)
    picture = ex.document().sections[0].one(Picture)
    assert picture.end == pytest.approx(0.5), "2 x 2 pixels of a patch have a quarter of it, where two overlap a half"
    _, over = pictures(ex.to_html())
    assert sorted(set(over[..., 3].flatten().tolist())) == [128, 255]


@pytest.mark.parametrize("grey", [0, 64, 128, 192, 255])
def test_the_map_is_legible_on_any_image(grey):
    """A patch with all of the relevance stands out against one with none; blue and red are still blue and red."""
    image = torch.full((8, 24, 3), grey, dtype=torch.uint8)
    heat = torch.zeros(8, 24)
    heat[:, :8], heat[:, 16:] = 1.0, -1.0
    shown = overlay(image, heat, 1.0)
    blue, none, red = shown[0, 7].tolist(), shown[0, 12].tolist(), shown[0, 20].tolist()
    assert none == [round(255 - 0.4 * (255 - grey))] * 3
    for color in (blue, red):
        assert contrast(color, none) >= 1.9
    assert blue[2] > blue[0] + 80
    assert red[0] > red[2] + 80
    assert contrast(BLUE, [255] * 3) >= 3
    assert contrast(RED, [255] * 3) >= 3


@pytest.mark.parametrize("build", [hostile, image_explanation])
def test_nothing_but_markup_of_our_own(build):
    for source in (build().to_html(), build()._repr_html_()):
        page = Page(source)
        allowed = {
            "html", "head", "meta", "title", "style", "body", "main", "div", "section", "footer", "h1", "h2", "p", "b",
            "br", "i", "dl", "dt", "dd", "span", "bdi", "table", "caption", "thead", "tbody", "tr", "th", "td",
            "nav", "ol", "li", "a", "details", "summary",
            "form", "figure", "figcaption", "img", "fieldset", "legend", "label", "input",
        }  # fmt: skip
        assert {tag for tag, _ in page.elements} <= allowed
        for tag, attrs in page.elements:
            assert not [name for name in attrs if name.startswith("on")]
            for name, value in attrs.items():
                if name == "href":
                    assert re.fullmatch(r"#\w+-row-\d", value)
                elif name in ("src", "action"):
                    assert (tag, name) == ("img", "src")
                    assert re.fullmatch(r"data:image/png;base64,[\w+/=]+", value)
        assert not re.search(r"url\(|@import|https?:", page.style)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", source)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in build().to_html()


def test_hostile_names_stay_names_everywhere():
    ex = hostile()
    assert Page(ex.to_html(title=HOSTILE)).text.count("alert(1)") >= 8
    for text in (ex.to_text(), repr(ex), str(ex)):
        assert not ACTING.search(text.replace("\n", ""))
    colored = ex.to_text(color=True)
    assert ESCAPES.search(colored)
    assert not ACTING.search(ESCAPES.sub("", colored).replace("\n", ""))
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown.body(ex.document()))
    assert "<script" not in shown
    assert "<img" not in shown
    ex.plot([0, 1]).savefig(BytesIO())


def test_shares_of_patches_in_plain_text():
    relevance = torch.tensor([[[30.0, -20.0, 0.1], [0.0, 10.0, -40.0]]])
    assert image_explanation(relevance, class_relevance=torch.zeros(1, 1)).to_text(width=100).splitlines() == [
        "What speaks for boot?",
        "score (logit of boot) -19.650 · probability of boot 75.0% · image photo 0.jpg · map 2 x 3 patches of",
        "4 x 4 pixels · gamma 0.25 on conv1d",
        "",
        "+30 -20   .",
        "  . +10 -40",
        "",
        "Each number: the share of a patch in all |R|, in percent.",
        "",
        "What speaks for boot (40% of all |R|) is strongest in the top left (75% of it) and the bottom middle",
        "(25%). What speaks against boot (60% of all |R|) is strongest in the bottom right (67% of it) and ",
        "the top middle (33%).",
        "+: speaks for boot; -: speaks against boot",
        "patches -19.900 + class token 0.000 + biases +0.250 = -19.650 of score -19.650 (gap 0.000)",
        "Each number is a part of the score: all of them and the share of the biases add up to it.",
        "mambalrp on me/vim",
    ]


@pytest.mark.parametrize("width", [20, 30, 80, 200])
def test_a_narrow_terminal_groups_patches(width):
    ex = image_explanation(torch.ones(1, 27, 26), patch_size=1)
    lines = ex.to_text(width=width).splitlines()
    assert max(map(len, lines)) <= width
    grid = [line.split() for line in lines if re.fullmatch(r"\s*(?:(?:[+-]\d+|\.)\s*)+", line)]
    side = {20: 5, 30: 3, 80: 1, 200: 1}[width]
    assert len(grid) == -(-27 // side)
    assert len(grid[0]) == -(-26 // side)
    if side > 1:
        assert f"{side} x {side} patches" in " ".join(" ".join(lines).split())
        assert grid[0][0] == f"{100 * side**2 / (27 * 26):+.0f}"


def test_colours_in_a_terminal():
    images = torch.zeros(1, 48, 96, 3, dtype=torch.uint8)
    ex = image_explanation(torch.tensor([[[1.0, -1.0]]]), patch_size=48, images=images)
    text = ex.to_text(color=True, width=80)
    lines = [line for line in text.splitlines() if "▀" in line]
    assert len(lines) == 12, "48 columns, and half as many pixels high, two a line"
    assert all(ESCAPES.sub("", line) == "▀" * 48 for line in lines)
    for color in (BLUE, RED):  # over black that is faded to 153
        shown = ";".join(str(round(0.9 * c + 0.1 * 153)) for c in color)
        assert f"\x1b[38;2;{shown};48;2;{shown}m" in lines[0]
    assert max(len(ESCAPES.sub("", line)) for line in ex.to_text(color=True, width=20).splitlines()) <= 20


def test_without_colours_and_on_any_stream(monkeypatch, capsys):
    ex = image_explanation()
    assert "\x1b" not in ex.to_text()
    assert "▀" not in ex.to_text()
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(force_terminal=True, width=100, color_system="truecolor")
    with console.capture() as captured:
        console.print(ex)
    assert "▀" not in captured.get()
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    ex.show()
    assert capsys.readouterr().out == ex.to_text()
    for encoding in ("ascii", "cp1252", "utf-8"):
        out = TextIOWrapper(BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", out)
        ex.show()
        out.flush()
        assert "What speaks for boot?" in out.buffer.getvalue().decode(encoding)


def test_markdown_has_no_data_and_its_picture_before_its_numbers():
    document = image_explanation(torch.ones(1, 4, 4)).document()
    text = markdown.body(document, [markdown.picture("What [it] shows", "a/b.png")])
    assert "data:" not in text
    assert text.index("![What &#91;it&#93; shows](a/b.png)") < text.index("| Patch | Relevance |")
    assert "| row 0, column 0 (top left) | +1.000 | 6.2% |" in text
    assert text.count("| row ") == 10


@pytest.mark.parametrize(
    "ex",
    [
        image_explanation(torch.zeros(1, 2, 2)),
        image_explanation(torch.ones(1, 1, 1), patch_size=1),
        image_explanation(torch.randn(1, 2, 40)),
        image_explanation(torch.full((1, 2, 2), -1e-30)),
        image_explanation(torch.ones(1, 2, 2), patch_size=300),
        image_explanation(model_id=None, versions={}, sources=[None]),
        image_explanation(torch.ones(1, 2, 2) * 1e8, conservation=conserved(torch.tensor([[4e8, 0.5]]))),
    ],
)
def test_edge_cases_show_themselves(ex, tmp_path):
    for source in (ex.to_html(), ex._repr_html_(), ex.to_text(), ex.to_text(color=True), markdown.body(ex.document())):
        assert "nan" not in re.sub(r"base64,[^\"]+", "", source).lower()
        assert "What speaks for boot?" in unescape(source)
    ex.save_png(tmp_path / "ex.png")
    ex.plot().savefig(tmp_path / "ex.pdf")
