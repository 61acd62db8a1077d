"""Hidden attention of both directions against the formula, and what is made of it, in float64 loops."""

import pytest
import torch
from oracle_vim import direction, rms_norm, silu, softplus, vim_forward
from small_vim import KINDS, pixels_for, released, small_vim

from hf_mambalrp import load, make_explainable
from hf_mambalrp.errors import OptionError

every_kind = pytest.mark.parametrize("kind", KINDS)


def mixer_parts(weights, layer, hidden):
    """For each direction of a mixer: alpha (B, E, L, L) in the model's order, u, D, conv output c; and x, z."""
    name = f"layers.{layer}.mixer"
    xz = rms_norm(hidden, weights[f"layers.{layer}.norm.weight"]) @ weights[f"{name}.in_proj.weight"].T
    x, z = xz.chunk(2, -1)
    found = []
    for suffix in ("", "_b"):
        inputs = x if suffix == "" else x.flip(1)
        conv, bias = weights[f"{name}.conv1d{suffix}.weight"][:, 0], weights[f"{name}.conv1d{suffix}.bias"]
        K, (B, L, E) = conv.shape[1], inputs.shape
        c = bias.expand(B, L, E).clone()
        for t in range(L):
            for k in range(K):
                if t - K + 1 + k >= 0:
                    c[:, t] += conv[:, k] * inputs[:, t - K + 1 + k]
        u, A = silu(c), -torch.exp(weights[f"{name}.A{suffix}_log"])
        projected = u @ weights[f"{name}.x_proj{suffix}.weight"].T
        R, N = weights[f"{name}.dt_proj{suffix}.weight"].shape[1], A.shape[1]
        dt = softplus(
            projected[..., :R] @ weights[f"{name}.dt_proj{suffix}.weight"].T + weights[f"{name}.dt_proj{suffix}.bias"]
        )
        Bs, Cs = projected[..., R : R + N], projected[..., R + N :]
        alpha = torch.zeros(B, E, L, L, dtype=torch.float64)
        for i in range(L):
            decay = torch.ones(B, E, N, dtype=torch.float64)
            for j in range(i, -1, -1):
                alpha[:, :, i, j] = (Cs[:, i, None] * decay * dt[:, j, :, None] * Bs[:, j, None]).sum(-1)
                decay = decay * torch.exp(dt[:, j, :, None] * A)
        u, c = (u, c) if suffix == "" else (u.flip(1), c.flip(1))
        found.append((alpha if suffix == "" else alpha.flip(-1, -2), u, weights[f"{name}.D{suffix}"], c))
    return found, x, z


def oracle(model, pixels):
    """Weights in float64, streams, and the model's share of the sum of both directions."""
    config = model.config
    weights = {name: value.double() for name, value in released(model).items()}
    forward = vim_forward(weights, pixels, config.stride, config.class_token, config.divide_out)
    return weights, forward.states, 0.5 if config.divide_out else 1.0


def largest(found, expected):
    return float((found.double() - expected).abs().max() / expected.abs().max())


@every_kind
@torch.no_grad()
def test_raw_attention_is_the_formula(kind):
    model = make_explainable(small_vim(kind).double())
    pixels = pixels_for(model)
    weights, streams, share = oracle(model, pixels)
    whole = {way: model.hidden_attention(pixel_values=pixels, direction=way) for way in ("both", "forward", "backward")}
    channels = model.hidden_attention(pixel_values=pixels, reduce="none", layers=-1)
    for layer in range(model.config.num_hidden_layers):
        (along, *_), (against, *_) = mixer_parts(weights, layer, streams[layer])[0]
        assert largest(whole["forward"].matrix[layer], share * along.mean(1)) < 1e-6
        assert largest(whole["backward"].matrix[layer], share * against.mean(1)) < 1e-6
        assert largest(whole["both"].matrix[layer], share * (along + against).mean(1)) < 1e-6
    assert largest(channels.matrix[0], share * (along + against)) < 1e-6


@every_kind
@torch.no_grad()
def test_attention_with_the_skip_is_the_mixers_output(kind):
    """W_out (silu(z) share sum over directions of (alpha u + D u)) is what the block adds."""
    model = make_explainable(small_vim(kind).double())
    pixels = pixels_for(model)
    weights, streams, share = oracle(model, pixels)
    parts, _, z = mixer_parts(weights, 0, streams[0])
    ways = [
        model.hidden_attention(pixel_values=pixels, reduce="none", layers=0, direction=way).matrix[0].double()
        for way in ("forward", "backward")
    ]
    mixed = sum(
        torch.einsum("beij,bje->bie", alpha, u) + share * D * u for alpha, (_, u, D, _) in zip(ways, parts, strict=True)
    )
    added = (mixed * silu(z)) @ weights["layers.0.mixer.out_proj.weight"].T
    torch.testing.assert_close(added, streams[1] - streams[0], rtol=1e-5, atol=1e-5)


@every_kind
@torch.no_grad()
def test_unified_attention_is_the_formula(kind):
    """H = diag(silu z) alpha diag(sigmoid c) M_conv of each direction, the convolution against the order for one."""
    model = make_explainable(small_vim(kind).double())
    pixels = pixels_for(model)
    weights, streams, share = oracle(model, pixels)
    found = model.hidden_attention(pixel_values=pixels, kind="unified")
    for layer in range(2):
        parts, x, z = mixer_parts(weights, layer, streams[layer])
        L, total = x.shape[1], 0
        for suffix, (alpha, _, _, c) in zip(("", "_b"), parts, strict=True):
            taps = weights[f"layers.{layer}.mixer.conv1d{suffix}.weight"][:, 0]
            conv = torch.zeros(len(taps), L, L, dtype=torch.float64)
            for t in range(L):
                for k in range(taps.shape[1]):
                    back = taps.shape[1] - 1 - k
                    source = t - back if suffix == "" else t + back
                    if 0 <= source < L:
                        conv[:, t, source] = taps[:, k]
            keys = alpha * torch.sigmoid(c).transpose(1, 2)[:, :, None]
            total = total + silu(z).transpose(1, 2)[..., None] * (keys @ conv)
        assert largest(found.matrix[layer], share * total.mean(1)) < 1e-6


