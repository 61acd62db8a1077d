"""The oracle's linear recurrences: lightning attention, and the gated linear recurrence of Griffin.

One row without padding; G is the modified gradient.

Lightning attention, of every head:

    [q, k, v] = silu(W x);   S_t = exp(-s) S_{t-1} + v_t k_t^T;   o_t = S_t q_t;   y = W_out (sigmoid(W_g x) norm(o))

q, k, s and sigmoid(.) are constant, silu has the identity rule: G_v_j = sum_{i >= j} exp(-s (i - j)) (q_i . k_j) G_o_i.

Griffin's recurrent block:

    c = conv(W_x' x + b);  r, i = sigmoid(W_r c + b_r), sigmoid(W_i c + b_i) of every block of channels
    a_t = exp(-8 softplus(Lambda) r_t);  h_t = a_t h_{t-1} + m_t i_t c_t, m_t = sqrt(1 - a_t^2), m_0 = 1
    y = W_out (h gelu(W_y x + b_y)) + b_out

a, m and i are constant, the product gives half to each factor, gelu has the identity rule.
"""

from __future__ import annotations

from typing import Any

import torch
from oracle_parts import F64, SLOPE, Absorbed, Linear, Norm
from torch import Tensor


class DecayingSum:
    """S <- exp(-s) S + v k^T, o = S q, of one head: all but v (L, P) constant; q and k (L, N)."""

    def __init__(self, q: Tensor, k: Tensor, slope: float):
        self.q, self.k, self.decay = q, k, torch.exp(torch.tensor(-slope, dtype=F64))

    def forward(self, v: Tensor) -> Tensor:
        S, o = torch.zeros(v.shape[1], self.k.shape[1], dtype=F64), []
        for t in range(len(v)):
            S = self.decay * S + v[t][:, None] * self.k[t]
            o.append(S @ self.q[t])
        return torch.stack(o)

    def backward(self, G: Tensor) -> Tensor:
        """As a matrix, which the forward is not."""
        return self.alpha().T @ G

    def alpha(self) -> Tensor:
        """alpha_ij = exp(-s (i - j)) q_i . k_j. Shape: (L, L)."""
        alpha = torch.zeros(len(self.q), len(self.q), dtype=F64)
        for i in range(len(self.q)):
            for j in range(i + 1):
                alpha[i, j] = self.decay ** (i - j) * (self.q[i] @ self.k[j])
        return alpha


class Lightning:
    """Lightning attention, read off a module of MiniMax: of every head the rows of q, then those of k, then of v."""

    def __init__(self, mixer: Any, name: str):
        P = self.P = mixer.head_dim
        rows = torch.arange(len(mixer.qkv_proj.weight)).unflatten(0, (-1, 3, P))
        of = (Linear.of(mixer.qkv_proj, f"{name}.qkv_proj", rows[:, which].flatten()) for which in range(3))
        self.q_in, self.k_in, self.v_in = of
        self.gate = Linear.of(mixer.output_gate, f"{name}.output_gate")
        self.norm, self.out = Norm(mixer.norm), Linear.of(mixer.out_proj, f"{name}.out_proj")
        self.slopes = mixer.slope_rate.to(F64).flatten().tolist()

    def forward(self, x: Tensor) -> Tensor:
        H, P = len(self.slopes), self.P
        q, k = (part.forward(x) for part in (self.q_in, self.k_in))
        q, k = ((part * torch.sigmoid(part)).unflatten(-1, (H, P)) for part in (q, k))
        self.c = self.v_in.forward(x)
        v = self.c * torch.sigmoid(self.c)
        self.scans = [DecayingSum(q[:, h], k[:, h], slope) for h, slope in enumerate(self.slopes)]
        o = torch.cat([scan.forward(part) for scan, part in zip(self.scans, v.split(P, -1), strict=True)], -1)
        self.opened = torch.sigmoid(self.gate.forward(x))
        normed = self.norm.forward(o)
        self.scale = self.norm.weight * self.norm.r * self.opened  # of o, before `out`
        return self.out.forward(normed * self.opened)

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        G_o = self.norm.backward(self.out.backward(G, absorbed) * self.opened)
        heads = zip(self.scans, G_o.split(self.P, -1), strict=True)
        G_v = torch.cat([scan.backward(part) for scan, part in heads], -1)
        return self.v_in.backward(G_v * torch.sigmoid(self.c), absorbed)


