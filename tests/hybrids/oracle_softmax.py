"""The oracle's softmax attention, head by head and position by position, and its two rules.

Query head h of H reads key-value head g = h // (H / KV). For positions j <= i of one row:

    q_i, k_j = rotated(W_q x_i + b_q), rotated(m W_k x_j + b_k),   v_j = W_v x_j + b_v
    s_ij = c q_i . k_j,   a_ij = exp(s_ij) / sum_j exp(s_ij),   o_i = sum_j a_ij v_j,   y_i = W_o o_i + b_o

Rules, with G the modified gradient (relevance of a value = value * G):

    "cp"       a is constant: G_v_j = sum_i a_ij G_o_i; nothing goes to q and k
    "attnlrp"  half at a_ij v_j: G_v_j = sum_i a_ij G_o_i / 2, G_a_ij = v_j . G_o_i / 2;
               softmax: R(s_ij) = s_ij (R(a_ij) - a_ij sum_j' R(a_ij')), what it loses is absorbed;
               half at q_i . k_j: G_q_i = sum_j c k_j G_s_ij / 2, G_k_j = sum_i c q_i G_s_ij / 2

Rotations, the key multiplier m and adapters are linear.
"""

from __future__ import annotations

import math

import torch
from oracle_parts import F64, Absorbed, Adapted, Linear
from torch import Tensor


def rotated(x: Tensor, frequencies: Tensor | None, direction: int = 1) -> Tensor:
    """Every pair (x_n, x_{n + N}) of x (L, heads, P), n < N frequencies, turned by direction * t * frequency_n.

    Dimensions from 2 N on stay. Direction -1 is the inverse, and, a turn being orthogonal, the transpose.
    """
    if frequencies is None:
        return x
    y, N = x.clone(), len(frequencies)
    for t in range(len(x)):
        for n, frequency in enumerate(frequencies.tolist()):
            cos, sin = math.cos(t * frequency), direction * math.sin(t * frequency)
            y[t, :, n] = cos * x[t, :, n] - sin * x[t, :, n + N]
            y[t, :, n + N] = sin * x[t, :, n] + cos * x[t, :, n + N]
    return y


class Attention:
    """Causal softmax attention with grouped keys and values under the rule `rule`."""

    def __init__(
        self,
        q: Linear | Adapted,
        k: Linear | Adapted,
        v: Linear | Adapted,
        o: Linear,
        *,
        head_dim: int,
        scaling: float,
        rule: str,
        frequencies: Tensor | None = None,
        key_multiplier: float = 1.0,
    ):
        if rule not in ("cp", "attnlrp"):
            raise ValueError(f"unknown rule {rule!r} for attention")
        self.projections, self.o = (q, k, v), o
        self.head_dim, self.scaling, self.rule = head_dim, scaling, rule
        self.frequencies, self.key_multiplier = frequencies, key_multiplier

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (projection.forward(x).unflatten(-1, (-1, self.head_dim)) for projection in self.projections)
        self.q = rotated(q, self.frequencies)
        self.k = rotated(self.key_multiplier * k, self.frequencies)
        self.v = v
        L, H = self.q.shape[:2]
        self.scores = torch.full((H, L, L), -math.inf, dtype=F64)
        self.weights = torch.zeros(H, L, L, dtype=F64)
        o = torch.zeros_like(self.q)
        for h in range(H):
            g = self.group(h)
            for i in range(L):
                for j in range(i + 1):
                    self.scores[h, i, j] = self.scaling * (self.q[i, h] @ self.k[j, g])
                terms = torch.exp(self.scores[h, i] - self.scores[h, i].max())
                self.weights[h, i] = terms / terms.sum()
                for j in range(i + 1):
                    o[i, h] += self.weights[h, i, j] * v[j, g]
        return self.o.forward(o.flatten(1))

    def group(self, h: int) -> int:
        return h // (self.q.shape[1] // self.v.shape[1])

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        G_o = self.o.backward(G, absorbed).unflatten(-1, (-1, self.head_dim))
        G_q, G_k, G_v = (torch.zeros_like(value) for value in (self.q, self.k, self.v))
        share = 1.0 if self.rule == "cp" else 0.5
        for h in range(G_o.shape[1]):
            g = self.group(h)
            for i in range(len(G_o)):
                for j in range(i + 1):
                    G_v[j, g] += share * self.weights[h, i, j] * G_o[i, h]
                if self.rule == "attnlrp":
                    self._backward_scores(h, i, G_o[i, h], G_q, G_k, absorbed)
        q, k, v = self.projections
        G_x = v.backward(G_v.flatten(1), absorbed)
        if self.rule == "attnlrp":
            G_x = G_x + q.backward(rotated(G_q, self.frequencies, -1).flatten(1), absorbed)
            G_k = self.key_multiplier * rotated(G_k, self.frequencies, -1)
            G_x = G_x + k.backward(G_k.flatten(1), absorbed)
        return G_x

    def _backward_scores(self, h: int, i: int, G_o: Tensor, G_q: Tensor, G_k: Tensor, absorbed: Absorbed) -> None:
        """Adds what position i of head h gives its query and the keys before it."""
        g, before = self.group(h), range(i + 1)
        G_a = [float(self.v[j, g] @ G_o) / 2 for j in before]
        a = self.weights[h, i].tolist()
        R_a = [a[j] * G_a[j] for j in before]
        through = sum(R_a)
        R_s = [float(self.scores[h, i, j]) * (R_a[j] - a[j] * through) for j in before]
        absorbed.softmax = absorbed.softmax + (through - sum(R_s))
        for j in before:
            G_s = R_a[j] - a[j] * through  # = R_s / s_ij
            G_q[i, h] += self.scaling * self.k[j, g] * G_s / 2
            G_k[j, g] += self.scaling * self.q[i, h] * G_s / 2
