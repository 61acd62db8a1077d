"""Figures: what is drawn, limits that are said, hostile and long text, the missing extra."""

import sys
import warnings

import matplotlib as mpl
import pytest
import torch
from matplotlib import font_manager
from results import HOSTILE, REVIEW, capital, conserved, explanation, generation, long_generation

from hf_mambalrp.errors import InputError, MissingExtraError, OptionError
from hf_mambalrp.viz import fonts

mpl.use("Agg")


def drawn(figure):
    """Force a full drawing, then return the axes of the data and every text in the figure."""
    figure.draw_without_rendering()  # the canvas of a figure that pyplot let go of draws nothing
    texts = [text.get_text() for text in figure.findobj(mpl.text.Text)]
    return figure.axes[0], "\n".join(texts)


def test_bars_in_reading_order():
    axes, texts = drawn(capital().plot())
    assert [label.get_text() for label in axes.get_yticklabels()] == ["The", "capital", "of", "France", "is"]
    assert [bar.get_width() for bar in axes.patches] == [0.25, 3.0, -0.25, 8.0, 0.5]
    assert axes.yaxis_inverted()
    assert axes.patches[2].get_facecolor() != axes.patches[3].get_facecolor()
    for part in (
        "What speaks for “Paris” rather than “London”?", "score (logit of “Paris” minus “London”) 11.250",
        "sum of relevance +11.500", "+8.000", "-0.250",
    ):  # fmt: skip
        assert part in texts
    assert "strongest" not in texts


def test_top_comes_strongest_first_and_is_said():
    axes, texts = drawn(capital().plot(top=2))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["France", "capital"]
    assert "shown: the 2 strongest of 5 words" in texts
    with pytest.raises(OptionError, match="k=0"):
        capital().plot(top=0)


def test_long_texts_are_limited():
    ex = explanation(" ".join(f"w{i}" for i in range(300)), layer_relevance=torch.rand(65, 1, 300))
    axes, texts = drawn(ex.plot())
    assert len(axes.patches) == 40
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"w{i}" for i in range(260, 300)]
    assert "shown: the 40 strongest of 300 words" in texts
    axes, texts = drawn(ex.plot(per_layer=True))
    assert axes.images[0].get_array().shape == (65, 60)
    assert "shown: the 60 strongest of 300 words" in texts


def test_layers():
    layers = torch.tensor([[[1.0, 2.0, 3.0]], [[-4.0, 5.0, 6.0]]])
    ex = explanation(
        "wo rd", pattern=r" ?\S", layer_relevance=layers[:, :, [0, 1, 2, 2]], relevance=layers[0][:, [0, 1, 2, 2]]
    )
    axes, _ = drawn(ex.plot(per_layer=True))
    assert axes.images[0].get_array().tolist() == [[3.0, 6.0], [1.0, 12.0]]
    assert axes.images[0].get_clim() == (-12.0, 12.0)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["wo", "rd"]
    axes, _ = drawn(ex.plot(per_layer=True, level="token"))
    assert axes.images[0].get_array().shape == (2, 4)
    with pytest.raises(InputError, match=r"explain\(\.\.\., per_layer=True\)"):
        capital().plot(per_layer=True)


def test_generation_map():
    axes, texts = drawn(generation().plot())
    assert axes.images[0].get_array().tolist() == [[1.0, 2.0, 0, 0], [0.5, -1.0, 3.0, 0], [0.25] * 4]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sat", "down", "."]
    assert "largest gap 0.000" in texts
    axes, _ = drawn(generation().plot(1))
    assert axes.images[0].get_array().tolist() == [[4.0, 0.0], [1.0, -2.0]]
    many = long_generation(90, 70)
    axes, texts = drawn(many.plot())
    assert axes.images[0].get_array().shape == (70, 60), "every token, over the strongest words"
    assert len(axes.get_yticklabels()) == 70
    assert "shown: the 60 strongest of 159 words" in texts
    nothing = generation(attention_mask=torch.tensor([[1, 1, 0, 0, 0]] * 2), relevance=torch.zeros(2, 3, 5))
    with pytest.raises(InputError, match="row 0 generated no token"):
        nothing.plot()