class RGLRU:
    """Griffin's recurrent block, read off a module of RecurrentGemma."""

    def __init__(self, mixer: Any, name: str, activation: str):
        self.x_in, self.y_in, self.out = (
            Linear.of(getattr(mixer, f"linear_{which}"), f"{name}.linear_{which}") for which in ("x", "y", "out")
        )
        self.slope = SLOPE[activation]
        self.taps, self.bias = mixer.conv_1d.weight.detach().to(F64)[:, 0], mixer.conv_1d.bias.detach().to(F64)
        self.bias_name = f"{name}.conv_1d.bias"
        unit = mixer.rg_lru
        self.gates = [
            [getattr(unit, f"{which}_gate_{what}").detach().to(F64) for what in ("weight", "bias")]
            for which in ("recurrent", "input")
        ]
        self.rate = 8 * torch.log1p(torch.exp(unit.recurrent_param.detach().to(F64)))

    def forward(self, x: Tensor) -> Tensor:
        content, K = self.x_in.forward(x), self.taps.shape[1]
        self.c = self.bias.repeat(len(x), 1)
        for t in range(len(x)):
            for k in range(max(0, K - 1 - t), K):
                self.c[t] += self.taps[:, k] * content[t - (K - 1) + k]
        r, i = (self._gate(*gate) for gate in self.gates)
        self.a = torch.exp(-self.rate * r)
        self.m = torch.sqrt(1 - self.a**2) * i
        self.m[0] = i[0]
        h = torch.zeros_like(self.c)
        for t in range(len(x)):
            h[t] = self.m[t] * self.c[t] + (self.a[t] * h[t - 1] if t else 0)
        self.h, self.z = h, self.y_in.forward(x)
        self.scale = self.z * self.slope(self.z)
        return self.out.forward(h * self.scale)

    def _gate(self, weight: Tensor, bias: Tensor) -> Tensor:
        """A block of channels at a time."""
        blocks = zip(self.c.split(weight.shape[1], -1), weight, bias, strict=True)
        return torch.sigmoid(torch.cat([part @ W + b for part, W, b in blocks], -1))

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        G_p, K = self.out.backward(G, absorbed), self.taps.shape[1]
        G_h, G_z = G_p * self.scale / 2, G_p * self.h * self.slope(self.z) / 2
        g, G_c, G_content = torch.zeros_like(G_h[0]), torch.zeros_like(G_h), torch.zeros_like(G_h)
        for t in reversed(range(len(G))):
            g = G_h[t] + (self.a[t + 1] * g if t + 1 < len(G) else 0)
            G_c[t] = self.m[t] * g
        absorbed.bias(self.bias_name, self.bias, G_c)
        for t in range(len(G)):
            for k in range(max(0, K - 1 - t), K):
                G_content[t - (K - 1) + k] += self.taps[:, k] * G_c[t]
        return self.x_in.backward(G_content, absorbed) + self.y_in.backward(G_z, absorbed)

    def alpha(self) -> Tensor:
        """alpha_ij = a_{j+1} ... a_i m_j of every channel. Shape: (E, L, L)."""
        length, E = self.c.shape
        alpha = torch.zeros(E, length, length, dtype=F64)
        for j in range(length):
            value = self.m[j]
            for i in range(j, length):
                value = value if i == j else value * self.a[i]
                alpha[:, i, j] = value
        return alpha
