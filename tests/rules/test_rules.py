"""Every rule against relevance written out by hand: R_in from R_out by the rule's formula, in float64."""

import pytest
import torch
from torch import nn

from hf_mambalrp.rules import LRP_LN, MAMBALRP, NO_RULES, Rules
from hf_mambalrp.rules.activation import silu
from hf_mambalrp.rules.biases import BiasLedger
from hf_mambalrp.rules.gate import gate
from hf_mambalrp.rules.linear import causal_convolution, linear
from hf_mambalrp.rules.norm import gated_rms_norm, rms_norm, weightless_rms_norm
from hf_mambalrp.rules.ssm import selective_ssm, ssd_ssm


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relevance(output, inputs, relevance_out):
    """x * modified gradient, for relevance R = y * g arriving at the output."""
    gradients = torch.autograd.grad(output, inputs, relevance_out / output.detach())
    return [x.detach() * g for x, g in zip(inputs, gradients, strict=True)]


def test_linear_is_lrp_0():
    """R_i = sum_j x_i w_ji / (sum_i x_i w_ji + b_j) R_j; the bias takes b_j / (...) R_j."""
    layer = nn.Linear(4, 3).double()
    x, R = random(2, 5, 4).requires_grad_(), random(2, 5, 3, seed=1)
    ledger = BiasLedger(2)
    y = linear(layer, x, ledger)
    torch.testing.assert_close(y, layer(x))
    (found,) = relevance(y, [x], R)
    z = x.detach()[:, :, None, :] * layer.weight.detach()  # (B, L, out, in)
    total = z.sum(-1) + layer.bias.detach()
    torch.testing.assert_close(found, (z / total[..., None] * R[..., None]).sum(2))
    absorbed = ledger.absorbed(
        list(torch.autograd.grad(linear(layer, x, ledger := BiasLedger(2)), ledger.entries, R / y))
    )
    torch.testing.assert_close(absorbed.double(), (layer.bias / total * R).sum((1, 2)), rtol=1e-6, atol=1e-6)


def test_a_layer_with_a_hook_is_called_and_its_bias_recorded():
    """Called with zeros for its biases, and last with what it reads."""
    layer, calls = nn.Linear(4, 3).double(), []
    layer.register_forward_hook(lambda module, arguments, output: calls.append(arguments[0]))
    x, ledger = random(2, 5, 4).requires_grad_(), BiasLedger(2)
    y = linear(layer, x, ledger)
    assert len(calls) == 2
    assert not calls[0].any()
    assert torch.equal(calls[1], x)
    g = random(2, 5, 3, seed=1)
    grad_x, grad_bias = torch.autograd.grad(y, [x, *ledger.entries], g)
    torch.testing.assert_close(grad_x, g @ layer.weight)
    torch.testing.assert_close(grad_bias, g)
    torch.testing.assert_close(
        ledger.absorbed([grad_bias]).double(), (layer.bias * g).sum((1, 2)), rtol=1e-6, atol=1e-6
    )


def test_half_precision_weights_are_used_exactly():
    layer = nn.Linear(4, 3, bias=False).bfloat16()
    x = random(1, 2, 4).float().requires_grad_()
    y = linear(layer, x, BiasLedger(1))
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, x @ layer.weight.float().T)


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_causal_convolution_is_lrp_0(width, length):
    """y_t = sum_k w_k x_{t-K+1+k} + b, R_i = sum_t over the taps that read i."""
    channels = 3
    layer = nn.Conv1d(channels, channels, width, groups=channels, padding=width - 1).double()
    x, earlier = random(2, length, channels).requires_grad_(), random(2, width - 1, channels, seed=1).requires_grad_()
    ledger, g = BiasLedger(2), random(2, length, channels, seed=2)
    y, last = causal_convolution(layer, x, earlier, ledger)
    whole = torch.cat([earlier, x], 1)
    expected = torch.zeros_like(y)
    for t in range(length):
        for k in range(width):
            expected[:, t] = expected[:, t] + layer.weight[:, 0, k] * whole[:, t + k]
    torch.testing.assert_close(y, expected + layer.bias)
    torch.testing.assert_close(last, whole[:, whole.shape[1] - (width - 1) :])
    found = torch.autograd.grad(y, [x, earlier], g)
    wanted = torch.autograd.grad(expected, [x, earlier], g)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_silu_identity_passes_relevance_on():
    x, R = random(2, 3, 4).requires_grad_(), random(2, 3, 4, seed=1)
    y = silu(x, MAMBALRP)
    torch.testing.assert_close(y, nn.functional.silu(x))
    torch.testing.assert_close(relevance(y, [x], R)[0], R)


