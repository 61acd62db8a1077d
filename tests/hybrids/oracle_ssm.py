"""The oracle's state-space mixers, recurrence and adjoint as loops over tokens, with MambaLRP's rules.

dt, A, B and C are constant, SiLU is x * const, a gate y silu(z) gives half of its relevance to each factor, norms are
constant factors; convolution and D are linear. One row without padding; G is the modified gradient.

Mamba-2 (H heads of P channels, E = H P, G groups of B and C of N states):

    z, x, B, C, dt = split(mup * (W_in (m x_in) + b_in));  x, B, C = silu(conv(.) + b_conv)
    dt = clamp(softplus(dt + dt_bias));  s_t = exp(dt_t A) s_{t-1} + dt_t x_t B_t^T;  y_t = s_t C_t + D x_t
    o = Norm(y silu(z))  or  Norm(y) silu(z)  or  y silu(z);  out = W_out o + b_out

Mamba-1 in heads of P channels, each with its own x_proj and dt_proj (one head: the usual Mamba-1):

    x, z = W_in x_in + b_in;  x = silu(conv(x) + b_conv);  dt, B, C = x_proj x, each normalised where there is a norm
    dt = softplus(W_dt dt + b_dt);  s_t = exp(dt_t A) s_{t-1} + dt_t x_t B_t^T, s_t (P, N);  y_t = s_t C_t + D x_t
    out = W_out (y silu(z)) + b_out
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from oracle_parts import F64, Absorbed, Linear, Norm
from torch import Tensor


def _silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


class Conv:
    """The causal depthwise convolution c_t = sum_k w_k x_{t - (K-1) + k} + b and its SiLU."""

    def __init__(self, module: Any, name: str):
        self.taps = module.weight.detach().to(F64)[:, 0, :]  # (channels, K)
        self.bias = None if module.bias is None else module.bias.detach().to(F64)
        self.name = f"{name}.bias"

    def forward(self, x: Tensor) -> Tensor:
        L, K = len(x), self.taps.shape[1]
        self.c = torch.zeros_like(x) if self.bias is None else self.bias.repeat(L, 1)
        for k in range(max(0, K - L), K):
            delay = K - 1 - k
            self.c[delay:] += self.taps[:, k] * x[: L - delay]
        return _silu(self.c)

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        L, K = len(G), self.taps.shape[1]
        G_c = G * torch.sigmoid(self.c)
        if self.bias is not None:
            absorbed.bias(self.name, self.bias, G_c)
        G_x = torch.zeros_like(G)
        for k in range(max(0, K - L), K):
            delay = K - 1 - k
            G_x[: L - delay] += self.taps[:, k] * G_c[delay:]
        return G_x


class Recurrence:
    """s_t = decay_t s_{t-1} + dt_t x_t B_t^T and y_t = s_t C_t + D x_t for P channels.

    A (P, N), D (P,), dt (L, P), B and C (L, N), x (L, P); all but x are constant.
    """

    def __init__(self, A: Tensor, D: Tensor, dt: Tensor, B: Tensor, C: Tensor):
        self.A, self.D, self.dt, self.B, self.C = A, D, dt, B, C

    def forward(self, x: Tensor) -> Tensor:
        self.decay, states = torch.exp(self.dt[..., None] * self.A), (self.dt * x)[..., None] * self.B[:, None, :]
        for t in range(1, len(x)):
            states[t] += self.decay[t] * states[t - 1]
        return (states * self.C[:, None, :]).sum(-1) + self.D * x

    def backward(self, G: Tensor) -> Tensor:
        """q_t = G of s_t = G_t C_t^T + decay_{t+1} q_{t+1};  G of x_t = dt_t q_t B_t + D G_t."""
        q = G[..., None] * self.C[:, None, :]
        for t in reversed(range(len(G) - 1)):
            q[t] += self.decay[t + 1] * q[t + 1]
        return self.dt * (q * self.B[:, None, :]).sum(-1) + self.D * G


class Gate:
    """o = y silu(z) with a norm after it, before it (on y) or none."""

    def __init__(self, norm: Norm | None = None, norm_first: bool = False):
        self.before = norm if norm_first else None
        self.after = None if norm_first else norm

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        self.y, self.z = y if self.before is None else self.before.forward(y), z
        product = self.y * _silu(z)
        return product if self.after is None else self.after.forward(product)

    def backward(self, G: Tensor) -> tuple[Tensor, Tensor]:
        """G of y and of z."""
        G_product = G if self.after is None else self.after.backward(G)
        G_y = G_product * _silu(self.z) / 2
        G_z = G_product * self.y / 2 * torch.sigmoid(self.z)
        return G_y if self.before is None else self.before.backward(G_y), G_z


class Mamba2:
    """A Mamba-2 mixer, read off a module of Bamba, Granite, Falcon-H1, Nemotron-H or Zamba2."""

    def __init__(
        self,
        mixer: Any,
        name: str,
        *,
        norm_first: bool = False,
        in_multiplier: float = 1.0,
        multipliers: Sequence[float] = (1.0, 1.0, 1.0, 1.0, 1.0),
    ):
        """`multipliers` scale the projections z, x, B, C and dt."""
        self.H, self.P, self.G, self.N = mixer.num_heads, mixer.head_dim, mixer.n_groups, mixer.ssm_state_size
        self.E, GN = self.H * self.P, self.G * self.N
        self.in_proj = Linear.of(mixer.in_proj, f"{name}.in_proj")
        self.conv = Conv(mixer.conv1d, f"{name}.conv1d")
        self.dt_bias, self.D = mixer.dt_bias.detach().to(F64), mixer.D.detach().to(F64)
        self.A = -torch.exp(mixer.A_log.detach().to(F64))
        self.limit = mixer.time_step_limit or (mixer.time_step_min, math.inf)  # None: Zamba2 of transformers 4
        self.gate = Gate(_gated_norm(mixer), norm_first)
        self.out_proj = Linear.of(mixer.out_proj, f"{name}.out_proj")
        self.in_multiplier = in_multiplier
        self.sizes = [self.E, self.E, GN, GN, self.H]
        self.mup = torch.cat([torch.full((n,), m, dtype=F64) for n, m in zip(self.sizes, multipliers, strict=True)])

    def forward(self, x_in: Tensor) -> Tensor:
        L = len(x_in)
        z, x, B, C, dt = (self.mup * self.in_proj.forward(self.in_multiplier * x_in)).split(self.sizes, dim=-1)
        x, B, C = self.conv.forward(torch.cat([x, B, C], dim=-1)).split(self.sizes[1:4], dim=-1)
        dt = F.softplus(dt + self.dt_bias).clamp(*self.limit)
        B, C = (value.reshape(L, self.G, self.N) for value in (B, C))
        self.scans = []
        for h in range(self.H):
            g = h // (self.H // self.G)
            A, D = self.A[h].expand(self.P, self.N), self.D[h].expand(self.P)
            self.scans.append(Recurrence(A, D, dt[:, h, None].expand(L, self.P), B[:, g], C[:, g]))
        y = torch.cat([scan.forward(part) for scan, part in zip(self.scans, x.split(self.P, dim=-1), strict=True)], -1)
        return self.out_proj.forward(self.gate.forward(y, z))

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        G_y, G_z = self.gate.backward(self.out_proj.backward(G, absorbed))
        parts = zip(self.scans, G_y.split(self.P, dim=-1), strict=True)
        G_x = torch.cat([scan.backward(part) for scan, part in parts], -1)
        nothing = torch.zeros(len(G), 2 * self.G * self.N, dtype=F64)  # to B and C
        G_conv = self.conv.backward(torch.cat([G_x, nothing], -1), absorbed)
        G_projected = torch.cat([G_z, G_conv, torch.zeros(len(G), self.H, dtype=F64)], -1)
        return self.in_multiplier * self.in_proj.backward(self.mup * G_projected, absorbed)


def _gated_norm(mixer: Any) -> Norm | None:
    """None where there is no norm or it is the identity; releases without groups normalise over the whole width."""
    norm = getattr(mixer, "norm", None)
    if not hasattr(norm, "weight"):
        return None
    width = len(norm.weight)
    return Norm(norm, getattr(norm, "n_groups", width // getattr(norm, "group_size", width)))


class Mamba1:
    """A Mamba-1 mixer, read off a module of Jamba (one head, norms on dt, B and C) or Zamba (heads, no such norms).

    Jamba's in_proj has the rows of x, then those of z; Zamba's alternate.
    """

    def __init__(self, mixer: Any, name: str):
        E = mixer.intermediate_size
        if hasattr(mixer, "n_mamba_heads"):
            x_rows, z_rows = slice(0, None, 2), slice(1, None, 2)
            tensors = (mixer.x_proj_weight, mixer.dt_proj_weight, mixer.dt_proj_bias, mixer.A_log, mixer.D)
            self.norms: tuple[Norm, Norm, Norm] | None = None
        else:
            x_rows, z_rows = slice(0, E), slice(E, None)
            one_head = (mixer.x_proj.weight, mixer.dt_proj.weight, mixer.dt_proj.bias, mixer.A_log, mixer.D)
            tensors = tuple(tensor[None] for tensor in one_head)
            self.norms = (Norm(mixer.dt_layernorm), Norm(mixer.b_layernorm), Norm(mixer.c_layernorm))
        self.x_proj, self.dt_proj, self.dt_bias, A_log, self.D = (tensor.detach().to(F64) for tensor in tensors)
        self.A = -torch.exp(A_log)  # (heads, P, N)
        self.x_in = Linear.of(mixer.in_proj, f"{name}.in_proj", x_rows)
        self.z_in = Linear.of(mixer.in_proj, f"{name}.in_proj", z_rows)
        self.conv = Conv(mixer.conv1d, f"{name}.conv1d")
        self.gate = Gate()
        self.out_proj = Linear.of(mixer.out_proj, f"{name}.out_proj")

    def forward(self, x_in: Tensor) -> Tensor:
        P, N = self.A.shape[1:]
        R = self.dt_proj.shape[-1]
        x = self.conv.forward(self.x_in.forward(x_in))
        self.scans, y = [], []
        for h, part in enumerate(x.split(P, dim=-1)):
            signals = (part @ self.x_proj[h].T).split([R, N, N], dim=-1)
            if self.norms is not None:
                signals = tuple(norm.forward(signal) for norm, signal in zip(self.norms, signals, strict=True))
            dt, B, C = signals
            dt = F.softplus(dt @ self.dt_proj[h].T + self.dt_bias[h])
            self.scans.append(Recurrence(self.A[h], self.D[h], dt, B, C))
            y.append(self.scans[-1].forward(part))
        return self.out_proj.forward(self.gate.forward(torch.cat(y, -1), self.z_in.forward(x_in)))

    def backward(self, G: Tensor, absorbed: Absorbed) -> Tensor:
        G_y, G_z = self.gate.backward(self.out_proj.backward(G, absorbed))
        parts = zip(self.scans, G_y.split(self.A.shape[1], dim=-1), strict=True)
        G_x = torch.cat([scan.backward(part) for scan, part in parts], -1)
        return self.x_in.backward(self.conv.backward(G_x, absorbed), absorbed) + self.z_in.backward(G_z, absorbed)
