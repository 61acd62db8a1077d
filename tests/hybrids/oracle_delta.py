"""The oracle's gated delta nets and short convolutions, recurrence and adjoint as loops over tokens, with their rules.

One row without padding; G is the modified gradient. Heads h of H read keys of group g = h // (H / groups):

    q, k, v, z, b, a = projections of x;  q, k, v = silu(conv(.));  q = q / (|q| sqrt(N)), k = k / |k|
    beta = sigmoid(b), twice that where eigenvalues may be negative;  D = diag(exp(-exp(A_log) softplus(a + dt_bias))),
    of a decay with a lower bound c D = diag(exp(c sigmoid(exp(A_log) (a + dt_bias))))
    S_t = S_{t-1} D_t (I - beta_t k_t k_t^T) + beta_t v_t k_t^T;  o_t = S_t q_t;  y = W_out (norm(o) f(z))

|.| has 1e-6 under its root. q, k, beta and D are constant, f(z) = silu(z) takes half of what is there, f(z) =
sigmoid(z) none. The short convolution is y = W_out (C c), c = conv(B x), [B, C, x] = W_in h, with half for each factor.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from oracle_parts import F64, Absorbed, Linear, Norm
from oracle_ssm import Conv, Gate
from torch import Tensor


def _root(x: Tensor) -> Tensor:
    return torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6)


class TwoLinear:
    """W_2 W_1 x."""

    def __init__(self, first: Linear, second: Linear):
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return self.second.forward(self.first.forward(x))

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        return self.first.backward(self.second.backward(G, absorbed), absorbed)


class DeltaRule:
    """S <- S D (I - beta k k^T) + beta v k^T, o = S q, of one head: all but v (L, P) constant.

    q and k (L, N), decay (L, N) or (L, 1), beta (L,).
    """

    def __init__(self, q: Tensor, k: Tensor, decay: Tensor, beta: Tensor):
        self.q, self.k, self.beta = q, k, beta
        N = k.shape[1]
        outer = k[:, :, None] * k[:, None]
        self.turn = torch.diag_embed(decay.expand(-1, N)) @ (torch.eye(N, dtype=F64) - beta[:, None, None] * outer)

    def forward(self, v: Tensor) -> Tensor:
        S, o = torch.zeros(v.shape[1], self.k.shape[1], dtype=F64), []
        for t in range(len(v)):
            S = S @ self.turn[t] + self.beta[t] * v[t][:, None] * self.k[t]
            o.append(S @ self.q[t])
        return torch.stack(o)

    def backward(self, G: Tensor) -> Tensor:
        """L = G of S_t = G_o_t q_t^T + L_{t+1} turn_{t+1}^T;  G of v_t = beta_t L k_t."""
        L, G_v = torch.zeros(G.shape[1], self.k.shape[1], dtype=F64), torch.zeros_like(G)
        for t in reversed(range(len(G))):
            if t + 1 < len(G):
                L = L @ self.turn[t + 1].T
            L = L + G[t][:, None] * self.q[t]
            G_v[t] = self.beta[t] * (L @ self.k[t])
        return G_v

    def alpha(self) -> Tensor:
        """alpha_ij = beta_j k_j^T turn_{j+1} ... turn_i q_i. Shape: (L, L)."""
        length = len(self.q)
        alpha = torch.zeros(length, length, dtype=F64)
        for j in range(length):
            row = self.beta[j] * self.k[j]
            for i in range(j, length):
                row = row if i == j else row @ self.turn[i]
                alpha[i, j] = row @ self.q[i]
        return alpha


class DeltaNet:
    """A gated delta net, read off a module of Qwen3-Next, Qwen3.5, OLMo-Hybrid, Kimi-Linear or Ling 3."""

    def __init__(self, mixer: Any, name: str):
        norm = mixer.norm if hasattr(mixer, "norm") else mixer.o_norm
        self.sigmoid = type(norm).__name__.startswith(("Kimi", "Bailing"))
        self.head_norm, self.P = Norm(norm), len(norm.weight)
        self.out = _of(mixer, name, "out_proj", "o_proj")
        self.H = self.out.weight.shape[1] // self.P
        self.N = mixer.head_k_dim if hasattr(mixer, "head_k_dim") else mixer.head_dim
        self.conv = Conv(mixer.conv1d, f"{name}.conv1d")
        self.groups = (len(self.conv.taps) - self.H * self.P) // (2 * self.N)
        self.twice = getattr(mixer, "allow_neg_eigval", False)
        gate = getattr(mixer, "forget_gate", mixer)
        self.dt_bias, self.rate = gate.dt_bias.detach().to(F64), gate.A_log.detach().to(F64).exp().flatten()
        self.lowest = gate.lower_bound if getattr(gate, "safe_gate", False) else None
        self._read_projections(mixer, name)

    def _read_projections(self, mixer: Any, name: str) -> None:
        HP, GN = self.H * self.P, self.groups * self.N
        if hasattr(mixer, "in_proj_qkvz"):
            # A group's rows are N of q, N of k, then of its heads all of v and all of z; of b and a likewise.
            R, qkvz = self.H // self.groups, mixer.in_proj_qkvz.weight
            each = (
                torch.arange(len(qkvz))
                .unflatten(0, (self.groups, -1))
                .split([self.N, self.N, R * self.P, R * self.P], 1)
            )
            self.q, self.k, self.v, self.z = (Linear(qkvz[rows.flatten()]) for rows in each)
            ba = torch.arange(2 * self.H).unflatten(0, (self.groups, 2, R))
            self.b, self.a = (Linear(mixer.in_proj_ba.weight[ba[:, which].flatten()]) for which in (0, 1))
        elif hasattr(mixer, "in_proj_qkv"):
            whole = mixer.in_proj_qkv.weight
            self.q, self.k, self.v = (Linear(rows) for rows in whole.split([GN, GN, HP]))
            self.z, self.b, self.a = (Linear(getattr(mixer, f"in_proj_{letter}").weight) for letter in "zba")
        else:
            self.q, self.k, self.v, self.b = (_of(mixer, name, f"{letter}_proj") for letter in "qkvb")
            gate = getattr(mixer, "forget_gate", None)
            if hasattr(gate, "f_proj"):
                self.a, self.z = Linear(gate.f_proj.weight), _of(mixer, name, "g_proj")
            elif gate is not None:
                self.a = TwoLinear(Linear(gate.f_a_proj.weight), Linear(gate.f_b_proj.weight))
                self.z = TwoLinear(_of(mixer, name, "g_a_proj"), _of(mixer, name, "g_b_proj"))
            else:
                self.a, self.z = _of(mixer, name, "a_proj"), _of(mixer, name, "g_proj")

    def forward(self, x: Tensor) -> Tensor:
        HP, GN = self.H * self.P, self.groups * self.N
        qkv = torch.cat([part.forward(x) for part in (self.q, self.k, self.v)], -1)
        q, k, v = self.conv.forward(qkv).split([GN, GN, HP], -1)
        q, k = (part.unflatten(-1, (self.groups, self.N)) for part in (q, k))
        q, k = q / _root(q) / self.N**0.5, k / _root(k)
        beta = torch.sigmoid(self.b.forward(x)) * (2 if self.twice else 1)
        a = (self.a.forward(x) + self.dt_bias).unflatten(-1, (self.H, -1))
        if self.lowest is None:
            decay = torch.exp(-self.rate[:, None] * F.softplus(a))  # (L, H, N or 1)
        else:
            decay = torch.exp(self.lowest * torch.sigmoid(self.rate[:, None] * a))
        self.scans = []
        for h in range(self.H):
            g = h // (self.H // self.groups)
            self.scans.append(DeltaRule(q[:, g], k[:, g], decay[:, h], beta[:, h]))
        heads = zip(self.scans, v.split(self.P, -1), strict=True)
        self.o = torch.stack([scan.forward(part) for scan, part in heads], 1)  # (L, H, P)
        self.normed = self.head_norm.forward(self.o).flatten(1)
        z = self.z.forward(x)
        self.opened = torch.sigmoid(z)
        opened = self.opened if self.sigmoid else z * self.opened
        self.scale = (self.head_norm.weight * self.head_norm.r).flatten(1) * opened  # of o, before `out`
        self.gate = Gate()
        return self.out.forward(self.normed * self.opened if self.sigmoid else self.gate.forward(self.normed, z))

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        G_p = self.out.backward(G, absorbed)
        G_normed, G_z = (G_p * self.opened, None) if self.sigmoid else self.gate.backward(G_p)
        G_o = self.head_norm.backward(G_normed.unflatten(-1, (self.H, self.P)))
        G_v = torch.cat([scan.backward(G_o[:, h]) for h, scan in enumerate(self.scans)], -1)
        nothing = torch.zeros(len(G), 2 * self.groups * self.N, dtype=F64)  # to q and k
        G_v = self.conv.backward(torch.cat([nothing, G_v], -1), absorbed)[:, nothing.shape[1] :]
        G_x = self.v.backward(G_v, absorbed)
        return G_x if G_z is None else G_x + self.z.backward(G_z, absorbed)


def _of(mixer: Any, name: str, *names: str) -> Linear:
    """The linear layer under the first of these names."""
    found = next(one for one in names if hasattr(mixer, one))
    return Linear.of(getattr(mixer, found), f"{name}.{found}")


class ShortConv:
    """y = W_out (C conv(B x) + b_out), biases with each linear layer and the convolution."""

    def __init__(self, module: Any, name: str):
        rows = [slice(n * module.conv.weight.shape[0], (n + 1) * module.conv.weight.shape[0]) for n in range(3)]
        self.B_in, self.C_in, self.x_in = (Linear.of(module.in_proj, f"{name}.in_proj", part) for part in rows)
        self.out = Linear.of(module.out_proj, f"{name}.out_proj")
        self.taps = module.conv.weight.detach().to(F64)[:, 0]
        self.bias = None if module.conv.bias is None else module.conv.bias.detach().to(F64)
        self.name = f"{name}.conv.bias"

    def forward(self, h: Tensor) -> Tensor:
        self.B, self.C, self.x = (part.forward(h) for part in (self.B_in, self.C_in, self.x_in))
        K, p = self.taps.shape[1], self.B * self.x
        self.c = torch.zeros_like(p) if self.bias is None else self.bias.repeat(len(p), 1)
        for t in range(len(p)):
            for k in range(max(0, K - 1 - t), K):
                self.c[t] += self.taps[:, k] * p[t - (K - 1) + k]
        return self.out.forward(self.C * self.c)

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        K, G_y = self.taps.shape[1], self.out.backward(G, absorbed)
        G_C, G_c = G_y * self.c / 2, G_y * self.C / 2
        if self.bias is not None:
            absorbed.bias(self.name, self.bias, G_c)
        G_p = torch.zeros_like(G_c)
        for t in range(len(G_c)):
            for k in range(max(0, K - 1 - t), K):
                G_p[t - (K - 1) + k] += self.taps[:, k] * G_c[t]
        G_B, G_x = G_p * self.x / 2, G_p * self.B / 2
        return self.B_in.backward(G_B, absorbed) + self.C_in.backward(G_C, absorbed) + self.x_in.backward(G_x, absorbed)

    def alpha(self) -> Tensor:
        """The taps on their diagonals. Shape: (E, L, L)."""
        length, K = len(self.x), self.taps.shape[1]
        alpha = torch.zeros(len(self.taps), length, length, dtype=F64)
        for i in range(length):
            for j in range(max(0, i - K + 1), i + 1):
                alpha[:, i, j] = self.taps[:, K - 1 - (i - j)]
        return alpha
