"""Relevance by part: adding up before every branch, in every journey and on every surface."""

import json
import math

import pytest
import torch
from oracle_hybrids import explain as oracle
from results import explanation, generation
from small import word_tokenizer
from small_hybrids import VOCABULARY, build, explainable
from test_hybrid_relevance import every_family, padded, rows, same

from hf_mambalrp import Explanation, PartRelevance, explain_dataset, load, load_explanations, make_explainable
from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.viz import markdown
from hf_mambalrp.viz.document import Grid


def embeddings_of(parts):
    """What goes round the layers, at every token."""
    return parts.relevance[[n for n, (_, _, kind) in enumerate(parts.names) if kind == "embeddings"]].sum(0)


@every_family
def test_parts_and_skip_add_up_before_every_branch(name):
    """By the rule that is not the usual one; that other rules and chunks add up follows from the oracle's numbers."""
    model, (ids, mask) = explainable(name), padded("right")
    found = model.explain(ids, attention_mask=mask, target=3, attention_rule="attnlrp", per_layer=True)
    parts, layers = found.parts, found.layer_relevance
    zamba = name.startswith("zamba")
    assert parts.conserving is not zamba
    around = embeddings_of(parts) if zamba else torch.zeros_like(found.relevance)
    seen = set()
    for branch in parts.branches:
        layer, total = parts.names[branch[0]][0], parts.relevance[branch].sum(0)
        if layer not in seen:
            torch.testing.assert_close(total + (around if layer == 0 else 0), layers[layer], rtol=1e-5, atol=1e-5)
        seen.add(layer)
    assert seen == set(range(len(layers) - 1))
    assert [(line.layer, line.branch, line.kind) for line in parts.table()] == parts.names
    for row in range(len(found)):
        table = parts.table(row)
        for branch in parts.branches:
            assert sum(table[n].share for n in branch) == pytest.approx(1)
            assert sum(table[n].size_share for n in branch) == pytest.approx(1)
            assert table[branch[-1]].kind == "skip"


def test_shares_are_those_of_the_oracles_numbers():
    """Attention is in layers 1 and 3, SSM in 0 and 2, an MLP in the second branch of each."""
    model, ids = build("bamba"), rows()[0]
    parts = make_explainable(model).explain(ids[None], target=3, per_layer=True).parts
    read = oracle(model, ids, weights=torch.eye(VOCABULARY, dtype=torch.float64)[3]).branch_relevance
    places = {
        "ssm": [(0, 0, "mamba"), (2, 0, "mamba")],
        "attention": [(1, 0, "self_attn"), (3, 0, "self_attn")],
        "mlp": [(layer, 1, "feed_forward") for layer in range(4)],
        "skip": [(layer, branch, "skip") for layer in range(4) for branch in range(2)],
    }
    assert parts.kinds == ["ssm", "mlp", "attention", "skip"]
    for kind, own in places.items():
        passed = [place for place in read if place[:2] in {place[:2] for place in own}]
        share = sum(read[place].sum() for place in own) / sum(read[place].sum() for place in passed)
        size = sum(read[place].abs().sum() for place in own) / sum(read[place].abs().sum() for place in passed)
        assert parts.shares[kind].item() == pytest.approx(share.item(), rel=1e-5)
        assert parts.size_shares[kind].item() == pytest.approx(size.item(), rel=1e-5)
        if kind != "skip":
            same(parts.by_token(kind)[0], sum(read[place] for place in own), 1e-5)


@pytest.mark.parametrize("method", ["gradient_x_input", "lrp_ln"])
def test_they_add_up_under_other_rules_too(method):
    found = make_explainable(build("granite-moe")).explain(rows()[0][None], method=method, per_layer=True)
    for layer, branch in enumerate(found.parts.branches[::2]):
        total = found.parts.relevance[branch].sum(0)
        torch.testing.assert_close(total, found.layer_relevance[layer], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["bamba-biases", "zamba2"])
