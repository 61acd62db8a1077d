"""Hidden attention of hybrids and the methods on it: loops over the formulas, transformers' weights and gradients.

Matrices of one row without padding come from the oracle's parts, whose forward is transformers' own
(`test_oracle_forward`): alpha of a state-space mixer by loops over dt, A, B, C; A of softmax attention by loops over
heads and positions. Rollout and Mamba-Attribution are dense products of them, with gradients by autograd through
transformers' own modules.
"""

import re
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracle_branches import SharedBranch
from oracle_delta import DeltaNet, ShortConv
from oracle_families import network_of
from oracle_linear import RGLRU, Lightning
from oracle_softmax import Attention
from oracle_ssm import Mamba1, Mamba2
from oracles_attention import alpha_by_loops
from small_hybrids import VOCABULARY, available, build, crossed, explainable, one_each, shared
from test_oracle_forward import Float64
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_mambalrp import HiddenAttention, make_explainable
from hf_mambalrp.attention import attention_matrix, weighted_rows
from hf_mambalrp.errors import OptionError
from hf_mambalrp.families import FAMILIES, Network
from hf_mambalrp.methods.random_relevance import row_generators, standard_normal

LENGTHS, WIDEST = [9, 6, 1], 9
TABLE = {
    "bamba": [["ssm"], ["attention"]] * 2,
    "granite": [["ssm"], ["attention"]] * 2,
    "falcon_h1": [["ssm", "attention"]] * 4,
    "nemotron_h": [["ssm"], [], ["attention"], ["ssm"], []],
    "nemotron_h-moe": [["ssm"], [], ["attention"], [], ["ssm"]],
    "jamba-dense": [["ssm"], ["attention"]] * 2,
    "jamba-moe": [["ssm"], ["attention"], ["ssm"], ["attention"], ["ssm"]],
    "zamba2": [["ssm"]] * 2 + [["attention", "ssm"]] * 3 + [["ssm"]],
    "zamba2-uneven": [["ssm"], ["attention", "ssm"], ["ssm"], ["attention", "ssm"], ["attention", "ssm"], ["ssm"]],
    "zamba2-plain": [["ssm"], ["attention", "ssm"]] * 2,
    "zamba": [["ssm"], ["attention", "ssm"], ["ssm"], ["attention", "ssm"], ["ssm"]],
}
"""What mixes positions in every layer, by the settings of `small_hybrids`."""
KINDS = {Mamba1: "ssm", Mamba2: "ssm", DeltaNet: "delta", ShortConv: "conv", Attention: "attention"}
KINDS |= {Lightning: "linear", RGLRU: "linear"}
DELTA, CONV = [["delta"], ["attention"]] * 2, [["conv"], ["attention"]] * 2
TABLE |= {"qwen3_next": DELTA, "qwen3_5": DELTA, "olmo_hybrid": DELTA, "kimi_linear": DELTA, "lfm2": CONV}
TABLE |= {"bailing_hybrid": [["delta"], ["attention"]], "minimax": [["linear"], ["attention"]]}
TABLE |= {"recurrent_gemma": TABLE["minimax"]}
TABLE |= {"nemotron_h-latent": TABLE["nemotron_h-moe"], "zamba2-one-chunk": TABLE["zamba2"]}
every_model = pytest.mark.parametrize("name", available())
every_family = pytest.mark.parametrize("name", one_each())


def mixers_of(name):
    """(layer, part) of every matrix."""
    layers = TABLE.get(name) or TABLE[name.split("-")[0]]
    return [(number, part) for number, parts in enumerate(layers) for part in parts]


def rows():
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(1, VOCABULARY, (length,), generator=generator) for length in LENGTHS]


def padded(side):
    """The texts as one batch, with something else than a pad token on the padding."""
    ids, mask = torch.full((len(LENGTHS), WIDEST), 17), torch.zeros(len(LENGTHS), WIDEST, dtype=torch.long)
    for number, row in enumerate(rows()):
        at = slice(WIDEST - len(row), None) if side == "left" else slice(len(row))
        ids[number, at], mask[number, at] = row, 1
    return ids, mask


