"""Hidden attention against loops over the formula in float64, on every family, and the result object."""

import copy
import math
import re
from contextlib import nullcontext

import pytest
import torch
from accelerate import cpu_offload
from oracles import HFFloat64
from oracles_attention import alpha_by_loops, both_attended, signals_of_mixer, unified_by_loops
from random_models import padded_batch, random_model
from small import KINDS, word_tokenizer

from hf_mambalrp import HiddenAttention, make_explainable
from hf_mambalrp.attention import SelectiveMixing, attention_matrix
from hf_mambalrp.errors import InputError, NonFiniteRelevanceError, OptionError
from hf_mambalrp.families import FAMILIES, Network

every_kind = pytest.mark.parametrize("kind", KINDS)
BATCHES = [([1], "left"), ([7, 3, 1], "left"), ([6, 9, 2], "right")]


def largest(found, expected):
    return float((found.double() - expected).abs().max() / expected.abs().max())


@every_kind
@pytest.mark.parametrize(("lengths", "side"), BATCHES)
@torch.no_grad()
def test_raw_attention_is_the_formula(kind, lengths, side):
    model = make_explainable(random_model(**KINDS[kind], seed=1))
    ids, mask = padded_batch(lengths, side=side)
    per_head = 4 if "mamba2" in kind else 1
    mean = model.hidden_attention(ids, attention_mask=mask)
    channels = model.hidden_attention(ids, attention_mask=mask, reduce="none")
    strongest = model.hidden_attention(ids, attention_mask=mask, reduce=lambda block: block.amax(1))
    for layer in range(2):
        expected = alpha_by_loops(signals_of_mixer(model, layer, ids, mask)) * both_attended(mask)[:, None]
        assert largest(mean.matrix[layer], expected.mean(1)) < 1e-6
        assert largest(channels.matrix[layer], expected[:, ::per_head]) < 1e-6
        assert largest(strongest.matrix[layer], expected.amax(1)) < 1e-6
        assert (mean.matrix[layer][both_attended(mask) == 0] == 0).all()


@every_kind
@pytest.mark.parametrize(("lengths", "side"), BATCHES)
@torch.no_grad()
def test_unified_attention_is_the_formula(kind, lengths, side):
    model = make_explainable(random_model(**KINDS[kind], seed=2))
    ids, mask = padded_batch(lengths, side=side)
    mean = model.hidden_attention(ids, attention_mask=mask, kind="unified")
    channels = model.hidden_attention(ids, attention_mask=mask, kind="unified", reduce="none")
    for layer in range(2):
        H = unified_by_loops(model, layer, signals_of_mixer(model, layer, ids, mask), mask)
        H = H * both_attended(mask)[:, None]
        assert largest(mean.matrix[layer], H.mean(1)) < 1e-6
        assert largest(channels.matrix[layer], H) < 1e-6


@every_kind
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str)
def test_unified_attention_with_skip_and_bias_is_the_input_of_out_proj(kind, dtype, tolerance):
    model = random_model(**KINDS[kind], seed=3, dtype=dtype)
    ids, mask = padded_batch([11, 6], side="left")
    network = Network(model, FAMILIES)
    keep, seen = mask.to(dtype)[:, :, None], []
    model.backbone.layers[0].mixer.out_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        with HFFloat64() if dtype == torch.float64 else nullcontext():
            model(ids, attention_mask=mask, use_cache=False)
        ((_, s),) = network.mixings(0, network.embed(ids), network.plain_step(mask, network.embed(ids)))
        H = attention_matrix(s, keep, range(11), "none", "unified")
        raw = attention_matrix(s, keep, range(11), "none", "raw").repeat_interleave(4 if "mamba2" in kind else 1, 1)
    bias = torch.einsum("beij,bje->bie", raw, torch.sigmoid(s.c) * s.bias * keep)
    rebuilt = torch.einsum("beij,bje->bie", H, s.x) + s.scale * (bias + s.D * s.u)
    torch.testing.assert_close(rebuilt * keep, seen[0] * keep, rtol=tolerance, atol=tolerance)


