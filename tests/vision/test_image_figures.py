"""Figures of results on images: panels, scales and texts; PNG without matplotlib."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from results import HOSTILE, image_explanation

from hf_mambalrp.errors import InputError, MissingExtraError, OptionError


def drawn(figure):
    """Force a full drawing, then return the axes that show images, by title, the others, and every text."""
    figure.canvas.draw()
    axes = [ax for ax in figure.get_axes() if ax.get_visible()]
    maps = {ax.get_title(): ax for ax in axes if ax.images}
    texts = "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))
    return maps, [ax for ax in axes if not ax.images], texts


def layered(rows=1, layers=4):
    torch.manual_seed(1)
    return image_explanation(
        torch.ones(rows, 2, 3), layer_relevance=torch.randn(layers, rows, 2, 3),
        layer_class_relevance=torch.arange(layers * rows).float().view(layers, rows, 1),
    )  # fmt: skip


def test_an_image_its_map_and_both():
    relevance = torch.tensor([[[1.0, 0.0], [-4.0, 2.0]]])
    ex = image_explanation(relevance, patch_size=200, contrast=[2], contrast_text=["coat"])
    maps, (bar,), texts = drawn(ex.plot())
    assert list(maps) == ["what the model saw", "relevance over it", "relevance of patches"]
    shown = {name: ax.images[0].get_array() for name, ax in maps.items()}
    assert np.array_equal(shown["what the model saw"][::2, ::2], ex.images[0].numpy())
    alone = shown["relevance of patches"]
    assert (alone[:400, 400:] == 255).all(), "nothing where there is no relevance"
    assert (alone[400:, :400] == 255).all(-1).mean() == pytest.approx(0.25, abs=0.01), "stripes"
    half = [255 - (255 - c) / 2 for c in (0x21, 0x66, 0xAC)]
    assert alone[400, 400].tolist() == pytest.approx(half, abs=1), "2 of 4: half opaque"
    assert bar.get_ylim() == pytest.approx((-4, 4))
    for text in (
        "What speaks for boot rather than coat?", "score (logit of boot minus coat)", "photo 0.jpg", "gamma 0.25",
        "patches -1.000 + class token +0.500 + biases +0.250 = -0.250", "relevance of 200 x 200 pixels",
    ):  # fmt: skip
        assert text in texts.replace("\n", " ")


def test_the_relevance_of_pixels_has_a_panel_of_its_own():
    pixels = torch.zeros(1, 12, 16)
    pixels[0, 3, 5] = -0.5
    maps, _, _ = drawn(image_explanation(pixel_relevance=pixels).plot())
    assert list(maps)[3] == "of pixels, full from ±0.500"
    alone = maps["of pixels, full from ±0.500"].images[0].get_array()
    assert np.argwhere((alone != 255).any(-1)).min(0).tolist() == [3 * 28, 5 * 28]


def test_several_rows():
    ex = image_explanation(torch.stack([torch.ones(2, 2), torch.full((2, 2), 3.0)]), target_text=["boot", "coat"])
    _, bars, texts = drawn(ex.plot([1, 0]))
    assert [bar.get_ylim() for bar in bars] == [(-3, 3), (-1, 1)]
    assert texts.index("What speaks for coat?") < texts.index("What speaks for boot?")
    assert len(drawn(ex.plot(slice(None)))[1]) == 2
    with pytest.raises(IndexError, match="row 2 is out of range"):
        ex.plot(2)


@pytest.mark.parametrize("length", [5, 60])
def test_no_text_leaves_the_figure_or_lies_on_a_panel(length):
    names = {"target_text": ["W" * length] * 2, "contrast": [0, 0], "contrast_text": ["M" * length] * 2}
    figure = image_explanation(torch.ones(2, 3, 3), sources=["s" * length] * 2, **names).plot([0, 1])
    maps, _, _ = drawn(figure)
    whole = figure.bbox
    for part in figure.subfigs:
        panels = [ax.get_tightbbox() for ax in part.get_axes()]
        for text in (part._suptitle, part._supxlabel):
            box = text.get_window_extent()
            assert box.x0 >= 0
            assert box.x1 <= whole.x1
            assert box.y0 >= -1
            assert not any(box.overlaps(panel) for panel in panels)
    assert all(ax.get_window_extent().height > 150 for ax in maps.values())


def test_axes_of_the_callers():
    from matplotlib import pyplot as plt

    plt.close("all")
    ex = image_explanation(torch.ones(2, 3, 3))
    ex.plot()
    assert plt.get_fignums() == []
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
    assert ex.plot(1, ax=left) is figure
    figure.canvas.draw()
    assert len(left.images) == 1
    assert not right.images
    assert left.get_title(loc="left") == "What speaks for boot?"
    with pytest.raises(OptionError, match="ax has room for one row, and 2 were asked for"):
        ex.plot([0, 1], ax=left)
    plt.close(figure)


def test_layers():
    ex = layered(rows=2)
    maps, (bar,), texts = drawn(ex.plot(1, per_layer=True))
    assert list(maps) == [
        "embedding\nclass +1.000", "block 1\nclass +3.000", "block 2\nclass +5.000", "block 3\nclass +7.000",
    ]  # fmt: skip
    peak = ex.layer_relevance[:, 1].abs().max().item()
    assert bar.get_ylim() == pytest.approx((-peak, peak))
    assert "Layer by layer" in texts
    assert len(drawn(layered(layers=25).plot(per_layer=True))[0]) == 25
    with pytest.raises(InputError, match=r"explain\(\.\.\., per_layer=True\)"):
        image_explanation().plot(per_layer=True)
    for wrong in ({"row": [0, 1]}, {"ax": object()}):
        with pytest.raises(OptionError, match="one row, and no ax"):
            ex.plot(**wrong, per_layer=True)


def test_names_act_on_nothing_in_a_figure():
    ex = image_explanation(target_text=[HOSTILE], sources=[HOSTILE], method=HOSTILE, gamma_on=(HOSTILE, r"$\bad{"))
    _, _, texts = drawn(ex.plot())
    assert "\x1b" not in texts
    assert "\u202e" not in texts


def test_a_png_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    torch.manual_seed(2)
    relevance = torch.tensor([[[1.0, 0.0]], [[0.0, -2.0]]])
    images = torch.randint(256, (2, 100, 200, 3), dtype=torch.uint8)
    ex = image_explanation(relevance, patch_size=100, images=images)
    ex.save_png(tmp_path / "all.png", row=[0, 1])
    found = np.array(Image.open(tmp_path / "all.png"))
    assert found.shape == (2 * 300 + 3 * 12, 2 * 600 + 3 * 12, 3), "three times as large, 12 around each"
    for row in (0, 1):
        top = 12 + row * 312
        assert np.array_equal(found[top : top + 300 : 3, 12:612:3], images[row].numpy())
        over = found[top : top + 300 : 3, 624 : 624 + 600 : 3].astype(float)
        grey = images[row].numpy() @ [0.2126, 0.7152, 0.0722]
        below = 255 - 0.4 * (255 - grey[..., None]).repeat(3, -1)
        side = slice(100, 200) if row == 0 else slice(0, 100)
        np.testing.assert_allclose(over[:, side], below[:, side], atol=1)
        if row == 0:
            expected = 0.9 * np.array([0x21, 0x66, 0xAC]) + 0.1 * below[:, :100]
            np.testing.assert_allclose(over[:, :100], expected, atol=1)
    ex.save_png(str(tmp_path / "one.png"))
    assert np.array_equal(np.array(Image.open(tmp_path / "one.png")), found[: 300 + 24])
    with pytest.raises(MissingExtraError, match=r'pip install "hf_mambalrp\[plot\]"'):
        ex.plot()
