"""Softmax attention as a part, on modules that nobody has, against loops over positions, heads and numbers in float64.

The oracle computes o_proj(gate A v) as the module's names say, with what the rules hold constant detached; under
"attnlrp" the gradients of queries and keys are a quarter and those of values a half, as `test_attention_rules` shows.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import pytest
import torch
from torch import nn

from hf_mambalrp.attention import attention_matrix, weighted_rows
from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts import Attention
from hf_mambalrp.ops.attention import sdpa
from hf_mambalrp.rules import MAMBALRP, NO_RULES
from hf_mambalrp.rules.biases import BiasLedger

B, L, D, P = 2, 7, 6, 4
RULES = {"cp": MAMBALRP, "attnlrp": replace(MAMBALRP, attention="attnlrp"), "gradient": NO_RULES}
KEYS = torch.tensor([[1, 1, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1, 1]])


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.rand(width) + 0.5), 1e-3


class Rotary(nn.Module):
    """Turns the first dimensions of a head, with frequencies that depend on the length of the text."""

    def __init__(self, dimensions):
        super().__init__()
        self.half = dimensions // 2

    def frequencies(self, length):
        return [0.9 / (n + 1) / length for n in range(self.half)]

    def forward(self, x, positions):
        angles = positions[..., None] * x.new_tensor(self.frequencies(int(positions.max()) + 1))
        both = torch.cat([angles, angles], -1)
        return both.cos(), both.sin()


@dataclass
class Case:
    heads: int = 4
    keys_heads: int = 2
    norm: int = 0
    """Width that q and k are normed over: a head's, or -1 for all."""
    gate: bool = False
    bias: bool = False
    rotary: int = 0
    adapters: bool = False
    keys: bool = False
    settings: tuple = ()

    @cached_property
    def module(self):
        torch.manual_seed(5)
        m, inner, width = nn.Module(), self.heads * P, self.keys_heads * P
        m.head_dim = P
        m.q_proj = nn.Linear(D, inner * (1 + self.gate), bias=self.bias)
        m.k_proj, m.v_proj = nn.Linear(D, width, bias=self.bias), nn.Linear(D, width, bias=self.bias)
        m.o_proj = nn.Linear(inner, D, bias=self.bias)
        if self.norm:
            m.q_norm, m.k_norm = (Norm(P if self.norm == P else size) for size in (inner, width))
        for name, value in self.settings:
            setattr(m, name, value)
        m.double()
        rotary = Rotary(self.rotary) if self.rotary else None
        adapters = ()
        if self.adapters:
            sizes = (inner * (1 + self.gate), width, width)
            adapters = [(nn.Linear(D, 2, bias=False).double(), nn.Linear(2, size).double()) for size in sizes]
        return m, rotary, adapters


CASES = {
    "plain": Case(),
    "one head of keys": Case(keys_heads=1),
    "no groups": Case(keys_heads=4),
    "norm of a head": Case(norm=P),
    "norm of all": Case(norm=-1),
    "window": Case(settings=(("sliding_window", 3),)),
    "no window": Case(settings=(("sliding_window", None),)),
    "softcap": Case(settings=(("attn_logit_softcapping", 0.8),)),
    "gate": Case(gate=True),
    "biases": Case(bias=True),
    "key multiplier": Case(settings=(("key_multiplier", 1.7),)),
    "scaling": Case(settings=(("scaling", 0.9),)),
    "rope": Case(rotary=P),
    "rope of half": Case(rotary=2),
    "adapters": Case(adapters=True),
    "padding between": Case(keys=True),
    "all": Case(
        norm=P,
        gate=True,
        bias=True,
        rotary=2,
        adapters=True,
        keys=True,
        settings=(("sliding_window", 4), ("attn_logit_softcapping", 0.8), ("key_multiplier", 1.7), ("scaling", 0.9)),
    ),
    "all, norm of all": Case(norm=-1, gate=True, bias=True, rotary=P, settings=(("sliding_window", 2),)),
}


def turned(x, t, rotary):
    """x (P,) at position t of a text of L: pairs (n, n + half) turned by t times a frequency."""
    if rotary is None:
        return x
    parts = list(x)
    for n, frequency in enumerate(rotary.frequencies(L)):
        cos, sin = math.cos(t * frequency), math.sin(t * frequency)
        a, b = x[n], x[n + rotary.half]
        parts[n], parts[n + rotary.half] = a * cos - b * sin, a * sin + b * cos
    return torch.stack(parts)


def normed(x, norm, constant):
    r = 1 / torch.sqrt(x.pow(2).mean() + norm.variance_epsilon)
    return x * (r.detach() if constant else r) * norm.weight.detach()


def slowed(x, share):
    return share * x + ((1 - share) * x).detach()


def projected(case, x, rules):
    """q, k and v of a row (L, D) as lists of heads at every position, and the gate (L, H P)."""
    m, rotary, adapters = case.module
    q, k, v, gates = [], [], [], []
    for t in range(L):
        made = [getattr(m, name)(x[t]) for name in ("q_proj", "k_proj", "v_proj")]
        for number, (down, up) in enumerate(adapters):
            made[number] = made[number] + up(down(x[t]))
        if case.gate:
            heads = made[0].view(case.heads, 2, P)
            made[0], gate = heads[:, 0].reshape(-1), torch.sigmoid(heads[:, 1].reshape(-1))
            gates.append(gate.detach() if rules.gate else gate)
        for number, norm in enumerate((m.q_norm, m.k_norm) if case.norm else ()):
            parts = [made[number]] if case.norm == -1 else made[number].split(P)
            made[number] = torch.cat([normed(part, norm, rules.norm) for part in parts])
        factor = dict(case.settings).get("key_multiplier", 1.0)
        q.append([turned(head, t, rotary) for head in made[0].split(P)])
        k.append([turned(factor * head, t, rotary) for head in made[1].split(P)])
        v.append(made[2].split(P))
    return q, k, v, torch.stack(gates) if gates else torch.ones(L, case.heads * P).double()