@every_kind
def test_raw_attention_rollout_and_mamba_attribution_are_the_formulas(kind):
    """Raw: e^T mean of E_d alpha over layers; rollout: e^T prod (I + E_d alpha), the last layer first; attribution:
    alpha weighted by E_d of the gradient at out_proj's input, row by row, its positive part.
    """
    model = make_explainable(small_vim(kind).double())
    pixels, config = pixels_for(model), model.config
    weights, streams, share = oracle(model, pixels)
    rest = [i for i in range(streams[0].shape[1]) if i not in config.class_token_positions]
    mixers = [mixer_parts(weights, layer, streams[layer]) for layer in range(2)]
    alphas = [share * sum(part[0] for part in parts).mean(1) for parts, _, _ in mixers]
    start = torch.zeros(2, streams[0].shape[1], dtype=torch.float64)
    start[:, list(config.class_token_positions)] = 1
    raw = model.explain(pixel_values=pixels, method="raw_attention")
    assert largest(raw.relevance.flatten(1), torch.einsum("bi,bij->bj", start, sum(alphas) / 2)[:, rest]) < 1e-5
    row = start
    for alpha in reversed(alphas):
        row = row + torch.einsum("bi,bij->bj", row, alpha)
    rollout = model.explain(pixel_values=pixels, method="attention_rollout")
    assert largest(rollout.relevance.flatten(1), row[:, rest]) < 1e-5

    hidden = streams[0].clone().requires_grad_()
    gated, h = [], hidden
    for layer in range(2):
        parts, z = mixer_parts_with_graph(weights, layer, h)
        y = share * sum(parts) * silu(z)
        y.retain_grad()
        gated.append(y)
        h = h + y @ weights[f"layers.{layer}.mixer.out_proj.weight"].T
    read = rms_norm(h, weights["norm_f.weight"])[:, list(config.class_token_positions)]
    if "neck.weight" in weights:
        read = rms_norm((read @ weights["neck.weight"].T).flatten(1), weights["norm_neck.weight"])
    (read.flatten(1) @ weights["head.weight"].T)[:, 1].sum().backward()
    row = start
    for alpha, y in zip(reversed(alphas), reversed(gated), strict=True):
        weighted = (y.grad.mean(-1)[..., None] * alpha).clamp(min=0)
        row = row + torch.einsum("bi,bij->bj", row, weighted)
    found = model.explain(pixel_values=pixels, target=1, method="mamba_attribution")
    assert largest(found.relevance.flatten(1), row[:, rest]) < 1e-5


def mixer_parts_with_graph(weights, layer, hidden):
    """The two directions' outputs before the gate, and z, differentiable."""
    name = f"layers.{layer}.mixer"
    x, z = (rms_norm(hidden, weights[f"layers.{layer}.norm.weight"]) @ weights[f"{name}.in_proj.weight"].T).chunk(2, -1)
    open_gate = torch.full_like(z, 50.0)  # silu(50) = 50
    along = direction(x, open_gate, weights, name, "") / 50
    against = direction(x.flip(1), open_gate, weights, name, "_b").flip(1) / 50
    return (along, against), z


def test_what_the_class_token_reads_lies_on_the_grid(tmp_path):
    model = make_explainable(small_vim())
    pixels = pixels_for(model)
    attention = model.hidden_attention(pixel_values=pixels)
    assert attention.tokens[0][:3] == ["1,1", "1,2", "1,3"]
    assert attention.tokens[0][8] == "[class]"
    rest = [i for i in range(17) if i != 8]
    assert torch.equal(attention.class_map(0, 1).flatten(), attention.matrix[0, 1, 8, rest])
    alone = model.hidden_attention(pixel_values=pixels, positions=8)
    torch.testing.assert_close(alone.class_map(1), attention.class_map(1))
    with pytest.raises(OptionError, match="No class token is among the positions"):
        model.hidden_attention(pixel_values=pixels, positions=[0, 1]).class_map()
    page = attention.to_html()
    assert page.count("<h2>What does the class token read in layer") == 4
    assert "⟨empty⟩" not in page
    attention.save(tmp_path / "attention.json")
    again = load(tmp_path / "attention.json")
    assert torch.equal(again.matrix, attention.matrix)
    assert torch.equal(again.images, attention.images)
    assert torch.equal(again.class_map(0, 1), attention.class_map(0, 1))
    assert attention[1].images.shape == (1, 16, 16, 3)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"direction": "left"}, r"direction='left' is not allowed; use one of 'both', 'forward', 'backward'"),
        ({"layers": 2}, "layers=2 is not allowed"),
        ({"kind": "mean"}, "kind='mean' is not allowed"),
        ({"positions": 17}, "positions=17 is not allowed"),
        ({"tokenizer": None}, r"hidden_attention\(\) got \['tokenizer'\]"),
    ],
)
def test_options_that_are_not_allowed(options, match):
    model = make_explainable(small_vim())
    with pytest.raises(OptionError, match=match):
        model.hidden_attention(pixel_values=pixels_for(model), **options)