@torch.no_grad()
def oracle_parts(model, row):
    """The oracle's mixers after a forward of a row, by (layer, part)."""
    network = network_of(model, "cp")
    embeddings = h = network.embedding_multiplier * network.embedding[row]
    found = {}
    for number, layer in enumerate(network.layers):
        for branch in layer:
            h = branch.forward(h, embeddings)
            if isinstance(branch, SharedBranch):
                parts = [branch.attention, branch.mamba]
            else:
                parts = [scaled.part for scaled in branch.parts.values()]
            for part in parts:
                if type(part) in KINDS:
                    found[number, KINDS[type(part)]] = part
    return found


@cache
def parts_of(name):
    """The oracle's mixers after a forward of each of the texts, by (layer, part)."""
    return [oracle_parts(shared(name), row) for row in rows()]


@cache
def means_of(name):
    """Of each of the texts the mean matrix of every mixer, by (layer, part)."""
    return [{place: channels_of(part).mean(0) for place, part in parts.items()} for parts in parts_of(name)]


def channels_of(part):
    """alpha of every channel, or A of every head. Shape: (E or H, L, L)."""
    if isinstance(part, Attention):
        return part.weights
    if isinstance(part, ShortConv | RGLRU):
        return part.alpha()
    if isinstance(part, DeltaNet | Lightning):
        return torch.stack([scan.alpha() for scan in part.scans]).repeat_interleave(part.P, 0)
    signals = {name: [] for name in ("dt", "A", "B", "C")}
    for scan in part.scans:
        width = len(scan.A)
        signals["dt"].append(scan.dt)
        signals["A"].append(scan.A)
        signals["B"].append(scan.B[:, None].expand(-1, width, -1))
        signals["C"].append(scan.C[:, None].expand(-1, width, -1))
    dt, A, B, C = torch.cat(signals["dt"], -1), torch.cat(signals["A"]), *(torch.cat(signals[n], 1) for n in "BC")
    return alpha_by_loops({"u": dt[None], "dt": dt[None], "A": A, "B": B[None], "C": C[None]})[0]


def unified_of(part):
    """diag(scale) alpha diag(sigmoid(c)) M_conv of a scan, A of attention. Shape: (E or H, L, L)."""
    alpha = channels_of(part)
    inner, length = alpha.shape[:2]
    if isinstance(part, Attention):
        heads = part.opened.shape[1] // len(alpha)
        return alpha if part.gate is None else part.opened.T[..., None] * alpha.repeat_interleave(heads, 0)
    if isinstance(part, ShortConv):
        return part.C.T[..., None] * alpha * part.B.T[:, None]
    if isinstance(part, Lightning):
        return part.scale.T[..., None] * alpha * torch.sigmoid(part.c).T[:, None]
    values = slice(-inner, None) if isinstance(part, DeltaNet) else slice(inner)
    if isinstance(part, RGLRU):
        taps, sigmoid = part.taps, torch.ones_like(part.c)  # no activation
    else:
        c, taps = part.conv.c[:, values], part.conv.taps[values]
        sigmoid = torch.sigmoid(c)
    if isinstance(part, DeltaNet | RGLRU):
        scale = part.scale
    else:
        D = torch.cat([scan.D for scan in part.scans])
        y = torch.einsum("eij,je->ie", alpha, c * sigmoid) + D * c * sigmoid
        scale = part.gate.forward(y, part.gate.z) / y
    H, K = torch.zeros_like(alpha), taps.shape[1]
    for k in range(length):
        for j in range(max(0, k - K + 1), k + 1):
            H[:, :, j] += scale.T * alpha[:, :, k] * (sigmoid[k] * taps[:, K - 1 - (k - j)])[:, None]
    return H


def mixes(module):
    """What a module of transformers with a projection behind it mixes positions by; None of another."""
    if hasattr(module, "conv"):
        return "conv"
    if hasattr(module, "qkv_proj") or hasattr(module, "rg_lru"):
        return "linear"
    if hasattr(module, "conv1d"):
        return "ssm" if hasattr(module, "D") else "delta"
    return "attention" if hasattr(module, "q_proj") or hasattr(module, "kv_a_proj_with_mqa") else None


def close(found, expected, tolerance=1e-6):
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def unpadded(matrix, mask, number):
    """The rows and columns of a row's tokens; the others must be 0."""
    at = mask[number] != 0
    both = at[:, None] & at
    assert (matrix[..., ~both] == 0).all()
    return matrix[..., at, :][..., at]