def oracle(case, x, rule):
    """o_proj's output (B, L, D), and A (B, H, L, L) and the gate (B, L, H P)."""
    settings, rules = dict(case.settings), RULES[rule]
    to_scores, to_values = {"cp": (0, 1), "attnlrp": (0.25, 0.5), "gradient": (1, 1)}[rule]
    scaling, cap = settings.get("scaling", P**-0.5), settings.get("attn_logit_softcapping")
    window, o_proj = settings.get("sliding_window") or L, case.module[0].o_proj
    A, gates, found = torch.zeros(B, case.heads, L, L, dtype=torch.float64), [], []
    for b in range(B):
        q, k, v, gate = projected(case, x[b], rules)
        gates.append(gate.detach())
        for i in range(L):
            heads = []
            for h in range(case.heads):
                g, s = h // (case.heads // case.keys_heads), {}
                for j in range(max(0, i - window + 1), i + 1):
                    if i == j or not case.keys or KEYS[b, j]:
                        s[j] = scaling * (slowed(q[i][h], to_scores) @ slowed(k[j][g], to_scores))
                        if cap is not None:
                            capped = cap * torch.tanh(s[j] / cap)
                            s[j] = s[j] * (capped / s[j]).detach() if rules.silu else capped
                total = sum(one.exp() for one in s.values())
                heads.append(sum(s[j].exp() / total * slowed(v[j][g], to_values) for j in s))
                for j, one in s.items():
                    A[b, h, i, j] = (one.exp() / total).detach()
            found.append(o_proj(torch.cat(heads) * gate[i]))
    return torch.stack(found).view(B, L, D), A, torch.stack(gates)


def step_of(case, rule, start=0, stop=L):
    keys = KEYS[:, :stop].double() if case.keys else None
    ledger = BiasLedger(B)
    return Step(RULES[rule], ledger, start=start, length=L, keys=keys, dtype=torch.float64)


def read(seed=0):
    return torch.randn(B, L, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", CASES)
def test_outputs_and_modified_gradients_equal_the_loops(name, rule, monkeypatch):
    monkeypatch.setattr(sdpa, "BLOCK_ELEMENTS", 30)
    case, x, g = CASES[name], read(), read(1).detach()
    part = Attention(*case.module)
    expected, _, _ = oracle(case, x, rule)
    (of_expected,) = torch.autograd.grad(expected, x, g)
    step = step_of(case, rule)
    y, state = part(x, part.state(B, x), step)
    assert state.k.shape == state.v.shape == (B, L, case.keys_heads, P)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.autograd.grad(y, x, g, retain_graph=True)[0], of_expected, rtol=1e-8, atol=1e-9)
    if rule != "gradient":  # all that x is not given was absorbed by biases and softmax
        entries = step.ledger.entries
        gradients = torch.autograd.grad(y, entries, g, allow_unused=True, materialize_grads=True) if entries else []
        absorbed = step.ledger.shares(step.ledger.absorbed(gradients)).sum((0, 1)).double()
        torch.testing.assert_close((x * of_expected).sum((1, 2)) + absorbed, (y * g).sum((1, 2)))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [1, 3, 5])
def test_chunk_by_chunk_is_the_whole(name, rule, size):
    case, x, g = CASES[name], read(), read(1).detach()
    part = Attention(*case.module)
    whole, _ = part(x, part.state(B, x), step_of(case, rule))
    found, past = [], part.state(B, x)
    for start in range(0, L, size):
        stop = min(start + size, L)
        y, new = part(x[:, start:stop], past, step_of(case, rule, start, stop))
        past = type(past)(*(torch.cat(pair, 1) for pair in zip(past, new, strict=True)))
        found.append(y)
    torch.testing.assert_close(torch.cat(found, 1), whole, rtol=1e-10, atol=1e-10)
    (one,), (other,) = (torch.autograd.grad(y, x, g) for y in (torch.cat(found, 1), whole))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_its_mixing_is_its_matrices(name):
    case, x = CASES[name], read().detach()
    part = Attention(*case.module)
    y, A, gates = oracle(case, x, "cp")
    mixing = part.mixing(x, step_of(case, "gradient"))
    rows = range(L)
    torch.testing.assert_close(attention_matrix(mixing, None, rows, "none", "raw"), A)
    torch.testing.assert_close(attention_matrix(mixing, None, rows, "mean", "raw"), A.mean(1))
    weights = read(2).detach()[..., 0]
    torch.testing.assert_close(weighted_rows(mixing, weights), torch.einsum("bi,bij->bj", weights, A.mean(1)))
    channels = A.repeat_interleave(P, 1) * gates.transpose(1, 2)[..., None]
    H = attention_matrix(mixing, None, rows, "none", "unified")
    torch.testing.assert_close(H, channels)
    torch.testing.assert_close(attention_matrix(mixing, None, rows, "mean", "unified"), channels.mean(1))
    torch.testing.assert_close(attention_matrix(mixing, None, range(2, 5), "mean", "unified"), channels.mean(1)[:, 2:5])
    bias = 0 if part.module.o_proj.bias is None else part.module.o_proj.bias
    torch.testing.assert_close(mixing.out(torch.einsum("beij,bje->bie", H, mixing.x)) + bias, y)
