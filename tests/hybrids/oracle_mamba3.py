"""The oracle's Mamba-3 mixer, its recurrence and adjoint as loops over tokens, with the rules of MambaLRP.

One row without padding; G is the modified gradient. Of every head, from rows of W_in x:

    dt = softplus(. + dt_bias);  A = -max(softplus(.), floor);  l = sigmoid(.);  a = exp(A dt)
    theta_t = theta_{t-1} + pi tanh(angle_t) dt_t;  k, q = norm(.) + bias, neighbours turned by theta_t
    S_t = a_t S_{t-1} + (1 - l_t) dt_t a_t x_{t-1} k_{t-1}^T + l_t dt_t x_t k_t^T;  y_t = S_t q_t + D x_t
    out = W_out (norm(y) silu(z)), with a norm of every head or without

All but x and z is constant; the norm's factor is too; the product gives half to each factor.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from oracle_parts import F64, Absorbed, Linear
from oracle_ssm import Gate
from torch import Tensor


def _normed(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The normed rows and the factor that made them."""
    factor = weight / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5)
    return x * factor, factor


class Trapezoid:
    """S, y of one head: all but x (L, P) constant; q and k (L, N), a, l and dt (L,)."""

    def __init__(self, q: Tensor, k: Tensor, a: Tensor, trap: Tensor, dt: Tensor, D: Tensor):
        self.q, self.k, self.a, self.l, self.dt, self.D = q, k, a, trap, dt, D

    def forward(self, x: Tensor) -> Tensor:
        S, y = torch.zeros(x.shape[1], self.k.shape[1], dtype=F64), []
        for t in range(len(x)):
            S = self.a[t] * S + self.l[t] * self.dt[t] * x[t][:, None] * self.k[t]
            if t:
                S = S + (1 - self.l[t]) * self.dt[t] * self.a[t] * x[t - 1][:, None] * self.k[t - 1]
            y.append(S @ self.q[t] + self.D * x[t])
        return torch.stack(y)

    def backward(self, G: Tensor) -> Tensor:
        """L = G of S_t = G_t q_t^T + a_{t+1} L_{t+1};  S_t reads x_t and x_{t-1}."""
        L, G_x = torch.zeros(G.shape[1], self.k.shape[1], dtype=F64), self.D * G
        for t in reversed(range(len(G))):
            if t + 1 < len(G):
                L = self.a[t + 1] * L
            L = L + G[t][:, None] * self.q[t]
            G_x[t] += self.l[t] * self.dt[t] * (L @ self.k[t])
            if t:
                G_x[t - 1] += (1 - self.l[t]) * self.dt[t] * self.a[t] * (L @ self.k[t - 1])
        return G_x

    def alpha(self) -> Tensor:
        """alpha_ij is y_i of a 1 at position j, without the skip. Shape: (L, L)."""
        D, self.D = self.D, torch.zeros((), dtype=F64)
        columns = [self.forward(one[:, None])[:, 0] for one in torch.eye(len(self.q), dtype=F64)]
        self.D = D
        return torch.stack(columns, 1)


class Mamba3:
    """A Mamba-3 mixer, read off a module with mamba_ssm's names."""

    def __init__(self, mixer: Any, name: str):
        self.H, _, self.N = mixer.B_bias.shape
        self.P, self.R = mixer.headdim, mixer.num_rope_angles
        E, GN = self.H * self.P, mixer.num_bc_heads * self.N
        sizes = [E, E, GN, GN, self.H, self.H, self.H, self.R]
        rows = mixer.in_proj.weight.split(sizes)
        self.z_in, self.x_in, *self.selecting = (Linear(part) for part in rows)
        self.out = Linear.of(mixer.out_proj, f"{name}.out_proj")
        names = ("B_norm.weight", "C_norm.weight", "B_bias", "C_bias", "dt_bias", "D")
        self.values = {n: mixer.get_parameter(n).detach().to(F64) for n in names}
        self.floor = mixer.A_floor
        norm = getattr(mixer, "norm", None)
        self.norm = None if norm is None else norm.weight.detach().to(F64).unflatten(0, (self.H, self.P))

    def forward(self, u: Tensor) -> Tensor:
        B, C, dt, A, trap, angle = (part.forward(u) for part in self.selecting)
        dt, trap = F.softplus(dt + self.values["dt_bias"]), torch.sigmoid(trap)
        a = torch.exp(-F.softplus(A).clamp(min=self.floor) * dt)
        k, q = (self._of_heads(part, letter) for part, letter in ((B, "B"), (C, "C")))  # (L, H, N)
        theta = torch.zeros(self.H, self.R, dtype=F64)
        for t in range(len(u)):
            theta = theta + math.pi * torch.tanh(angle[t]) * dt[t][:, None]
            for h in range(self.H):
                k[t, h], q[t, h] = self._turned(k[t, h], theta[h]), self._turned(q[t, h], theta[h])
        D = self.values["D"]
        self.scans = [Trapezoid(q[:, h], k[:, h], a[:, h], trap[:, h], dt[:, h], D[h]) for h in range(self.H)]
        x = self.x_in.forward(u).split(self.P, -1)
        y = torch.stack([scan.forward(part) for scan, part in zip(self.scans, x, strict=True)], 1)
        self.factor = torch.ones_like(y)
        if self.norm is not None:
            y, self.factor = _normed(y, self.norm)
        self.gate = Gate()
        z = self.z_in.forward(u)
        self.scale = self.factor.flatten(1) * z * torch.sigmoid(z)  # of y, before `out`
        return self.out.forward(self.gate.forward(y.flatten(1), z))

    def _of_heads(self, x: Tensor, letter: str) -> Tensor:
        groups = x.unflatten(-1, (-1, self.N))
        normed, _ = _normed(groups, self.values[f"{letter}_norm.weight"])
        each = self.H // groups.shape[1]
        return torch.stack([normed[:, h // each] + self.values[f"{letter}_bias"][h, 0] for h in range(self.H)], 1)

    def _turned(self, x: Tensor, theta: Tensor) -> Tensor:
        y = x.clone()
        for n, angle in enumerate(theta.tolist()):
            (a, b), cos, sin = x[2 * n : 2 * n + 2], math.cos(angle), math.sin(angle)
            y[2 * n], y[2 * n + 1] = a * cos - b * sin, a * sin + b * cos
        return y

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        G_y, G_z = self.gate.backward(self.out.backward(G, absorbed))
        heads = zip(self.scans, (G_y.unflatten(-1, (self.H, self.P)) * self.factor).unbind(1), strict=True)
        G_x = torch.cat([scan.backward(part) for scan, part in heads], -1)
        return self.x_in.backward(G_x, absorbed) + self.z_in.backward(G_z, absorbed)
