"""The terminal: safe against tokens, readable without colour, colours that suit black and white screens."""

import builtins
import re
import sys
from html import unescape
from io import BytesIO, TextIOWrapper

import pytest
import torch
from results import capital, explanation, generation
from rich.console import Console
from test_viz_html import channels, contrast, hostile, hostile_generation

from hf_mambalrp.errors import OptionError
from hf_mambalrp.evaluation import Evaluation
from hf_mambalrp.evaluation.perturbation import METRICS
from hf_mambalrp.results.card import explanations_section
from hf_mambalrp.results.hidden_attention import HiddenAttention
from hf_mambalrp.viz import colors

ESCAPES = re.compile(r"\x1b\[[\d;]*m")
ACTING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def test_plain_text():
    assert capital().to_text(width=100).splitlines() == [
        "What speaks for “Paris” rather than “London”?",
        "score (logit of “Paris” minus “London”) 11.250 · probability of “Paris” 75.0% · prediction after ",
        "position 4",
        "",
        "The(+0.250) capital(+3.000) of(-0.250) France(+8.000) is(+0.500)",
        "",
        "+ blue, underlined: speaks for “Paris” rather than “London”; - red, italic: speaks for “London” ",
        "rather than “Paris”",
        "sum of relevance +11.500 + biases -0.250 = 11.250 of score 11.250 (gap 0.000)",
        "Each number is a part of the score: all of them and the share of the biases add up to it.",
        "mambalrp on me/mamba",
    ]


def test_what_was_fed_back_is_named():
    """Target " Paris is so", contrast " London now": positions 2, 3 and 4 are fed back behind "of France"."""
    ex = explanation(
        "of France Paris is London",
        target=[(5, 6, 7)],
        target_text=[" Paris is so"],
        contrast=[(8, 9)],
        contrast_text=[" London now"],
        position=torch.tensor([1]),
    )
    assert "prediction after position 1 · fed back behind it “Paris is” and “London”" in ex.to_text(width=200)
    assert "fed back" not in capital().to_text()
    function = explanation("a b", target=[None], target_text=["entropy"], position=torch.tensor([1])).to_text()
    assert "What speaks for entropy?" in function, "only tokens are in quotation marks"


def test_only_the_strongest_carry_numbers():
    ex = explanation(" ".join("abcdefghijkl"), relevance=torch.arange(12.0)[None])
    line = next(line for line in ex.to_text().splitlines() if line.startswith("a "))
    assert line.startswith("a b c d e(+4.000) f(+5.000)")
    assert ex.to_text(level="token").count("(+") == 8


@pytest.mark.parametrize("build", [hostile, hostile_generation])
def test_tokens_cannot_reach_the_terminal(build):
    ex = build()
    assert not ACTING.search(ex.to_text())
    assert not ACTING.search(repr(ex))
    colored = ex.to_text(color=True)
    assert ESCAPES.search(colored)
    assert not ACTING.search(ESCAPES.sub("", colored))
    assert "\x1b[31m" not in colored
    assert "⟨U+202E⟩" in ex.to_text(width=200)


def test_colour_adds_nothing_but_colour():
    for ex in (capital(), generation(), explanation("日本 🙂 x")):
        for width in (40, 80):
            assert ESCAPES.sub("", ex.to_text(color=True, width=width)) == ex.to_text(width=width)