@pytest.mark.parametrize(
    "ex",
    [
        explanation("a b", relevance=torch.zeros(1, 2)),
        explanation("one"),
        explanation(r"$\bad{ $x$ 100$ _^{ $", target_text=[r"$\frac$"], contrast=[1], contrast_text=["$"]),
        explanation(HOSTILE, target_text=[HOSTILE], method=HOSTILE),
        explanation("x" * 5000, target_text=["y"]),
        explanation(REVIEW),
    ],
)
def test_edge_cases_draw(ex, tmp_path):
    figure = ex.plot()
    figure.savefig(tmp_path / "figure.png")
    _, texts = drawn(figure)
    assert "\x1b" not in texts
    assert "\u202e" not in texts
    ex.layer_relevance = ex.relevance[None]
    ex.plot(per_layer=True).savefig(tmp_path / "layers.pdf")


LACKING = "\N{SMILE}"
"""A character that matplotlib's own STIXGeneral has and its DejaVu Sans lacks."""


def glyphs(family):
    path = font_manager.findfont(font_manager.FontProperties(family=[family]), fallback_to_default=False)
    return font_manager.get_font(path).get_charmap()


@pytest.fixture
def only_fonts(monkeypatch):
    """Only DejaVu Sans, and behind it what the test names; no box was warned of yet."""
    assert ord(LACKING) in glyphs("STIXGeneral")
    assert ord(LACKING) not in glyphs("DejaVu Sans")
    fonts._warn_of_boxes.cache_clear()
    return lambda *names: monkeypatch.setattr(fonts, "FALLBACKS", names)


def texts_of_words(layers):
    ex = explanation(f"one {LACKING} film", target_text=[f" {LACKING}"], position=torch.tensor([2]))
    ex.layer_relevance = ex.relevance[None]
    return drawn(ex.plot(per_layer=layers))[1]


@pytest.mark.parametrize("layers", [False, True])
def test_a_font_that_has_the_characters_is_found(only_fonts, layers, recwarn):
    only_fonts("No Such Font", "STIXGeneral")
    texts = texts_of_words(layers)
    assert f"What speaks for “{LACKING}”?" in texts
    assert f"probability of “{LACKING}”" in texts
    assert fonts.BOX not in texts
    # Of boxes here, and of glyphs in matplotlib. Files that others left open are warned of whenever they are garbage.
    assert not [warned for warned in recwarn.list if issubclass(warned.category, UserWarning)]


def test_without_such_a_font_there_are_boxes_and_one_warning(only_fonts):
    only_fonts()
    with pytest.warns(UserWarning, match="Install one") as warned:
        texts = texts_of_words(False) + texts_of_words(True)
    assert len(warned) == 1
    assert "What speaks for “□”?" in texts
    assert LACKING not in texts


def test_chinese_and_emoji_draw_with_the_fonts_of_this_machine(tmp_path):
    fonts._warn_of_boxes.cache_clear()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        explanation("这部 电影 🙂", target_text=["好"]).plot().savefig(tmp_path / "figure.png")
    assert len(warned) <= 1
    assert not any("Glyph" in str(warning.message) for warning in warned)


@pytest.mark.parametrize("text", ["internationalisation", "Wmmmmmmmmmmmmmmmmmmmmmmm", "a"])
@pytest.mark.parametrize("layers", [False, True])
def test_what_stands_above_the_axes_stays_inside_the_figure(text, layers):
    ex = explanation(
        f"{text} b",
        target_text=["W" * 40],
        contrast=[2],
        contrast_text=["M" * 40],
        position=torch.tensor([1]),
        convergence_delta=torch.tensor([1e-6]),
        conservation=conserved(torch.tensor([[1.0]]), biases=3e-6),
    )
    ex.layer_relevance = ex.relevance[None].expand(3, -1, -1)
    figure = ex.plot(per_layer=layers)
    axes, texts = drawn(figure)
    assert "convergence" in texts
    boxes = [text.get_window_extent() for text in (axes._left_title, *axes.texts) if text.get_text()]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)
    under = next(text for text in axes.texts if text.get_text().startswith("score"))
    assert under.get_window_extent().y1 < axes._left_title.get_window_extent().y0
    assert axes.bbox.height > 20


def test_beside_other_axes_the_lines_keep_to_their_own():
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    capital().plot(ax=left)
    figure.canvas.draw()
    assert all(text.get_window_extent().x1 <= right.bbox.x0 for text in left.texts)
    plt.close(figure)


def test_own_axes_and_no_figures_left_open():
    from matplotlib import pyplot as plt

    plt.close("all")
    capital().plot()
    assert plt.get_fignums() == []
    figure, axes = plt.subplots()
    assert capital().plot(ax=axes) is figure
    assert len(axes.patches) == 5
    plt.close(figure)


def test_matplotlib_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for ex in (capital(), generation()):
        with pytest.raises(MissingExtraError, match=r'pip install "hf_mambalrp\[plot\]"'):
            ex.plot()
