"""One document of a result for every writer: its blocks, and untrusted text in each format."""

from html import unescape

import pytest
import torch
from markdown_it import MarkdownIt
from results import HOSTILE, capital, explanation, generation

from hf_mambalrp.errors import OptionError
from hf_mambalrp.results.hidden_attention import HiddenAttention
from hf_mambalrp.viz import html, markdown, terminal
from hf_mambalrp.viz.document import Balance, Facts, Heading, Heat, Legend, Source, Steps, Table, Words
from hf_mambalrp.viz.method_names import method_name
from hf_mambalrp.viz.wording import visible


def attention():
    """Two layers of 60 tokens that read themselves."""
    length = 60
    ones = torch.ones(1, length, dtype=torch.long)
    matrix = torch.eye(length).expand(2, 1, -1, -1)
    return HiddenAttention(matrix, [0, 1], ones.cumsum(1) - 1, "raw", [["a"] * length], ones, ones)


def test_an_explanation_is_blocks():
    (section,) = capital().document().sections
    kinds = [Heading, Source, Facts, Words, Legend, Balance, Table]
    assert [type(block) for block in section.blocks] == kinds
    assert section.one(Heading).text == "What speaks for “Paris” rather than “London”?"
    assert section.one(Source).text == "The capital of France is"
    words = section.one(Words)
    assert [word.text for word in words.words] == ["The", "capital", "of", "France", "is"]
    assert words.peak == 8
    assert section.one(Legend).positive == words.positive == "speaks for “Paris” rather than “London”"
    table = section.one(Table)
    assert [(word.text, table.share(word)) for word in table.words[:2]] == [("France", "66.7%"), ("capital", "25.0%")]
    with pytest.raises(StopIteration):
        section.one(Heat)


def test_every_writer_writes_the_same_document():
    document = capital().document()
    section = document.sections[0]
    pages = [
        unescape(html.page(document, "x")),
        terminal.printed(terminal.lines(document), color=False, width=200),
        unescape(markdown.body(document)),
    ]
    for page in pages:
        for text in (section.one(Heading).text, section.one(Balance).sum, section.one(Balance).reading):
            assert text in page
        for _, value in section.one(Facts).pairs:
            assert value in page


def test_a_document_of_some_rows_says_what_it_leaves_out():
    many = explanation("a b", "c d", "e f")
    document = many.document(rows=2)
    assert [(section.row, section.of) for section in document.sections] == [(0, 3), (1, 3)]
    assert document.left_out == "1 more rows are not shown here; to_html(path) writes them all."
    assert many.document().left_out == ""
    assert document.sections == many.document().sections[:2]
    for ex in (many, generation()):
        with pytest.raises(OptionError, match="level='letter'"):
            ex.document(level="letter")


def test_a_generation_is_steps():
    first, second = generation().document(level="token").sections
    steps = first.one(Steps)
    assert steps.level == "token"
    assert [(step.token, step.score, step.probability, step.gap) for step in steps.steps] == [
        (" sat", "3.000", "50.0%", "0.000"),
        (" down", "2.500", "25.0%", "0.000"),
        (".", "1.000", "12.5%", "0.000"),
    ]
    assert [word.relevance for word in steps.steps[1].words.words] == [0.5, -1.0, 3.0]
    assert len(second.one(Steps).steps) == 2


def test_hidden_attention_is_maps_of_as_many_cells_as_are_asked_for():
    (section,) = attention().document().sections
    maps = [block for block in section.blocks if isinstance(block, Heat)]
    assert [(block.title, block.is_open, tuple(block.values.shape)) for block in maps] == [
        ("Layer 0", False, (30, 30)),
        ("Layer 1", True, (30, 30)),
    ]
    assert "2 x 2" in maps[0].note
    (section,) = attention().document(layers=[0], cells=None).sections
    (whole,) = [block for block in section.blocks if isinstance(block, Heat)]
    assert torch.equal(whole.values, torch.eye(60))
    assert whole.is_open
    assert whole.note == ""
    with pytest.raises(OptionError, match="layer=5"):
        attention().document(layers=[5])


def test_untrusted_text_is_text_in_every_format():
    """Also where it was fed back behind the input, which is one of the facts."""
    ex = explanation(
        f"of France {'<b>x</b>|*y*'} {HOSTILE.replace(' ', '')}",
        target=[(5, 6)],
        target_text=["z"],
        position=torch.tensor([1]),
    )
    document = ex.document()
    fed = dict(document.sections[0].one(Facts).pairs)["fed back behind it"]
    assert fed == "“<b>x</b>|*y*”"
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown.body(document))
    assert "<b>" not in shown
    assert "<script" not in shown
    assert unescape(fed) in unescape(shown)
    assert "<b>x" not in html.page(document, "x")
    assert html.escaped(HOSTILE, keep="\x07").endswith("\x07")
    assert unescape(html.escaped(HOSTILE)) == visible(HOSTILE) == terminal.escaped(HOSTILE).plain


def test_numbers_of_markdown_stay_readable_and_nothing_is_said_of_an_end_that_is_none():
    source = markdown.body(capital().document())
    assert "**11.250**" in source
    assert "**75.0%**" in source
    assert "⟨empty⟩" not in source


def test_names_of_methods():
    assert method_name("lrp_ln") == "LRP (LN-rule)"
    assert method_name("my\x1b") == "my⟨U+001B⟩"