@pytest.mark.parametrize(("name", "kind", "side"), crossed(available(), ("raw", "unified"), ("left", "right")))
def test_matrices_are_the_formulas(name, kind, side):
    model = explainable(name)
    ids, mask = padded(side)
    mean = model.hidden_attention(ids, attention_mask=mask, kind=kind)
    strongest = model.hidden_attention(ids, attention_mask=mask, kind=kind, reduce=lambda block: block.amax(1))
    assert list(zip(mean.layers, mean.parts, strict=True)) == mixers_of(name)
    every = {
        part: model.hidden_attention(ids, attention_mask=mask, kind=kind, reduce="none", part=part)
        for part in {part for _, part in mixers_of(name)}
    }
    for number, parts in enumerate(parts_of(name)):
        assert sorted(parts) == sorted(mixers_of(name))
        for k, (layer, part) in enumerate(mixers_of(name)):
            expected = (channels_of if kind == "raw" else unified_of)(parts[layer, part])
            close(unpadded(mean.matrix[k, number], mask, number), expected.mean(0))
            close(unpadded(strongest.matrix[k, number], mask, number), expected.amax(0))
            channels = every[part].matrix[every[part].layers.index(layer), number]
            repeats = len(channels) / len(expected)  # of Mamba-2 raw, channels of a head; of attention unified, heads'
            if repeats < 1:
                expected = expected[:: round(1 / repeats)]
            close(unpadded(channels, mask, number), expected.repeat_interleave(max(1, round(repeats)), 0))


@every_model
@torch.no_grad()
def test_attention_is_transformers_own(name):
    model = build(name)
    row, seen = rows()[0][None], []
    for module in model.modules():
        if mixes(module) == "attention":
            module.register_forward_hook(lambda _module, _inputs, output: seen.append(output[1]))
    with Float64():
        model(row, use_cache=False)
    found = make_explainable(model).hidden_attention(row, part="attention", reduce="none", check_forward=False)
    assert {*found.parts} == {"attention"}
    assert len(seen) == len(found.layers)
    for matrix, weights in zip(found.matrix, seen, strict=True):
        close(matrix, weights)
        torch.testing.assert_close(matrix.sum(-1), torch.ones(matrix.shape[:-1]))


def test_layers_and_parts_that_are_asked_for():
    model = make_explainable(build("nemotron_h" if "nemotron_h" in available() else "bamba"))
    ids, layers = rows()[0][None], len(model.model.layers)
    whole = model.hidden_attention(ids)
    ssm = model.hidden_attention(ids, part="ssm", layers=[whole.layers[-1], 0])
    for k, layer in enumerate(ssm.layers):
        assert torch.equal(ssm.matrix[k], whole.matrix[whole.layers.index(layer)])
    without = sorted({*range(layers)} - {*whole.layers})
    for layer in without:
        with pytest.raises(OptionError, match=rf"layers={layer} .*nothing in layer {layer} mixes.*\[0, 2, 3\]"):
            model.hidden_attention(ids, layers=layer)
    with pytest.raises(OptionError, match=r"layers=\[0\].*layer 0 is 'attention'"):
        model.hidden_attention(ids, layers=[0], part="attention")
    with pytest.raises(OptionError, match=r"reduce='none'.*part='ssm'.*part='attention'"):
        model.hidden_attention(ids, reduce="none")
    with pytest.raises(OptionError, match=r"part='mamba'.*'ssm', 'delta', 'conv', 'linear', 'attention'"):
        model.hidden_attention(ids, part="mamba")
    one = model.hidden_attention(ids, layers=0, reduce="none")
    assert one.parts == ["ssm"]


def test_attention_of_a_model_that_has_none():
    from random_models import random_model

    model = make_explainable(random_model())
    with pytest.raises(OptionError, match=r"part='attention'.*\['ssm'\]"):
        model.hidden_attention(torch.tensor([[1, 2]]), part="attention")
    found = model.hidden_attention(torch.tensor([[1, 2]]))
    assert found == model.hidden_attention(torch.tensor([[1, 2]]), part="ssm")
    assert found.parts == ["ssm", "ssm"]