@every_kind
@pytest.mark.parametrize("attention", ["raw", "unified"])
@pytest.mark.parametrize("rows", [0, -1, [4, 2, 3, 9], [-1, 0], slice(3, 9, 2)], ids=str)
def test_rows_are_rows_of_the_matrix(kind, attention, rows):
    model = make_explainable(random_model(**KINDS[kind], seed=4))
    ids, mask = padded_batch([10, 7], side="right")
    last = [9, 6]
    for reduce in ("mean", "none"):
        whole = model.hidden_attention(ids, attention_mask=mask, kind=attention, reduce=reduce)
        some = model.hidden_attention(
            ids, attention_mask=mask, kind=attention, reduce=reduce, positions=rows, layers=-1
        )
        for b in range(2):
            if isinstance(rows, slice):
                wanted = list(range(10))[rows]
            else:
                wanted = [r if r >= 0 else last[b] + 1 + r for r in (rows if isinstance(rows, list) else [rows])]
            assert some.positions[b].tolist() == wanted
            torch.testing.assert_close(some.matrix[0, b], whole.matrix[1, b][..., wanted, :], rtol=1e-6, atol=1e-7)


@every_kind
def test_padding_and_partners_change_nothing(kind):
    model = make_explainable(random_model(**KINDS[kind], seed=5))
    ids, _ = padded_batch([6])
    alone = model.hidden_attention(ids, kind="unified").matrix
    left, left_mask = torch.nn.functional.pad(ids, (3, 0)), torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1]])
    right, right_mask = torch.nn.functional.pad(ids, (0, 3)), left_mask.flip(1)
    found = model.hidden_attention(
        torch.cat([left, right]), attention_mask=torch.cat([left_mask, right_mask]), kind="unified"
    ).matrix
    torch.testing.assert_close(found[:, 0, 3:, 3:], alone[:, 0], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found[:, 1, :6, :6], alone[:, 0], rtol=1e-6, atol=1e-8)
    assert found[:, 0, :3].abs().sum() == found[:, 0, :, :3].abs().sum() == found[:, 1, 6:].abs().sum() == 0