def test_a_contrast_of_several_tokens(name):
    """Over the prompt, which both sides read, it is the difference of the two explained by themselves."""
    model, tokenizer = make_explainable(build(name)), word_tokenizer()
    options = {"tokenizer": tokenizer, "per_layer": True, "attention_rule": "attnlrp"}
    texts, length = ["a b c d e", "f a"], 5
    both = model.explain(texts, target=" f g h", contrast=" i j", **options)
    one, other = (model.explain(texts, target=side, **options).parts for side in (" f g h", " i j"))
    assert both.parts.names == one.names
    for row, words in enumerate((5, 2)):
        difference = one.relevance[:, row, :words] - other.relevance[:, row, :words]
        torch.testing.assert_close(both.parts.relevance[:, row, :words], difference, rtol=1e-5, atol=1e-5)
    assert both.parts.relevance.shape[1:] == both.relevance.shape == (2, length + 3)
    for branch, layer in zip(both.parts.branches[:1], both.layer_relevance, strict=False):
        around = embeddings_of(both.parts) if name == "zamba2" else 0
        torch.testing.assert_close(both.parts.relevance[branch].sum(0) + around, layer, rtol=1e-5, atol=1e-5)


def made():
    """Two rows of three tokens: attention and SSM side by side, then an MLP; the numbers are known."""
    numbers = [[1.0, 2.0, -1.0], [0.0, -4.0, 0.0], [6.0, 0.0, 0.0], [-1.0, 0.5, 0.0], [5.0, -0.5, 0.0]]
    first = torch.tensor(numbers)
    names = [(0, 0, "attention"), (0, 0, "ssm"), (0, 0, "skip"), (0, 1, "mlp"), (0, 1, "skip")]
    return PartRelevance(torch.stack([first, torch.zeros_like(first)], 1), names)


def explained(**fields):
    ex = explanation("one two three", "four five six", **fields)
    return Explanation(**{name: made() if name == "parts" else getattr(ex, name) for name in ex._names()})


def test_numbers_that_are_known():
    parts = made()
    assert parts.branches == [[0, 1, 2], [3, 4]]
    assert {kind: share[0].item() for kind, share in parts.shares.items()} == pytest.approx(
        {"attention": 2 / 4, "ssm": -4 / 4, "mlp": -0.5 / 4, "skip": 10.5 / 8}
    )
    assert {kind: share[0].item() for kind, share in parts.size_shares.items()} == pytest.approx(
        {"attention": 4 / 14, "ssm": 4 / 14, "mlp": 1.5 / 7, "skip": 11.5 / 21}
    )
    assert all(share[1].isnan() for share in parts.shares.values())
    assert [line.share for line in parts.table(1)] == [None] * 5
    assert parts.table()[1] == (0, 0, "ssm", -4.0, 4.0, -1.0, 4 / 14)
    assert parts.by_token("attention").tolist() == [[1.0, 2.0, -1.0], [0.0, 0.0, 0.0]]
    assert parts.conserving
    with pytest.raises(OptionError, match=r"kind='mamba' is not allowed; .*'attention', 'ssm', 'mlp', 'skip'"):
        parts.by_token("mamba")
    with pytest.raises(IndexError):
        parts.table(2)
    with pytest.raises(InputError, match=r"names has 1 entries, but relevance has shape \(5, 2, 3\)"):
        PartRelevance(parts.relevance, parts.names[:1])


def test_what_goes_round_the_layers():
    names = [(1, 0, "embeddings"), (1, 0, "shared block"), (1, 1, "ssm"), (1, 1, "skip")]
    parts = PartRelevance(torch.tensor([[[8.0, 1.0]], [[1.0, 1.0]], [[1.0, 0.0]], [[2.0, 0.0]]]), names)
    assert parts.branches == [[1, 2, 3]]
    assert not parts.conserving
    assert parts.around.item() == 9
    assert parts.shares["shared block"].item() == pytest.approx(2 / 5)
    assert parts.kinds == ["shared block", "ssm", "skip"]
    assert [line.share for line in parts.table()] == [None, 2 / 5, 1 / 5, 2 / 5]
    for text in (parts.to_text(width=200), parts.to_html(), repr(parts), parts._repr_html_()):
        assert ("goes round the layers before it" in text) is (text != repr(parts))
        assert "shared block" in text


