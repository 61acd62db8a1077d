"""The oracle's softmax attention, as matrices of all queries and keys, and its two rules.

Query head h of H reads key-value head g = h // (H / KV). For positions j <= i of one row:

    q_i, k_j = rotated(W_q x_i + b_q), rotated(m W_k x_j + b_k),   v_j = W_v x_j + b_v
    s_ij = c q_i . k_j,   a_ij = exp(s_ij) / sum_j exp(s_ij),   o_i = sum_j a_ij v_j,   y_i = W_o o_i + b_o

Rules, with G the modified gradient (relevance of a value = value * G):

    "cp"       a is constant: G_v_j = sum_i a_ij G_o_i; nothing goes to q and k
    "attnlrp"  half at a_ij v_j: G_v_j = sum_i a_ij G_o_i / 2, G_a_ij = v_j . G_o_i / 2;
               softmax: R(s_ij) = s_ij (R(a_ij) - a_ij sum_j' R(a_ij')), what it loses is absorbed;
               half at q_i . k_j: G_q_i = sum_j c k_j G_s_ij / 2, G_k_j = sum_i c q_i G_s_ij / 2

Rotations, the key multiplier m and adapters are linear; norms of q and k, of every head or of all, are constant
factors; a gate behind A v, o_i sigmoid(g_i), is constant.

Latent attention has c, k_rot = W_a x, [k_nope, v] of every head = W_b n(c), and k = [k_nope, k_rot]; where it has
positions, neighbours of q_rot and k_rot are turned.
"""

from __future__ import annotations

import math

import torch
from oracle_parts import F64, Absorbed, Adapted, Linear, Norm, Part
from torch import Tensor


def rotated(
    x: Tensor, frequencies: Tensor | None, direction: int = 1, pairs: list[tuple[int, int]] | None = None
) -> Tensor:
    """Every pair (x_n, x_{n + N}) of x (L, heads, P), n < N frequencies, turned by direction * t * frequency_n.

    Other dimensions stay; `pairs` are others than these. Direction -1 is the inverse, and, a turn being orthogonal,
    the transpose.
    """
    if frequencies is None:
        return x
    y, N = x.clone(), len(frequencies)
    pairs = pairs or [(n, n + N) for n in range(N)]
    t = torch.arange(len(x), dtype=F64)[:, None]
    for (a, b), frequency in zip(pairs, frequencies.tolist(), strict=True):
        cos, sin = torch.cos(t * frequency), direction * torch.sin(t * frequency)
        y[:, :, a] = cos * x[:, :, a] - sin * x[:, :, b]
        y[:, :, b] = sin * x[:, :, a] + cos * x[:, :, b]
    return y


class Narrowed:
    """z = W_b n(W_a x), with a norm."""

    def __init__(self, first: Linear, norm: Norm, second: Linear):
        self.first, self.norm, self.second = first, norm, second

    def forward(self, x: Tensor) -> Tensor:
        return self.second.forward(self.norm.forward(self.first.forward(x)))

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        return self.first.backward(self.norm.backward(self.second.backward(G, absorbed)), absorbed)


class LatentKeys:
    """k_h = [k_nope_h, k_rot] of `heads` heads; k_rot is shared."""

    def __init__(self, nope: Narrowed, rot: Linear, heads: int):
        self.nope, self.rot, self.heads = nope, rot, heads

    def forward(self, x: Tensor) -> Tensor:
        nope, rot = self.nope.forward(x).unflatten(-1, (self.heads, -1)), self.rot.forward(x)
        self.width = nope.shape[-1]
        return torch.cat([torch.cat([nope[:, h], rot], -1) for h in range(self.heads)], -1)

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        G = G.unflatten(-1, (self.heads, -1))
        G_rot = sum(G[:, h, self.width :] for h in range(self.heads))
        G_nope = G[:, :, : self.width].flatten(1)
        return self.nope.backward(G_nope, absorbed) + self.rot.backward(G_rot, absorbed)


