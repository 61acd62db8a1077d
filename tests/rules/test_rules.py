"""Every rule against relevance written out by hand: R_in from R_out by the rule's formula, in float64."""

import pytest
import torch
from torch import nn

from hf_mambalrp.ops.conv_silu.chunked import causal_convolution
from hf_mambalrp.ops.gated_norm import gated_norm
from hf_mambalrp.ops.gated_scan import gated_scan
from hf_mambalrp.ops.ssd_scan import ssd_scan
from hf_mambalrp.rules import LRP_LN, MAMBALRP, NO_RULES, Rules
from hf_mambalrp.rules.activation import activation, softcap
from hf_mambalrp.rules.biases import BiasLedger
from hf_mambalrp.rules.gate import gate, product, sigmoid_gate
from hf_mambalrp.rules.linear import linear
from hf_mambalrp.rules.norm import l2_norm, rms_norm, weightless_rms_norm


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
    of_biases = torch.autograd.grad(linear(layer, x, ledger := BiasLedger(2)), ledger.entries, R / y)
    absorbed = ledger.shares(ledger.absorbed(of_biases))
    torch.testing.assert_close(absorbed[0, 0].double(), (layer.bias / total * R).sum((1, 2)), rtol=1e-6, atol=1e-6)


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
        ledger.shares(ledger.absorbed([grad_bias]))[0, 0].double(), (layer.bias * g).sum((1, 2)), rtol=1e-6, atol=1e-6
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
    g, bias = random(2, length, channels, seed=2), layer.bias.detach().expand(2, 1, -1)
    y = causal_convolution(x, layer.weight.detach()[:, 0], bias, earlier)
    whole = torch.cat([earlier, x], 1)
    expected = torch.zeros_like(y)
    for t in range(length):
        for k in range(width):
            expected[:, t] = expected[:, t] + layer.weight[:, 0, k] * whole[:, t + k]
    torch.testing.assert_close(y, expected + layer.bias)
    found = torch.autograd.grad(y, [x, earlier], g)
    wanted = torch.autograd.grad(expected, [x, earlier], g)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_silu_identity_passes_relevance_on():
    x, R = random(2, 3, 4).requires_grad_(), random(2, 3, 4, seed=1)
    y = activation(x, MAMBALRP)
    torch.testing.assert_close(y, nn.functional.silu(x))
    torch.testing.assert_close(relevance(y, [x], R)[0], R)


def test_a_cap_passes_relevance_on_and_without_the_rule_is_differentiated():
    x, R = random(2, 3, 4).mul(5).requires_grad_(), random(2, 3, 4, seed=1)
    x.data[0, 0, 0] = 0
    y = softcap(x, 2.5, MAMBALRP)
    torch.testing.assert_close(y, 2.5 * torch.tanh(x / 2.5))
    kept = x.detach() != 0
    torch.testing.assert_close(relevance(y[kept], [x], R[kept])[0][kept], R[kept])
    for rules, expected in ((MAMBALRP, torch.ones(())), (NO_RULES, 1 - torch.tanh(x.detach() / 2.5) ** 2)):
        (gradient,) = torch.autograd.grad(softcap(x, 2.5, rules).sum(), x)
        torch.testing.assert_close(gradient[0, 0, 0], expected.double().flatten()[0])
    torch.testing.assert_close(gradient, expected)


