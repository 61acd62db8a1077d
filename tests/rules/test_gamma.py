"""LRP-gamma against its formula, one contribution after the other, in float64."""

from itertools import product

import pytest
import torch
from torch import nn

from hf_mambalrp.errors import OptionError
from hf_mambalrp.methods.mambalrp import mambalrp_rules
from hf_mambalrp.ops.conv_silu import conv_silu
from hf_mambalrp.rules.biases import BiasLedger
from hf_mambalrp.rules.linear import linear, linear_parts

BOUND = {"reference": 1e-12, "chunked": 1e-12, "compiled": 2e-6, "triton": 2e-6}
DEVICE = {"triton": "cuda"} if torch.cuda.is_available() else {}
"""Where a backend computes that does not compute on the CPU."""


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gamma_rule(x, w, b, gamma):
    """The shares of one output z = sum_i x_i w_i + b in its relevance: those of the inputs, and the bias's.

    By the sign of z, inputs and weights: z > 0: x_i^+ (w_i + g w_i^+) + x_i^- (w_i + g w_i^-), bias b + g b^+; z < 0:
    x_i^+ (w_i + g w_i^-) + x_i^- (w_i + g w_i^+), bias b + g b^-.
    """
    z = sum(xi * wi for xi, wi in zip(x, w, strict=True)) + b
    upper, lower = (max, min) if z > 0 else (min, max)
    parts = [
        max(xi, 0) * (wi + gamma * upper(wi, 0)) + min(xi, 0) * (wi + gamma * lower(wi, 0))
        for xi, wi in zip(x, w, strict=True)
    ]
    bias = b + gamma * upper(b, 0)
    total = sum(parts) + bias
    return [part / total for part in parts], bias / total, z