class Attention:
    """Causal softmax attention with grouped keys and values under the rule `rule`."""

    def __init__(
        self,
        q: Part | Adapted,
        k: Part | Adapted,
        v: Part | Adapted,
        o: Linear,
        *,
        head_dim: int,
        scaling: float,
        rule: str,
        frequencies: Tensor | None = None,
        pairs: list[tuple[int, int]] | None = None,
        key_multiplier: float = 1.0,
        value_dim: int | None = None,
        norms: tuple[Norm, Norm] | None = None,
        gate: Linear | None = None,
        window: int | None = None,
    ):
        if rule not in ("cp", "attnlrp"):
            raise ValueError(f"unknown rule {rule!r} for attention")
        self.projections, self.o = (q, k, v), o
        self.head_dim, self.scaling, self.rule = head_dim, scaling, rule
        self.frequencies, self.pairs, self.key_multiplier = frequencies, pairs, key_multiplier
        self.value_dim, self.norms, self.gate, self.window = value_dim or head_dim, norms, gate, window

    def _normed(self, which: int, x: Tensor) -> Tensor:
        """Of q (0) or k (1), (L, heads P)."""
        if self.norms is None:
            return x
        norm = self.norms[which]
        return norm.forward(x.unflatten(-1, (-1, len(norm.weight)))).flatten(1)

    def _of_normed(self, which: int, G: Tensor) -> Tensor:
        if self.norms is None:
            return G
        norm = self.norms[which]
        return norm.backward(G.unflatten(-1, (-1, len(norm.weight)))).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        of_q, of_k, of_v = self.projections
        q, k = (self._normed(which, part.forward(x)) for which, part in enumerate((of_q, of_k)))
        q, k = q.unflatten(-1, (-1, self.head_dim)), k.unflatten(-1, (-1, self.head_dim))
        v = of_v.forward(x).unflatten(-1, (-1, self.value_dim))
        self.q = rotated(q, self.frequencies, 1, self.pairs)
        self.k = rotated(self.key_multiplier * k, self.frequencies, 1, self.pairs)
        L, H = self.q.shape[:2]
        self.groups = torch.arange(H) // (H // v.shape[1])
        self.keys, self.values = self.k[:, self.groups], v[:, self.groups]  # (L, H, P): of every head
        behind = torch.arange(L)[:, None] - torch.arange(L)
        self.read = (behind >= 0) & (behind < (L if self.window is None else self.window))  # by position i, j
        self.scores = self.scaling * torch.einsum("ihp,jhp->hij", self.q, self.keys)
        terms = torch.exp(self.scores.masked_fill(~self.read, -math.inf))
        self.weights = terms / terms.sum(-1, keepdim=True)
        o = torch.einsum("hij,jhp->ihp", self.weights, self.values)
        self.opened = torch.ones_like(o.flatten(1)) if self.gate is None else torch.sigmoid(self.gate.forward(x))
        return self.o.forward(o.flatten(1) * self.opened)

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        G_o = (self.o.backward(G, absorbed) * self.opened).unflatten(-1, (-1, self.value_dim))
        share = 1.0 if self.rule == "cp" else 0.5
        G_v = self._of_groups(share * torch.einsum("hij,ihp->jhp", self.weights, G_o))
        q, k, v = self.projections
        G_x = v.backward(G_v.flatten(1), absorbed)
        if self.rule == "attnlrp":
            G_q, G_k = self._backward_scores(G_o, absorbed)
            G_q = self._of_normed(0, rotated(G_q, self.frequencies, -1, self.pairs).flatten(1))
            G_x = G_x + q.backward(G_q, absorbed)
            G_k = self.key_multiplier * rotated(G_k, self.frequencies, -1, self.pairs)
            G_x = G_x + k.backward(self._of_normed(1, G_k.flatten(1)), absorbed)
        return G_x

    def _of_groups(self, of_heads: Tensor) -> Tensor:
        """(L, groups, P), the sums over the heads of each, from (L, H, P)."""
        groups = int(self.groups[-1]) + 1
        return torch.stack([of_heads[:, self.groups == group].sum(1) for group in range(groups)], 1)

    def _backward_scores(self, G_o: Tensor, absorbed: Absorbed) -> tuple[Tensor, Tensor]:
        """What every position gives its query and the keys before it."""
        R_a = self.weights * torch.einsum("jhp,ihp->hij", self.values, G_o) / 2
        through = R_a.sum(-1, keepdim=True)
        G_s = R_a - self.weights * through  # = R_s / s_ij
        absorbed.softmax = absorbed.softmax + (through.sum() - (self.scores * G_s).sum())
        G_q = self.scaling * torch.einsum("hij,jhp->ihp", G_s, self.keys) / 2
        G_k = self.scaling * torch.einsum("hij,ihp->jhp", G_s, self.q) / 2
        return G_q, self._of_groups(G_k)
