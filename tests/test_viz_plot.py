"""Figures: what is drawn, limits that are said, hostile and long text, the missing extra."""

import sys

import matplotlib as mpl
import pytest
import torch
from results import HOSTILE, REVIEW, capital, explanation, generation

from hf_mambalrp.errors import InputError, MissingExtraError, OptionError

mpl.use("Agg")


def drawn(figure):
    """Force a full drawing, then return the axes of the data and every text in the figure."""
    figure.canvas.draw()
    texts = [text.get_text() for text in figure.findobj(mpl.text.Text)]
    return figure.axes[0], "\n".join(texts)


def test_bars_in_reading_order():
    axes, texts = drawn(capital().plot())
    assert [label.get_text() for label in axes.get_yticklabels()] == ["The", "capital", "of", "France", "is"]
    assert [bar.get_width() for bar in axes.patches] == [0.25, 3.0, -0.25, 8.0, 0.5]
    assert axes.yaxis_inverted()
    assert axes.patches[2].get_facecolor() != axes.patches[3].get_facecolor()
    for part in (
        "What speaks for Paris rather than London?", "score (logit of Paris minus London) 11.250",
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
    axes, texts = drawn(ex.plot(layers=True))
    assert axes.images[0].get_array().shape == (65, 60)
    assert "shown: the 60 strongest of 300 words" in texts


def test_layers():
    layers = torch.tensor([[[1.0, 2.0, 3.0]], [[-4.0, 5.0, 6.0]]])
    ex = explanation(
        "wo rd", pattern=r" ?\S", layer_relevance=layers[:, :, [0, 1, 2, 2]], relevance=layers[0][:, [0, 1, 2, 2]]
    )
    axes, _ = drawn(ex.plot(layers=True))
    assert axes.images[0].get_array().tolist() == [[3.0, 6.0], [1.0, 12.0]]
    assert axes.images[0].get_clim() == (-12.0, 12.0)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["wo", "rd"]
    axes, _ = drawn(ex.plot(layers=True, level="token"))
    assert axes.images[0].get_array().shape == (2, 4)
    with pytest.raises(InputError, match=r"explain\(\.\.\., layers=True\)"):
        capital().plot(layers=True)


def test_generation_map():
    axes, texts = drawn(generation().plot())
    assert axes.images[0].get_array().tolist() == [[1.0, 2.0, 0, 0], [0.5, -1.0, 3.0, 0], [0.25] * 4]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sat", "down", "."]
    assert "largest gap 0.000" in texts
    axes, _ = drawn(generation().plot(1))
    assert axes.images[0].get_array().tolist() == [[4.0, 0.0], [1.0, -2.0]]
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
    ex.plot(layers=True).savefig(tmp_path / "layers.pdf")


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