def test_no_color_and_pipes(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(force_terminal=True, width=100, color_system="truecolor")
    with console.capture() as captured:
        console.print(capital())
    out = captured.get()
    assert not re.search(r"\x1b\[[\d;]*(?:38|48|3[0-7]|4[0-7])[;m]", out)
    assert "of(-0.250) " in ESCAPES.sub("", out)
    assert "\x1b[" not in capital().to_text()


def test_colours_suit_black_and_white():
    for color in (colors.TERMINAL_POSITIVE, colors.TERMINAL_NEGATIVE):
        for other in ([0, 0, 0], [255, 255, 255]):
            assert contrast(channels(color), other) >= 4.5


def test_strong_words_lie_on_colour():
    out = explanation("a b c", relevance=torch.tensor([[4.0, -4.0, 1.0]])).to_text(color=True)
    blue, red = ("2;" + ";".join(map(str, channels(c))) for c in (colors.TERMINAL_POSITIVE, colors.TERMINAL_NEGATIVE))
    assert re.search(rf"\x1b\[1;4;38;2;255;255;255;48;{blue}ma\(\+4\.000\)", out)
    assert re.search(rf"\x1b\[1;3;38;2;255;255;255;48;{red}mb\(-4\.000\)", out)
    assert re.search(rf"\x1b\[4;38;{blue}mc\(\+1\.000\)", out)


def test_edge_cases():
    assert "a b" in explanation("a b", relevance=torch.zeros(1, 2)).to_text()
    assert "one(-1.000)" in explanation("one").to_text()
    long = explanation(" ".join(f"w{i}" for i in range(3000)))
    assert max(map(len, long.to_text(width=60).splitlines())) <= 60
    assert "(logit" not in explanation("a b", target=[None], target_text=["entropy"]).to_text()
    assert "a⏎\nb" in explanation("a\nb", relevance=torch.zeros(1, 3)).to_text()
    rows = explanation("a b", "c d").to_text()
    assert rows.count("What speaks for positive?") == 2


def test_generation_table():
    lines = [line.rstrip() for line in generation().to_text(width=100).splitlines()]
    assert "sat           3.000        50.0%  0.000  cat(+2.000) The(+1.000)" in lines
    assert "<eos>         -1.000        25.0%  0.000  there(-2.000) Hi(+1.000)" in lines
    assert [line for line in lines if line.startswith("Row")] == ["Row 0", "Row 1"]
    assert "all 3 tokens  6.500         1.6%  0.000  sat(+3.250) The(+1.750) cat(+1.250) down(+0.250)" in lines


def test_the_summary_of_a_generation_reads_like_its_text():
    """Of tokens without their spaces, and of one character in two tokens."""
    tokens = [["The", "cat", "<0xF0><0x9F>", "<0x99><0x82>", "sat"]] * 2
    offsets = [[(0, 3), (4, 7), (8, 9), (8, 9), (10, 13)]] * 2
    assert "🙂 sat" in str(generation(tokens=tokens, offsets=offsets, texts=["The cat 🙂 sat"] * 2))
    assert "<0xF0><0x9F><0x99><0x82>sat" in str(generation(tokens=tokens))


def test_generation_in_a_narrow_terminal():
    lines = [line.rstrip() for line in generation().to_text(width=40).splitlines()]
    assert lines[:7] == [
        "Row 0",
        "sat: score 3.000, probability 50.0%",
        "  gap 0.000",
        "  cat(+2.000) The(+1.000)",
        "down: score 2.500, probability 25.0%",
        "  gap 0.000",
        "  sat(+3.000) cat(-1.000) The(+0.500)",
    ]
    assert "…" not in generation().to_text(width=40)
    assert any(line.startswith("generated") for line in generation().to_text(width=70).splitlines())


def test_show_without_ipython_prints(capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    capital().show()
    out = capsys.readouterr().out
    assert "France(+8.000)" in out
    assert "\x1b" not in out


def test_text_is_text_where_rich_sees_a_notebook(capsys, monkeypatch):
    class ZMQInteractiveShell:
        """What rich takes for a notebook, and then displays instead of printing."""

    expected = capital().to_text(), str(capital()), repr(capital()), generation().to_text(), str(generation())
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    assert Console().is_jupyter
    found = capital().to_text(), str(capital()), repr(capital()), generation().to_text(), str(generation())
    assert found == expected
    assert all(found)
    capital().show()
    assert "France(+8.000)" in capsys.readouterr().out


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"DATABRICKS_RUNTIME_VERSION": "15"}, {"COLUMNS": "30"},
                                       {"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}])  # fmt: skip
def test_text_does_not_depend_on_the_environment(monkeypatch, variables):
    results = (capital(), generation(), evaluation())
    expected = [[repr(one), str(one), *_texts(one)] for one in results]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(builtins, "get_ipython", lambda: None, raising=False)
    assert [[repr(one), str(one), *_texts(one)] for one in results] == expected
    assert all(text.strip() for texts in expected for text in texts)


def _texts(one):
    return [] if isinstance(one, Evaluation) else [one.to_text(width=120, color=color) for color in (True, False)]


def evaluation():
    """Of one method on one text, every number 0.5."""
    found = {"mean": 0.5, "low": 0.5, "high": 0.5}
    settings = dict.fromkeys(("measure", "replacement", "insertion", "step", "seed"), "x") | {"confidence": 0.95}
    return Evaluation({"model": "m", "settings": settings, "examples": [0],
                       "methods": {"mambalrp": dict.fromkeys(METRICS, found)}})  # fmt: skip


def test_where_the_end_has_a_large_share_every_rendering_says_so():
    """The relevances of the last word, 3 of 8, and of the last 5 of 100, 60 of 100."""
    short = explanation("A dull film.", pattern=r" ?\w+|\.", relevance=torch.tensor([[1.0, -2.0, 2.0, -3.0]]))
    long = explanation(" ".join(f"w{i}" for i in range(100)), relevance=torch.tensor([[40 / 95] * 95 + [12.0] * 5]))
    assert short.end_share() == pytest.approx(3 / 8)
    assert short.end_share(part=0.5) == pytest.approx(5 / 8)
    assert long.end_share() == pytest.approx(0.12)
    assert long.end_share(part=0.05) == pytest.approx(0.6)
    assert long.end_share(part=1) == pytest.approx(1)
    for ex, said in ((short, "The last word, “.”, has 38% of all |R|"),
                     (long, "The last 5% of the words have 60% of all |R|")):  # fmt: skip
        for shown in (ex.to_text(width=200), ex.to_html(), ex._repr_html_(), explanations_section([(ex, 0)])[0]):
            assert said in unescape(shown)
            assert "whatever it says" in shown
    few = [
        explanation("A film", relevance=torch.tensor([[1.0, 9.0]])),
        capital(),
        explanation("a b c d e f", relevance=torch.ones(1, 6)),
    ]
    assert not any("whatever it says" in ex.to_text() + ex.to_html() for ex in few)


def test_words_behind_the_position_are_no_end():
    relevance = torch.tensor([[1.0, 1.0, 1.0, 1.0, 4.0, 0.0, 0.0]])
    ex = explanation("a b c d e f g", relevance=relevance, position=torch.tensor([4]))
    assert ex.end_share() == pytest.approx(0.5)
    assert "The last word, “e”, has 50% of all |R|" in ex.to_text()
    assert explanation("a b", relevance=torch.zeros(1, 2)).end_share() == 0
    for part in (-0.1, 1.5, float("nan")):
        with pytest.raises(OptionError, match="part="):
            ex.end_share(part=part)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932", "utf-8"])
def test_every_result_shows_itself_on_any_stream(monkeypatch, encoding):
    text = "naïve 日本 🙂"
    attention = HiddenAttention(
        torch.ones(1, 1, 2, 2), [0], torch.tensor([[0, 1]]), "raw", [["日本", " 🙂"]], torch.tensor([[0, 1]]),
        torch.ones(1, 2),
    )  # fmt: skip
    for result in (explanation(text), generation(tokens=[["日", "本", "🙂", "é", "."]] * 2), attention):
        out = TextIOWrapper(BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", out)
        result.show()
        out.flush()
        assert len(out.buffer.getvalue().decode(encoding)) > 40


def test_show_has_a_level(capsys):
    with pytest.raises(OptionError, match="level='letter'"):
        capital().show(level="letter")
    capital().show(level="token")
    assert capsys.readouterr().out == capital().to_text(level="token")