def test_saved_loaded_indexed_and_joined(tmp_path):
    ex = explained()
    ex.save(tmp_path)
    assert Explanation.load(tmp_path) == ex
    assert Explanation.from_dict(json.loads(ex.to_json())) == ex
    ex.parts.save(tmp_path / "parts")
    assert load(tmp_path / "parts") == ex.parts
    assert ex[1].parts.relevance.count_nonzero() == 0
    assert len(ex.parts) == 2
    assert ex[0].parts == ex.parts[0]
    joined = Explanation.concat([ex[1], ex[0]])
    assert joined.parts.table(1) == ex.parts.table(0)
    assert joined.parts.names == ex.parts.names
    without = explanation("one two three")
    with pytest.raises(InputError, match="parts with parts and parts without"):
        Explanation.concat([ex, without])
    without.save(tmp_path)
    assert "parts" not in json.loads((tmp_path / "explanation.json").read_text())
    assert Explanation.load(tmp_path).parts is None
    with pytest.raises(InputError, match=r"parts has shape \(5, 2, 3\).*relevance has shape \(1, 3\)"):
        Explanation(**{name: made() if name == "parts" else getattr(without, name) for name in without._names()})


def test_rows_of_other_lengths_are_joined():
    model, tokenizer = make_explainable(build("bamba")), word_tokenizer()
    texts = ["a b c d e f", "g h"]
    apart = [model.explain(text, tokenizer=tokenizer, per_layer=True) for text in texts]
    joined = Explanation.concat(apart)
    for row, one in enumerate(apart):
        assert joined.parts.table(row) == one.parts.table()


def test_the_document_has_one_short_table():
    ex = explained()
    (grid,) = [block for block in ex.document().sections[0].blocks if isinstance(block, Grid)]
    assert grid.lines == [
        ("attention", "1", "+2.000", "50.0%", "28.6%"),
        ("SSM", "1", "-4.000", "-100.0%", "28.6%"),
        ("MLP", "1", "-0.500", "-12.5%", "21.4%"),
        ("skip", "2", "+5.250", "131.2%", "54.8%"),
    ]
    for text in (ex.to_html(), ex.to_text(width=120), markdown.body(ex.document()), ex._repr_html_()):
        for word in ("attention", "SSM", "-100.0%", "131.2%", "passes through the stream"):
            assert word in " ".join(text.split())
    nothing = ex[1].document().sections[0].blocks[-1]
    assert [line[3:] for line in nothing.lines] == [("–", "–")] * 4
    assert not any(isinstance(block, Grid) for block in explanation("a").document().sections[0].blocks)
    assert "1 more rows." in ex.parts.document(rows=1).left_out


def test_the_figure_has_signs_and_sums():
    pytest.importorskip("matplotlib")
    from matplotlib import pyplot as plt

    parts = made()
    ax = parts.plot().axes[0]
    spans = {bars.get_label(): [(bar.get_x(), bar.get_width()) for bar in bars] for bars in ax.containers}
    assert spans == {
        "attention": [(0, 2), (0, 0)],
        "SSM": [(0, -4), (0, 0)],
        "MLP": [(2, 0), (0, -0.5)],
        "skip": [(2, 6), (0, 4.5)],
    }
    (marks,) = [line for line in ax.lines if line.get_label() == "sum"]
    assert marks.get_xdata() == pytest.approx([4, 4])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["0"]
    figure, own = plt.subplots(figsize=(3, 3))
    assert parts.plot(1, ax=own) is figure
    plt.close(figure)
    with pytest.raises(IndexError):
        parts.plot(2)


def test_parts_along_the_text():
    pytest.importorskip("matplotlib")
    ex = explained()
    ax = ex.plot(per_part=True).axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["attention", "SSM", "MLP"]
    assert ax.images[0].get_array().tolist() == [[1.0, 2.0, -1.0], [0.0, -4.0, 0.0], [-1.0, 0.5, 0.0]]
    with pytest.raises(OptionError, match="two figures"):
        ex.plot(per_part=True, per_layer=True)
    with pytest.raises(InputError, match="there are no parts to draw"):
        explanation("a").plot(per_part=True)


def test_where_there_are_none(tmp_path):
    model, tokenizer = make_explainable(build("bamba")), word_tokenizer()
    assert model.explain([[3, 4]]).parts is None
    assert generation().step(1).parts is None
    explain_dataset(model, ["a b c"], tmp_path / "run", tokenizer=tokenizer, progress=False)
    (found,) = load_explanations(tmp_path / "run")
    assert found.parts is None
    assert found.layer_relevance is None


def test_it_is_shown(capsys):
    made().show()
    shown = capsys.readouterr().out
    assert shown.startswith("Who did the work?")
    assert "layer 0, SSM" in shown
    assert repr(made()).startswith("PartRelevance of 2 rows: 1 layers of attention, SSM, MLP")
    assert not math.isnan(made().around[0].item())