@pytest.mark.parametrize("length", [2, 3, 37, 64, 100])
def test_mean_by_halves_in_blocks_of_channels_at_any_length(length, monkeypatch):
    """Steps so large that most decays are far below the smallest float32 must not spoil the others."""
    monkeypatch.setattr("hf_mambalrp.attention.selective.CPU_ELEMENTS", 200)
    monkeypatch.setattr("hf_mambalrp.attention.selective.INNER", 8)
    generator = torch.Generator().manual_seed(length)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, dt, B, C = normal(2, length, 5), normal(2, length, 5).exp(), normal(2, length, 4), normal(2, length, 4)
    A = -normal(5, 4).exp()
    nothing = torch.zeros(5, dtype=torch.float64)
    sums = dt.cumsum(1)
    decay = torch.exp((sums[:, :, None] - sums[:, None])[..., None] * A)  # (B, i, j, E, N)
    expected = torch.einsum("bin,bijen,bje,bjn->bij", C, decay, dt, B).tril() / 5
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        map_of = [p.to(dtype) for p in (x, x, x, nothing, nothing[:, None], nothing, x)]
        s = SelectiveMixing(*map_of, torch.clone, *(p.to(dtype) for p in (dt, A, B, C)))
        assert largest(s.mean(range(length), None), expected) < tolerance
        rows = range(length // 2, length)
        assert largest(s.mean(rows, None), expected[:, length // 2 :]) < tolerance


def test_offloaded_weights_and_half_precision():
    model = random_model(dtype=torch.float32, seed=6)
    ids, _ = padded_batch([8])
    expected = make_explainable(copy.deepcopy(model)).hidden_attention(ids, kind="unified").matrix
    offloaded = make_explainable(cpu_offload(copy.deepcopy(model), torch.device("cpu")))
    assert torch.equal(offloaded.hidden_attention(ids, kind="unified").matrix, expected)
    half = make_explainable(copy.deepcopy(model).bfloat16())
    found = half.hidden_attention(ids, kind="unified").matrix
    rounded = make_explainable(copy.deepcopy(model).bfloat16().float()).hidden_attention(ids, kind="unified").matrix
    torch.testing.assert_close(found, rounded, rtol=1e-5, atol=1e-7)


def test_the_model_is_left_as_it_was():
    model = make_explainable(random_model(dtype=torch.float32))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids, _ = padded_batch([5])
    with torch.inference_mode():
        first = model.hidden_attention(ids)
    assert first == model.hidden_attention(ids)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": 2}, ["layers=2", "0..1"]),
        ({"layers": []}, ["layers=[]", "0..1"]),
        ({"layers": [0, True]}, ["True"]),
        ({"kind": "rolled"}, ["'rolled'", "'raw'", "'unified'"]),
        ({"reduce": "max"}, ["'max'", "'mean'"]),
        ({"reduce": lambda block: block.sum()}, ["shape ()", "(1, 4, 4)"]),
        ({"reduce": lambda block: 1}, ["int"]),
        ({"positions": 4}, ["positions=4", "4 positions"]),
        ({"positions": -5}, ["positions=-5"]),
        ({"positions": slice(9, 12)}, ["slice(9, 12"]),
        ({"positions": [0.5]}, ["[0.5]"]),
    ],
)
def test_options_that_are_not_allowed(options, words):
    model = make_explainable(random_model())
    with pytest.raises(OptionError) as raised:
        model.hidden_attention(torch.tensor([[1, 2, 3, 4]]), **options)
    for word in words:
        assert word in str(raised.value)


def test_no_input_and_weights_that_are_not_finite():
    model = make_explainable(random_model())
    with pytest.raises(InputError, match="no input"):
        model.hidden_attention()
    model.backbone.layers[0].mixer.x_proj.weight.data[0] = math.nan
    with pytest.raises(NonFiniteRelevanceError, match="matrix holds nan"):
        model.hidden_attention(torch.tensor([[1, 2]]), check_forward=False)


def result(**options):
    model = make_explainable(random_model(seed=7))
    texts = ["a b c d", "<unk> e"]
    return model.hidden_attention(texts, tokenizer=word_tokenizer(), **options)


@pytest.mark.parametrize("reduce", ["mean", "none"])
def test_a_result_is_saved_loaded_and_sliced(reduce, tmp_path):
    whole = result(reduce=reduce, layers=[1, 0])
    assert whole.tokens[0] == ["a", "b", "c", "d"]
    assert whole.kind == "raw"
    assert len(whole) == 2
    whole.save(tmp_path)
    assert HiddenAttention.load(tmp_path) == whole
    assert HiddenAttention.from_dict(whole.to_dict()) == whole
    second = whole[1]
    assert torch.equal(second.matrix, whole.matrix[:, 1:])
    assert second.tokens == [whole.tokens[1]]
    expected = whole.matrix[1, 0].mean(0) if reduce == "none" else whole.matrix[1, 0]
    assert torch.equal(whole.map(0), expected)
    assert "layers [1, 0]" in repr(whole)
    with pytest.raises(OptionError, match="layer=5"):
        whole.map(5)
    with pytest.raises(IndexError):
        whole.map(0, row=2)


def test_fields_that_disagree_are_refused():
    whole = result()
    with pytest.raises(InputError, match="layers"):
        HiddenAttention(**{**vars(whole), "layers": [0]})
    with pytest.raises(InputError, match="tokens"):
        HiddenAttention(**{**vars(whole), "tokens": [["a"], ["b"]]})


def test_html_is_escaped_self_contained_and_signed(tmp_path):
    whole = result(kind="unified")
    whole.tokens[0][0] = "<script>alert(1)</script>"
    page = whole.to_html(tmp_path / "map.html", title="<b>")
    assert (tmp_path / "map.html").read_text(encoding="utf-8") == page
    assert "<script" not in page
    assert "&lt;script" in page
    assert "<title>&lt;b&gt;</title>" in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<details") == 4  # two rows, two layers
    assert page.count('<th scope="row">') == 2 * (4 + 2)  # padding is not shown
    peak = whole.map(1, 0).abs().max().item()
    assert re.search(rf'class="(p20|n n20)" title="[+-]{peak:.3f}"', page)
    assert "Layer 1" in whole._repr_html_()
    assert "Layer 0" not in whole._repr_html_()


def test_the_figure_holds_the_attended_matrix_around_a_white_zero():
    whole = result()
    figure = whole.plot(layer=0, row=1)
    axes = figure.axes[0]
    image = axes.images[0]
    torch.testing.assert_close(torch.as_tensor(image.get_array().data), whole.matrix[0, 1, :2, :2])
    assert image.norm.vmin == -image.norm.vmax
    assert [label.get_text() for label in axes.get_xticklabels()] == ["<unk>", "e"]


def test_a_long_input_is_drawn_in_groups_by_their_strongest_value():
    length = 100
    matrix = torch.zeros(1, 1, length, length)
    matrix[0, 0, 50, 7], matrix[0, 0, 51, 6] = -3.0, 2.0
    tokens = [[f"t{i}" for i in range(length)]]
    ones = torch.ones(1, length, dtype=torch.long)
    long = HiddenAttention(matrix, [0], torch.arange(length)[None], "raw", tokens, ones, ones)
    drawn = long.plot().axes[0]
    shown = torch.as_tensor(drawn.images[0].get_array().data)
    assert shown.shape == (34, 34)  # 48 at most: groups of 3
    assert shown[50 // 3, 7 // 3].item() == -3.0
    assert shown[51 // 3, 6 // 3].item() == 2.0
    assert "3 x 3" in long.to_html()


def by_hand(matrix, positions, **fields):
    """Attention of the tokens of "a b a ..." with these numbers: (layers, B, R, L)."""
    batch, length = matrix.shape[1], matrix.shape[-1]
    tokens = [[" b" if i % 2 else " a" for i in range(length)]] * batch
    ones = torch.ones(batch, length, dtype=torch.long)
    defaults = {
        "layers": list(range(len(matrix))),
        "positions": torch.tensor([positions] * batch),
        "kind": "raw",
        "tokens": tokens,
        "input_ids": ones,
        "attention_mask": ones,
        "model_id": "me/mamba",
    }
    return HiddenAttention(matrix, **{**defaults, **fields})


def test_printed_it_says_what_the_last_position_reads_most(capsys):
    matrix = torch.zeros(2, 1, 3, 3)
    matrix[0, 0, 2], matrix[0, 0, 1] = torch.tensor([0.25, -2.0, 1.0]), torch.tensor([9.0, 9.0, 0.0])
    found = by_hand(matrix, [0, 1, 2])
    expected = [
        "HiddenAttention of 1 row: raw attention, model me/mamba",
        "[0] what a position reads most strongly",
        "    layer 0, position 2 “a”: “b” -2.000, “a” +1.000, “a” +0.250",
        "    layer 1, position 2 “a”: nothing",
    ]
    assert str(found).splitlines() == expected
    found.show()
    assert capsys.readouterr().out.splitlines() == expected
    assert repr(found) == "HiddenAttention(raw, layers [0, 1], matrix (2, 1, 3, 3), model me/mamba)"


def test_printed_it_lists_the_positions_asked_for_and_leaves_padding_out():
    matrix = torch.arange(1.0, 9.0).view(1, 1, 2, 4).expand(-1, 2, -1, -1)
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    lines = str(by_hand(matrix, [1, 3], attention_mask=mask)).splitlines()
    assert lines[2:4] == [
        "    layer 0, position 1 “b”: “b” +4.000, “a” +3.000, “b” +2.000, “a” +1.000",
        "    layer 0, position 3 “b”: “b” +8.000, “a” +7.000, “b” +6.000, “a” +5.000",
    ]
    assert lines[5:] == ["    layer 0, position 3 “b”: “b” +8.000, “a” +7.000"], "position 1 of row 1 is padding"


def test_printed_it_stays_short_and_safe():
    matrix = torch.rand(30, 9, 8, 20, generator=torch.Generator().manual_seed(0))
    long = by_hand(matrix, list(range(12, 20)), tokens=[["\x1b[31m\u202e"] * 20] * 9)
    text = str(long)
    assert len(text.splitlines()) == 2 + 3 * (1 + 4 * 3)
    assert "of 30 layers the last 4" in text
    assert "layer 25," not in text
    assert text.endswith("... and 6 more rows")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert text.count(" +0.") == 3 * 4 * 3 * 5, "the 5 strongest keys of each"