def test_a_result_of_two_parts_is_saved_shown_and_read(tmp_path):
    model = make_explainable(build("falcon_h1"))
    found = model.hidden_attention(rows()[0][None], layers=[2, 0])
    assert found.layers == [2, 2, 0, 0]
    assert found.parts == ["ssm", "attention"] * 2
    found.save(tmp_path)
    assert HiddenAttention.load(tmp_path) == found
    assert HiddenAttention.from_dict(found.to_dict()) == found
    assert torch.equal(found.map(2, part="attention"), found.matrix[1, 0])
    assert torch.equal(found.map(part="ssm"), found.matrix[2, 0])
    assert torch.equal(found.map(), found.matrix[3, 0])
    with pytest.raises(OptionError, match=r"layer=2 has several.*'ssm', 'attention'.*part="):
        found.map(2)
    with pytest.raises(OptionError, match=r"layer=1 with part='ssm' is not"):
        found.map(1, part="ssm")
    assert "parts ['ssm', 'attention'" in repr(found)
    assert "layer 0, attention, position 8" in str(found)
    page = found.to_html()
    assert list(dict.fromkeys(re.findall(r"Layer \d, \w+", page))) == [
        "Layer 2, ssm",
        "Layer 2, attention",
        "Layer 0, ssm",
        "Layer 0, attention",
    ]
    assert page.count("<details open") == 2
    shown = found.document(layers=[2]).sections[0].blocks
    assert [block.title for block in shown[1:]] == ["Layer 2, ssm", "Layer 2, attention"]
    drawn = found.plot(layer=2, part="attention").axes[0]
    assert drawn.get_title("left") == "Hidden attention of layer 2, attention"
    torch.testing.assert_close(torch.as_tensor(drawn.images[0].get_array().data), found.matrix[1, 0])


def test_what_was_written_without_parts_is_of_state_space_mixers():
    found = make_explainable(build("bamba")).hidden_attention(rows()[0][None], part="ssm")
    data = found.to_dict()
    assert data.pop("parts") == ["ssm", "ssm"]
    assert HiddenAttention.from_dict(data) == found