def test_silu_identity_survives_where_a_ratio_would_not():
    x = torch.tensor([0.0, -200.0, 200.0, 1e-30]).requires_grad_()
    (gradient,) = torch.autograd.grad(silu(x, MAMBALRP).sum(), x)
    torch.testing.assert_close(gradient, torch.tensor([0.5, 0.0, 1.0, 0.5]))


def test_gate_gives_each_factor_half():
    y, z, R = random(2, 3, 4).requires_grad_(), random(2, 3, 4, seed=1).requires_grad_(), random(2, 3, 4, seed=2)
    p = gate(y, z, MAMBALRP)
    torch.testing.assert_close(p, y * nn.functional.silu(z))
    for found in relevance(p, [y, z], R):
        torch.testing.assert_close(found, R / 2)


def test_gate_rule_without_the_identity_rule():
    only_gate = Rules(norm=False, silu=False, ssm=False, gate=True)
    y, z, g = random(2, 3).requires_grad_(), random(2, 3, seed=1).requires_grad_(), random(2, 3, seed=2)
    p = gate(y, z, only_gate)
    torch.testing.assert_close(p, y * nn.functional.silu(z))
    found = torch.autograd.grad(p, [y, z], g)
    plain = torch.autograd.grad(y * nn.functional.silu(z), [y, z], g)
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other / 2)


@pytest.mark.parametrize("rules", [MAMBALRP, LRP_LN])
def test_norm_is_linear_with_its_normaliser_constant(rules):
    """R_i = R_out,i: every unit is only scaled."""
    layer = norm_layer()
    x, R = random(2, 3, 4).requires_grad_(), random(2, 3, 4, seed=1)
    y = rms_norm(layer, x, rules)
    torch.testing.assert_close(y, x / (x.pow(2).mean(-1, keepdim=True) + 0.01).sqrt() * layer.weight)
    torch.testing.assert_close(relevance(y, [x], R)[0], R)


def norm_layer(**attributes):
    layer = nn.Module()
    layer.weight, layer.variance_epsilon = nn.Parameter(random(4, seed=3)), 0.01
    for name, value in attributes.items():
        setattr(layer, name, value)
    return layer


@pytest.mark.parametrize(("attributes", "groups"), [({}, 1), ({"group_size": None}, 1), ({"group_size": 2}, 2)])
def test_gated_norm_halves_and_then_only_scales_each_group(attributes, groups):
    """p = y silu(z), o = w p / rms of p's group; R_y = R_z = R_out / 2."""
    layer = norm_layer(**attributes)
    y, z, R = random(2, 3, 4).requires_grad_(), random(2, 3, 4, seed=1).requires_grad_(), random(2, 3, 4, seed=2)
    p = y * nn.functional.silu(z)
    rms = torch.cat(
        [(part.pow(2).mean(-1, keepdim=True) + 0.01).sqrt().expand_as(part) for part in p.chunk(groups, -1)], -1
    )
    found = gated_rms_norm(layer, y, z, MAMBALRP)
    torch.testing.assert_close(found, p / rms * layer.weight)
    for one in relevance(found, [y, z], R):
        torch.testing.assert_close(one, R / 2)
    plain = torch.autograd.grad(p / rms * layer.weight, [y, z], R)
    torch.testing.assert_close(torch.autograd.grad(gated_rms_norm(layer, y, z, NO_RULES), [y, z], R), plain)