@pytest.mark.parametrize("gamma", [0.25, 3.0])
@pytest.mark.parametrize("with_bias", [True, False])
def test_linear(gamma, with_bias):
    layer = nn.Linear(5, 4, bias=with_bias).double()
    x, R, ledger = random(2, 3, 5).requires_grad_(), random(2, 3, 4, seed=1), BiasLedger(2)
    z = linear(layer, x, ledger, gamma)
    torch.testing.assert_close(z, layer(x))
    grad_x, *grad_bias = torch.autograd.grad(z, [x, *ledger.entries], R / z.detach())
    wanted, of_biases = torch.zeros(2, 3, 5, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for b, t, j in product(range(2), range(3), range(4)):
        bias = layer.bias[j].item() if with_bias else 0.0
        shares, of_bias, _ = gamma_rule(x[b, t].tolist(), layer.weight[j].tolist(), bias, gamma)
        wanted[b, t] += R[b, t, j] * torch.tensor(shares, dtype=torch.float64)
        of_biases[b] += R[b, t, j] * of_bias
    torch.testing.assert_close(x.detach() * grad_x, wanted)
    if with_bias:
        torch.testing.assert_close(
            ledger.shares(ledger.absorbed(grad_bias))[0, 0].double(), of_biases, rtol=1e-6, atol=1e-6
        )
    torch.testing.assert_close((x.detach() * grad_x).sum((1, 2)) + of_biases, R.sum((1, 2)))


def test_signals_side_by_side_are_those_of_the_whole_layer():
    layer, x = nn.Linear(5, 6).double(), random(2, 3, 5).requires_grad_()
    whole, parts = BiasLedger(2), BiasLedger(2)
    z, g = linear(layer, x, whole, 0.5), random(2, 3, 6, seed=1)
    (wanted,) = torch.autograd.grad(z, x, g)
    apart = torch.cat(linear_parts(layer, x, [2, 4], parts, 0.5), -1)
    torch.testing.assert_close(torch.autograd.grad(apart, x, g)[0], wanted)


@pytest.mark.parametrize("backend", ["reference", "chunked", "compiled", "triton"])
@pytest.mark.parametrize(("width", "length", "with_bias"), [(4, 7, True), (3, 2, False), (1, 3, True)])
def test_convolution(backend, width, length, with_bias):
    """u = silu(c) hands its relevance to c (identity rule); c hands it on by the formula, to inputs before it too."""
    gamma, channels = 0.7, 3
    dtype = torch.float64 if BOUND[backend] < 1e-6 else torch.float32
    x, earlier, weight = (
        random(2, length, channels),
        random(2, width - 1, channels, seed=1),
        random(channels, width, seed=2),
    )
    bias = random(2, 1, channels, seed=3) if with_bias else None
    at = {"device": DEVICE.get(backend, "cpu"), "dtype": dtype}
    signals = [None if value is None else value.to(**at).requires_grad_() for value in (x, earlier, bias)]
    u = conv_silu(
        signals[0],
        weight.to(**at),
        signals[2],
        signals[1],
        rules=mambalrp_rules(gamma=gamma, gamma_on="conv1d"),
        backend=backend,
    )
    R = random(2, length, channels, seed=4)
    given = [signal for signal in signals if signal is not None and signal.numel()]
    found = torch.autograd.grad(u, given, (R / u.detach().cpu().double()).to(**at))
    inputs = torch.cat([earlier, x], 1)
    wanted, of_biases = torch.zeros_like(inputs), torch.zeros(2, 1, channels, dtype=torch.float64)
    for b, t, e in product(range(2), range(length), range(channels)):
        read = slice(t, t + width)
        own = bias[b, 0, e].item() if with_bias else 0.0
        shares, of_bias, c = gamma_rule(inputs[b, read, e].tolist(), weight[e].tolist(), own, gamma)
        torch.testing.assert_close(
            u[b, t, e].item(), c / (1 + torch.exp(-torch.tensor(c)).item()), rtol=1e-5, atol=1e-6
        )
        wanted[b, read, e] += R[b, t, e] * torch.tensor(shares, dtype=torch.float64)
        of_biases[b, 0, e] += R[b, t, e] * of_bias
    expected = [wanted[:, width - 1 :], wanted[:, : width - 1], of_biases]
    kept = [one for one, signal in zip(expected, signals, strict=True) if signal is not None and signal.numel()]
    for signal, gradient, one in zip(given, found, kept, strict=True):
        error = ((signal.detach() * gradient).cpu().double() - one).norm() / one.norm()
        assert error < BOUND[backend], error


@pytest.mark.parametrize("backend", ["reference", "chunked", "compiled", "triton"])
def test_what_is_zero_has_no_relevance_and_makes_no_nan(backend):
    """Positions of zeros without a bias: c = 0 there."""
    device = DEVICE.get(backend, "cpu")
    given = random(1, 6, 2), random(2, 3, seed=1), torch.zeros(1, 2, 2)
    x, weight, earlier = (value.to(device, torch.float32) for value in given)
    x[:, :4] = 0
    x.requires_grad_()
    rules = mambalrp_rules(gamma=0.25, gamma_on="conv1d")
    u = conv_silu(x, weight, None, earlier, rules=rules, backend=backend)
    (found,) = torch.autograd.grad(u.sum(), x)
    assert found.isfinite().all()
    torch.testing.assert_close((x.detach() * found).sum(), u.detach().sum())


def test_a_layer_whose_weights_are_not_known_is_refused():
    layer = nn.Linear(4, 3)
    layer.register_forward_hook(lambda module, arguments, output: output)
    with pytest.raises(OptionError, match=r"gamma=0.25 .* needs their weights, .* a Linear .*gamma_on"):
        linear(layer, torch.zeros(1, 2, 4), BiasLedger(1), 0.25)


@pytest.mark.parametrize("gamma", [-1, float("nan"), float("inf"), True, "0.25", None])
def test_other_gammas_are_refused(gamma):
    with pytest.raises(OptionError, match=r"gamma=.* is not allowed\. Give a number from 0 up"):
        mambalrp_rules(gamma=gamma, gamma_on="conv1d")


@pytest.mark.parametrize("gamma_on", ["conv", ["conv1d", "head"], 3, None])
def test_other_operations_are_refused(gamma_on):
    with pytest.raises(OptionError, match=r"gamma_on=.* is not allowed\. Give some of \['conv1d', 'linear'\]"):
        mambalrp_rules(gamma=0.25, gamma_on=gamma_on)