@every_model
@torch.no_grad()
def test_weighted_rows_and_blocks_of_rows_are_rows_of_the_mean(name, monkeypatch):
    model, (ids, mask) = shared(name), padded("right")
    network = Network(model, FAMILIES)
    plain = network.plain_step(mask, network.embed(ids))
    weights = torch.randn(mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * mask
    streams = network.streams(network.embed(ids), plain)
    for layer, stream in zip(range(len(network.layers)), streams, strict=False):
        for _, mixing in network.mixings(layer, stream, plain):
            keep = mask.double()[..., None]
            whole = attention_matrix(mixing, keep, range(WIDEST), "mean", "raw")
            close(weighted_rows(mixing, weights) * mask, torch.einsum("bi,bij->bj", weights, whole), 1e-12)
            with monkeypatch.context() as patch:
                patch.setattr("hf_mambalrp.attention.matrix.BLOCK_ELEMENTS", 100)
                close(attention_matrix(mixing, keep, range(2, 8), "mean", "raw"), whole[:, 2:8], 1e-12)


class Largest(TorchDispatchMode):
    """The most numbers that a tensor has."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for x in [found] if isinstance(found, torch.Tensor) else tree_leaves(found):
            if isinstance(x, torch.Tensor) and x.numel() > self.elements:
                self.elements = x.numel()
        return found


@pytest.mark.parametrize("method", ["raw_attention", "attention_rollout", "mamba_attribution"])
@pytest.mark.parametrize(
    "name", [name for name in ("bamba", "falcon_h1", "zamba", "qwen3_5", "lfm2") if name in available()]
)
def test_no_matrix_of_the_length_squared_is_held(name, method, monkeypatch):
    monkeypatch.setattr("hf_mambalrp.attention.matrix.BLOCK_ELEMENTS", 2**12)
    monkeypatch.setattr("hf_mambalrp.methods.mamba_attribution.MATRIX_ELEMENTS", 2**12)
    monkeypatch.setattr("hf_mambalrp.ops.ssd_scan.chunked.ELEMENTS", 2**12)
    model, length = make_explainable(build(name, dtype=torch.float32)), 260
    ids = torch.randint(1, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(0))
    with Largest() as largest:
        model.explain(ids, target=1, method=method, check_forward=False)
    assert largest.elements < length**2 / 2


def gradients_of(model, name, row, target):
    """d logit / d input of out_proj and o_proj at every position by autograd, the mean over channels: (layer, part)."""
    seen, hooks = {}, []
    for module in model.modules():
        for out in (getattr(module, name, None) for name in ("out_proj", "o_proj", "linear_out")):
            if out is not None:
                own = seen.setdefault(mixes(module), [])
                hooks.append(out.register_forward_pre_hook(lambda _module, inputs, own=own: own.append(inputs[0])))
    with Float64():
        logit = model(row[None], use_cache=False).logits[0, -1, target]
    for hook in hooks:
        hook.remove()
    found = {}
    for part, tensors in seen.items():
        layers = [layer for layer, kind in mixers_of(name) if kind == part]
        gradients = torch.autograd.grad(logit, tensors, retain_graph=True)
        found.update({(k, part): g[0].mean(-1) for k, g in zip(layers, gradients, strict=True)})
    return found


def rolled_out(name, matrices, length):
    """Row of the last position of the product over layers, side by side or through Zamba's shared block."""
    eye = torch.eye(length, dtype=torch.float64)
    product, number = eye, max(layer for layer, _ in matrices) + 1
    for layer in range(number):
        own = {part: matrix for (place, part), matrix in matrices.items() if place == layer}
        zamba = name.startswith("zamba") and "attention" in own
        added = own["ssm"] @ (eye + own["attention"]) if zamba else sum(own.values(), torch.zeros_like(eye))
        product = (eye + added) @ product
    return product[-1]


@every_family
@pytest.mark.parametrize("side", ["left", "right"])
def test_raw_attention_is_the_mean_over_the_layers_of_the_mean_over_a_layers_mixers(name, side):
    model, (ids, mask) = explainable(name), padded(side)
    found = model.explain(ids, attention_mask=mask, target=5, method="raw_attention")
    for number, means in enumerate(means_of(name)):
        by_layer = {}
        for (layer, _), matrix in means.items():
            by_layer.setdefault(layer, []).append(matrix[-1])
        expected = sum(sum(read) / len(read) for read in by_layer.values()) / len(by_layer)
        close(found.relevance[number, mask[number] != 0], expected)
        assert (found.relevance[number, mask[number] == 0] == 0).all()


@every_family
@pytest.mark.parametrize("side", ["left", "right"])
def test_rollout_is_the_product_of_matrices(name, side):
    model, (ids, mask) = explainable(name), padded(side)
    found = model.explain(ids, attention_mask=mask, target=5, method="attention_rollout")
    for number, means in enumerate(means_of(name)):
        close(found.relevance[number, mask[number] != 0], rolled_out(name, means, LENGTHS[number]))
        assert (found.relevance[number, mask[number] == 0] == 0).all()


@every_family
def test_mamba_attribution_is_the_product_of_matrices_weighted_by_transformers_gradients(name):
    model, expected = explainable(name), []
    for row, means in zip(rows(), means_of(name), strict=True):
        gradients = gradients_of(model, name, row, 5)
        weighted = {place: (gradients[place][:, None] * mean).clamp(min=0) for place, mean in means.items()}
        expected.append(rolled_out(name, weighted, len(row)))
    for side in ("left", "right"):
        ids, mask = padded(side)
        found = model.explain(ids, attention_mask=mask, target=5, method="mamba_attribution").relevance
        for number, wanted in enumerate(expected):
            close(found[number, mask[number] != 0], wanted)
            assert (found[number, mask[number] == 0] == 0).all()


def test_mamba_attribution_of_zamba_reads_the_gradient_before_the_blocks_mlp():
    """Behind the MLP it would be another one, which the test above must be able to tell."""
    model, row = build("zamba"), rows()[0]
    parts, behind = oracle_parts(model, row), []
    (layer, *_) = [layer for layer, part in parts if part == "attention"]
    model.model.layers[layer].linear.register_forward_hook(lambda _m, _i, output: behind.append(output))
    with Float64():
        logit = model(row[None], use_cache=False).logits[0, -1, 5]
    (at_output,) = torch.autograd.grad(logit, behind)
    wrong = (at_output[0] @ model.model.layers[layer].shared_transf.self_attn.o_proj.weight).mean(-1)
    right = gradients_of(model, "zamba", row, 5)[layer, "attention"]
    assert (wrong - right).norm() > 0.1 * right.norm()


@pytest.mark.parametrize("name", ["falcon_h1", "zamba2-one-chunk"])
def test_blocks_of_rows_change_nothing(name, monkeypatch):
    model, (ids, mask) = explainable(name), padded("left")
    whole = model.explain(ids, attention_mask=mask, target=1, method="mamba_attribution").relevance
    monkeypatch.setattr("hf_mambalrp.methods.mamba_attribution.MATRIX_ELEMENTS", 40)
    monkeypatch.setattr("hf_mambalrp.attention.matrix.BLOCK_ELEMENTS", 40)
    found = model.explain(ids, attention_mask=mask, target=1, method="mamba_attribution").relevance
    torch.testing.assert_close(found, whole, rtol=1e-6, atol=1e-8)


@every_family
def test_latim_is_refused_with_a_reason(name):
    model = explainable(name)
    with pytest.raises(OptionError, match=r"'latim' takes apart layers.*'(attention|shared block)'.*Choose another"):
        model.explain(rows()[0][None], target=1, method="latim", check_forward=False)


def score_of(model, network, embeddings, target):
    """transformers' logit at the last position, of embeddings (1, L, D) as the first layer reads them."""
    scale = getattr(model.config, "embedding_multiplier", 1.0) if model.config.model_type == "granitemoehybrid" else 1.0
    scale = float(getattr(model.model, "normalizer", scale))
    with Float64():  # Granite and RecurrentGemma scale embeddings that they are given, Falcon-H1 does not
        return model(inputs_embeds=embeddings / scale, use_cache=False).logits[0, -1, target]


def gradient_at(model, network, embeddings, target):
    x = embeddings.detach().clone().requires_grad_()
    return torch.autograd.grad(score_of(model, network, x, target), x)[0]


@every_family
@pytest.mark.parametrize("method", ["gradient_x_input", "integrated_gradients", "smoothgrad", "occlusion"])
def test_methods_on_the_embeddings_by_transformers_own_forward(name, method):
    model = explainable(name)
    row, network = rows()[0][None], Network(model, FAMILIES)
    x = network.embed(row)
    options = {"integrated_gradients": {"steps": 3}, "smoothgrad": {"samples": 2}}.get(method, {})
    found = model.explain(row, target=5, method=method, **options).relevance
    if method == "gradient_x_input":
        expected = (x * gradient_at(model, network, x, 5)).sum(-1)
    elif method == "integrated_gradients":
        nodes, weights = np.polynomial.legendre.leggauss(3)
        steps = zip((nodes + 1) / 2, weights / 2, strict=True)
        expected = sum((w * x * gradient_at(model, network, float(a) * x, 5)).sum(-1) for a, w in steps)
    elif method == "smoothgrad":
        generators = row_generators(SimpleNamespace(embeddings=x, mask=torch.ones_like(row)), 0)
        deviation = 0.15 * (x.max() - x.min())
        noisy = [x + deviation * standard_normal(generators, torch.ones_like(row), x.shape[-1]) for _ in range(2)]
        expected = sum((x * gradient_at(model, network, one.double(), 5)).sum(-1) / 2 for one in noisy)
    else:
        expected = torch.zeros(row.shape, dtype=torch.float64)
        with torch.no_grad():
            whole = score_of(model, network, x, 5)
            for i in range(row.shape[1]):
                occluded = x.clone()
                occluded[:, i] = 0
                expected[0, i] = whole - score_of(model, network, occluded, 5)
    close(found[0], expected[0], 5e-6)  # routers and noise are float32


@pytest.mark.parametrize("name", ["falcon_h1", "zamba"])
def test_random_relevance_is_of_every_token(name):
    model, (ids, mask) = explainable(name), padded("left")
    found = model.explain(ids, attention_mask=mask, target=5, method="random").relevance
    assert torch.equal(found != 0, mask != 0)