def test_silu_identity_survives_where_a_ratio_would_not():
    x = torch.tensor([0.0, -200.0, 200.0, 1e-30]).requires_grad_()
    (gradient,) = torch.autograd.grad(activation(x, MAMBALRP).sum(), x)
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
    weight = random(4, seed=3)
    x, R = random(2, 3, 4).requires_grad_(), random(2, 3, 4, seed=1)
    y = rms_norm(x, weight, 0.01, rules)
    torch.testing.assert_close(y, x / (x.pow(2).mean(-1, keepdim=True) + 0.01).sqrt() * weight)
    torch.testing.assert_close(relevance(y, [x], R)[0], R)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_gated_norm_halves_and_then_only_scales_each_group(backend, groups):
    """p = y activation(z), o = w p / rms of p's group; R_y = R_z = R_out / 2."""
    weight = random(4, seed=3)
    y, z, R = random(2, 3, 4).requires_grad_(), random(2, 3, 4, seed=1).requires_grad_(), random(2, 3, 4, seed=2)
    p = y * nn.functional.silu(z)
    rms = torch.cat(
        [(part.pow(2).mean(-1, keepdim=True) + 0.01).sqrt().expand_as(part) for part in p.chunk(groups, -1)], -1
    )
    found = gated_norm(y, z, weight, 0.01, 4 // groups, rules=MAMBALRP, backend=backend)
    torch.testing.assert_close(found, p / rms * weight)
    for one in relevance(found, [y, z], R):
        torch.testing.assert_close(one, R / 2)
    plain = torch.autograd.grad(p / rms * weight, [y, z], R)
    without = gated_norm(y, z, weight, 0.01, 4 // groups, rules=NO_RULES, backend=backend)
    torch.testing.assert_close(torch.autograd.grad(without, [y, z], R), plain)


def test_norm_without_weights():
    x, R = random(2, 3, 4).requires_grad_(), random(2, 3, 4, seed=1)
    expected = x / (x.pow(2).mean(-1, keepdim=True) + 0.01).sqrt()
    torch.testing.assert_close(weightless_rms_norm(x, 0.01, NO_RULES), expected)
    torch.testing.assert_close(relevance(weightless_rms_norm(x, 0.01, LRP_LN), [x], R)[0], R)
    plain = torch.autograd.grad(expected, [x], R)
    torch.testing.assert_close(torch.autograd.grad(weightless_rms_norm(x, 0.01, NO_RULES), [x], R), plain)


@pytest.mark.parametrize("backend", ["reference", "chunked", "auto"])
def test_ssm_rule_holds_its_parameters_constant(backend):
    """R_j = sum_i alpha_ij u_j g_i with alpha_ij = C_i prod_{k=j+1..i} exp(dt_k A) dt_j B_j (hidden attention)."""
    L, E, N = 6, 3, 2
    u, dt = random(1, L, E).requires_grad_(), random(1, L, E, seed=1).exp()
    A, B, C, g = -random(E, N, seed=2).exp(), random(1, L, N, seed=3), random(1, L, N, seed=4), random(1, L, E, seed=5)
    h0 = torch.zeros(1, E, N, dtype=u.dtype)
    parameters = [delta, B, C] = [value.requires_grad_() for value in (dt.expm1().log(), B, C)]  # softplus(delta) = dt
    none, wide_open = torch.zeros(E, dtype=u.dtype), torch.full_like(u, 60)  # no skip, no bias; activation(60) = 60
    rules = Rules(norm=False, silu=True, ssm=True, gate=False)
    p, _ = gated_scan(u, lambda: delta, wide_open, (-A).log(), B, C, none, none, h0, rules=rules, backend=backend)
    y = p / 60
    alpha = torch.zeros(E, L, L, dtype=u.dtype)
    for i in range(L):
        for j in range(i + 1):
            decay = torch.exp(dt[0, j + 1 : i + 1].sum(0)[:, None] * A)
            alpha[:, i, j] = (C[0, i] * decay * dt[0, j, :, None] * B[0, j]).sum(-1)
    torch.testing.assert_close(y[0], torch.einsum("eij,je->ie", alpha, u[0]))
    (gradient,) = torch.autograd.grad(y, u, g, retain_graph=True)
    torch.testing.assert_close(gradient[0], torch.einsum("eij,ie->je", alpha, g[0]))
    assert torch.autograd.grad(y, parameters, g, allow_unused=True) == (None, None, None)


def test_the_scan_of_constants_in_state_space_duality_form():
    """R_j = sum_i alpha_ij x_j g_i with alpha_ij = (C_i . B_j) exp(A sum_{k=j+1..i} dt_k) dt_j per head."""
    L, H, P, N = 6, 2, 3, 4
    x, dt, A = random(1, L, H, P).requires_grad_(), random(1, L, H, seed=1).exp(), -random(H, seed=2).exp()
    B, C, g = random(1, L, 1, N, seed=3), random(1, L, 1, N, seed=4), random(1, L, H, P, seed=5)
    y, _ = ssd_scan(x, dt, A, B, C)
    alpha = torch.zeros(H, L, L, dtype=x.dtype)
    for i in range(L):
        for j in range(i + 1):
            alpha[:, i, j] = (C[0, i, 0] @ B[0, j, 0]) * torch.exp(A * dt[0, j + 1 : i + 1].sum(0)) * dt[0, j]
    torch.testing.assert_close(y[0], torch.einsum("hij,jhp->ihp", alpha, x[0]))
    (gradient,) = torch.autograd.grad(y, x, g)
    torch.testing.assert_close(gradient[0], torch.einsum("hij,ihp->jhp", alpha, g[0]))


def test_without_rules_everything_is_the_plain_gradient():
    x, z = random(2, 3, 4).requires_grad_(), random(2, 3, 4, seed=1).requires_grad_()
    weight, g = random(4, seed=3), random(2, 3, 4, seed=2)
    for found, plain in [
        (activation(x, NO_RULES), nn.functional.silu(x)),
        (gate(x, z, NO_RULES), x * nn.functional.silu(z)),
        (rms_norm(x, weight, 0.01, NO_RULES), x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 0.01) * weight),
    ]:
        (one,), (other,) = torch.autograd.grad(found, [x], g), torch.autograd.grad(plain, [x], g)
        torch.testing.assert_close(one, other)


def test_a_product_gives_half_of_its_relevance_to_each_factor():
    y, z, R = random(2, 5, 4).requires_grad_(), random(2, 5, 4, seed=1).requires_grad_(), random(2, 5, 4, seed=2)
    p = product(y, z, MAMBALRP)
    torch.testing.assert_close(p, y * z)
    for found in relevance(p, [y, z], R):
        torch.testing.assert_close(found, R / 2)
    plain = torch.autograd.grad(product(y, z, NO_RULES), [y, z], R)
    torch.testing.assert_close(plain, (R * z, R * y))


def test_of_a_sigmoid_gate_the_signal_takes_all():
    y, z, R = random(2, 5, 4).requires_grad_(), random(2, 5, 4, seed=1).requires_grad_(), random(2, 5, 4, seed=2)
    p = sigmoid_gate(y, z, MAMBALRP)
    torch.testing.assert_close(p, y * torch.sigmoid(z))
    (found,) = relevance(p, [y], R)
    torch.testing.assert_close(found, R)
    assert torch.autograd.grad(p, z, R, allow_unused=True) == (None,)
    torch.testing.assert_close(sigmoid_gate(3 * y, z, MAMBALRP), 3 * p)  # homogeneous of degree 1
    s = torch.sigmoid(z)
    plain = torch.autograd.grad(sigmoid_gate(y, z, NO_RULES), [y, z], R)
    torch.testing.assert_close(plain, (R * s, R * y * s * (1 - s)))


def test_the_factor_of_an_l2_norm_is_constant():
    x, R = random(2, 5, 4).requires_grad_(), random(2, 5, 4, seed=1)
    n = l2_norm(x, 1e-6, MAMBALRP)
    torch.testing.assert_close(n.pow(2).sum(-1), torch.ones(2, 5, dtype=torch.float64), rtol=1e-5, atol=0)
    (found,) = relevance(n, [x], R)
    torch.testing.assert_close(found, R)
    plain = torch.autograd.grad(l2_norm(x, 1e-6, NO_RULES), x, R)
    expected = torch.autograd.grad(x / (x * x).sum(-1, keepdim=True).add(1e-6).sqrt(), x, R)
    torch.testing.assert_close(plain, expected)