def test_norm_without_weights():
    x, R = random(2, 3, 4).requires_grad_(), random(2, 3, 4, seed=1)
    expected = x / (x.pow(2).mean(-1, keepdim=True) + 0.01).sqrt()
    torch.testing.assert_close(weightless_rms_norm(x, 0.01, NO_RULES), expected)
    torch.testing.assert_close(relevance(weightless_rms_norm(x, 0.01, LRP_LN), [x], R)[0], R)
    plain = torch.autograd.grad(expected, [x], R)
    torch.testing.assert_close(torch.autograd.grad(weightless_rms_norm(x, 0.01, NO_RULES), [x], R), plain)


def test_ssm_rule_holds_its_parameters_constant():
    """R_j = sum_i alpha_ij u_j g_i with alpha_ij = C_i prod_{k=j+1..i} exp(dt_k A) dt_j B_j (hidden attention)."""
    L, E, N = 6, 3, 2
    u, dt = random(1, L, E).requires_grad_(), random(1, L, E, seed=1).exp()
    A, B, C, g = -random(E, N, seed=2).exp(), random(1, L, N, seed=3), random(1, L, N, seed=4), random(1, L, E, seed=5)
    h0 = torch.zeros(1, E, N, dtype=u.dtype)
    parameters = [value.requires_grad_() for value in (dt, B, C)]
    y, _ = selective_ssm(u, dt, A, B, C, h0, MAMBALRP, "auto")
    alpha = torch.zeros(E, L, L, dtype=u.dtype)
    for i in range(L):
        for j in range(i + 1):
            decay = torch.exp(dt[0, j + 1 : i + 1].sum(0)[:, None] * A)
            alpha[:, i, j] = (C[0, i] * decay * dt[0, j, :, None] * B[0, j]).sum(-1)
    torch.testing.assert_close(y[0], torch.einsum("eij,je->ie", alpha, u[0]))
    (gradient,) = torch.autograd.grad(y, u, g, retain_graph=True)
    torch.testing.assert_close(gradient[0], torch.einsum("eij,ie->je", alpha, g[0]))
    assert torch.autograd.grad(y, parameters, g, allow_unused=True) == (None, None, None)


def test_ssm_rule_in_state_space_duality_form():
    """R_j = sum_i alpha_ij x_j g_i with alpha_ij = (C_i . B_j) exp(A sum_{k=j+1..i} dt_k) dt_j per head."""
    L, H, P, N = 6, 2, 3, 4
    x, dt, A = random(1, L, H, P).requires_grad_(), random(1, L, H, seed=1).exp(), -random(H, seed=2).exp()
    B, C, g = random(1, L, 1, N, seed=3), random(1, L, 1, N, seed=4), random(1, L, H, P, seed=5)
    parameters = [value.requires_grad_() for value in (dt, B, C)]
    y, _ = ssd_ssm(x, dt, A, B, C, torch.zeros(1, H, P, N, dtype=x.dtype), MAMBALRP, "auto")
    alpha = torch.zeros(H, L, L, dtype=x.dtype)
    for i in range(L):
        for j in range(i + 1):
            alpha[:, i, j] = (C[0, i, 0] @ B[0, j, 0]) * torch.exp(A * dt[0, j + 1 : i + 1].sum(0)) * dt[0, j]
    torch.testing.assert_close(y[0], torch.einsum("hij,jhp->ihp", alpha, x[0]))
    (gradient,) = torch.autograd.grad(y, x, g, retain_graph=True)
    torch.testing.assert_close(gradient[0], torch.einsum("hij,ihp->jhp", alpha, g[0]))
    assert torch.autograd.grad(y, parameters, g, allow_unused=True) == (None, None, None)


def test_without_rules_everything_is_the_plain_gradient():
    x, z = random(2, 3, 4).requires_grad_(), random(2, 3, 4, seed=1).requires_grad_()
    layer, g = norm_layer(), random(2, 3, 4, seed=2)
    for found, plain in [
        (silu(x, NO_RULES), nn.functional.silu(x)),
        (gate(x, z, NO_RULES), x * nn.functional.silu(z)),
        (rms_norm(layer, x, NO_RULES), x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 0.01) * layer.weight),
    ]:
        (one,), (other,) = torch.autograd.grad(found, [x], g), torch.autograd.grad(plain, [x], g)
        torch.testing.assert_close(one, other)
