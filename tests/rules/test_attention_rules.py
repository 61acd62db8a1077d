"""Rules of softmax attention and of activations against relevance written out by hand, number by number, in float64."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from hf_mambalrp.ops.attention import Scores, attention
from hf_mambalrp.rules import MAMBALRP, NO_RULES
from hf_mambalrp.rules.activation import FACTORS, activation, factor_of
from hf_mambalrp.rules.biases import BiasLedger
from hf_mambalrp.rules.gate import gate

ATTNLRP = replace(MAMBALRP, attention="attnlrp")
B, L, H, P = 2, 4, 3, 2


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def propagated(rules, scale=0.6):
    """q, k, v, o, the relevance R of o, relevance found of q, k and v, and what was absorbed of every row."""
    q, k, v = (random(B, L, H, P, seed=seed).requires_grad_() for seed in range(3))
    ledger = BiasLedger(B)
    o = attention(q, k, v, None, Scores(scale), rules=rules, ledger=ledger)
    R = random(B, L, H, P, seed=3)
    leaves = [q, k, v, *ledger.entries]
    gradients = torch.autograd.grad(o, leaves, R / o.detach(), allow_unused=True, materialize_grads=True)
    found = [x.detach() * g for x, g in zip((q, k, v), gradients, strict=False)]
    absorbed = ledger.shares(ledger.absorbed(gradients[3:]))[1].sum(0) if ledger.entries else torch.zeros(B)
    return [x.detach() for x in (q, k, v, o)], R, found, absorbed


def weights(q, k, b, h, i, scale=0.6):
    """Scores x_ij and A_ij of a query."""
    x = [scale * float(q[b, i, h] @ k[b, j, h]) for j in range(i + 1)]
    total = sum(map(math.exp, x))
    return x, [math.exp(one) / total for one in x]


def test_cp_gives_all_to_the_values():
    """R_v_j = sum_i A_ij v_j / o_i R_i; it conserves, head by head and number by number."""
    (q, k, v, o), R, (R_q, R_k, R_v), absorbed = propagated(MAMBALRP)
    expected = torch.zeros_like(v)
    for b in range(B):
        for h in range(H):
            for i in range(L):
                _, A = weights(q, k, b, h, i)
                for j in range(i + 1):
                    expected[b, j, h] += A[j] * v[b, j, h] / o[b, i, h] * R[b, i, h]
    torch.testing.assert_close(R_v, expected)
    assert R_q.count_nonzero() == R_k.count_nonzero() == absorbed.count_nonzero() == 0
    torch.testing.assert_close(R_v.sum((1, 3)), R.sum((1, 3)))


def test_attnlrp_is_halves_at_both_products_and_the_softmax_linearised():
    """Achtibat et al. 2024: A v halves R; R(x_ij) = x_ij (R(A_ij) - A_ij sum_j R(A_ij)); q k^T halves that again."""
    (q, k, v, o), R, found, absorbed = propagated(ATTNLRP)
    R_q, R_k, R_v, lost = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v), torch.zeros(B).double()
    for b in range(B):
        for h in range(H):
            for i in range(L):
                x, A = weights(q, k, b, h, i)
                share = R[b, i, h] / o[b, i, h]  # of every number that o_i is the sum of
                R_A = []
                for j in range(i + 1):
                    terms = A[j] * v[b, j, h] * share
                    R_v[b, j, h] += terms / 2
                    R_A.append(float(terms.sum()) / 2)
                R_x = [x[j] * (R_A[j] - A[j] * sum(R_A)) for j in range(i + 1)]
                lost[b] += sum(R_A) - sum(R_x)
                for j in range(i + 1):
                    parts = 0.6 * q[b, i, h] * k[b, j, h] / x[j] * R_x[j]
                    R_q[b, i, h] += parts / 2
                    R_k[b, j, h] += parts / 2
    for one, expected in zip(found, (R_q, R_k, R_v), strict=True):
        torch.testing.assert_close(one, expected)
    torch.testing.assert_close(absorbed.double(), lost)
    torch.testing.assert_close(sum(one.sum((1, 2, 3)) for one in found) + lost, R.sum((1, 2, 3)))
    assert (lost.abs() > 1e-3).all(), "the softmax absorbs something here"


def test_without_rules_it_is_the_gradient():
    (q, k, v, o), R, found, _ = propagated(NO_RULES)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    x = 0.6 * torch.einsum("bihp,bjhp->bhij", *leaves[:2])
    A = x.masked_fill(torch.ones(L, L).triu(1) == 1, -torch.inf).softmax(-1)
    own = torch.einsum("bhij,bjhp->bihp", A, leaves[2])
    torch.testing.assert_close(own, o)
    for one, leaf, gradient in zip(found, leaves, torch.autograd.grad(own, leaves, R / o), strict=True):
        torch.testing.assert_close(one, leaf.detach() * gradient)


ACTIVATIONS = {
    "SiLU": (nn.SiLU(), lambda x: x / (1 + math.exp(-x))),
    "SiLU of transformers": (ACT2FN["silu"], lambda x: x / (1 + math.exp(-x))),
    "GELU": (nn.GELU(), lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2),
    "GELU of transformers": (ACT2FN["gelu"], lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2),
    "GELU by tanh": (
        nn.GELU(approximate="tanh"),
        lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    ),
    "GELU by tanh of transformers": (
        ACT2FN["gelu_pytorch_tanh"],
        lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    ),
    "new GELU": (
        ACT2FN["gelu_new"],
        lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    ),
    "ReLU": (nn.ReLU(), lambda x: max(x, 0.0)),
    "ReLU^2": (ACT2FN["relu2"], lambda x: max(x, 0.0) ** 2),
}
POINTS = [-30.0, -3.0, -0.7, -1e-3, 0.0, 1e-3, 0.7, 3.0, 30.0]
every_activation = pytest.mark.parametrize("name", ACTIVATIONS)


@every_activation
def test_an_activation_passes_on_what_it_gets(name):
    """f(x) = x [f(x) / x]: the gradient is f(x) / x, relevance goes through whole."""
    module, f = ACTIVATIONS[name]
    factor = factor_of(module)
    x = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
    expected = torch.tensor([f(value) for value in POINTS], dtype=torch.float64)
    torch.testing.assert_close(module(x), expected)
    y = activation(x, MAMBALRP, factor)
    torch.testing.assert_close(y, expected)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(x.detach() * gradient, expected)
    assert gradient.isfinite().all()
    (plain,) = torch.autograd.grad(activation(x, NO_RULES, factor).sum(), x)
    own = torch.autograd.grad(module(x).sum(), x)[0]
    smooth = x != 0 if name == "ReLU" else x == x  # noqa: PLR0124
    torch.testing.assert_close(plain[smooth], own[smooth])


@every_activation
def test_a_factor_has_memory_of_its_own(name):
    x = torch.tensor(POINTS)
    factor_of(ACTIVATIONS[name][0])(x).fill_(7.0)
    assert x.tolist() == torch.tensor(POINTS).tolist()


@every_activation
def test_a_gate_gives_each_factor_half(name):
    """Of p = y f(z) the relevance R: R_y = R_z = R / 2, whatever f."""
    module, _ = ACTIVATIONS[name]
    y, z = random(2, 5).requires_grad_(), (random(2, 5, seed=1).abs() + 0.1).requires_grad_()
    p = gate(y, z, MAMBALRP, factor_of(module))
    torch.testing.assert_close(p, y * module(z))
    R = random(2, 5, seed=2)
    gradients = torch.autograd.grad(p, (y, z), R / p.detach())
    for x, gradient in zip((y, z), gradients, strict=True):
        torch.testing.assert_close(x.detach() * gradient, R / 2)
    q = gate(y, z, NO_RULES, factor_of(module))
    own = torch.autograd.grad(y * module(z), (y, z), R)
    for found, expected in zip(torch.autograd.grad(q, (y, z), R), own, strict=True):
        torch.testing.assert_close(found, expected)


def test_half_of_the_rules_of_a_gate():
    """Half without the identity rule, and the identity rule without half."""
    y, z, g = random(6).requires_grad_(), random(6, seed=1).requires_grad_(), random(6, seed=2)
    sigmoid, module = torch.sigmoid(z.detach()), nn.SiLU()
    derivative = sigmoid * (1 + z.detach() * (1 - sigmoid))
    for rules, share, to_z in (
        (replace(MAMBALRP, silu=False), 0.5, derivative),
        (replace(MAMBALRP, gate=False), 1.0, sigmoid),
    ):
        found = torch.autograd.grad(gate(y, z, rules, factor_of(module)), (y, z), g)
        torch.testing.assert_close(found[0], share * g * z.detach() * sigmoid)
        torch.testing.assert_close(found[1], share * g * y.detach() * to_z)


def test_other_activations_have_no_factor():
    """Those that are no x * factor(x) with a factor known here are refused by their parts, not mistaken for others."""
    known = {type(module).__name__ for module, _ in ACTIVATIONS.values()} | {*FACTORS}
    for name in ("quick_gelu", "gelu_fast", "mish", "tanh", "sigmoid", "gelu_10", "laplace", "relu6", "leaky_relu"):
        if name in ACT2FN:
            assert type(ACT2FN[name]).__name__ not in known
            assert factor_of(ACT2FN[name]) is None
