"""A stand-in for the package mamba_ssm, which needs CUDA: its classes with its parameters' names and its way to save,
and a slow forward. Written from mamba_ssm 2.3 (`models/mixer_seq_simple.py`, `modules/mamba_simple.py`,
`modules/mamba2.py`, `modules/mamba3.py`, `selective_scan_ref`, `rms_norm_ref`); nothing of transformers or of
this package is in it.

Glossary: B rows, L tokens, D hidden, E inner channels, N state, R dt rank, H heads, P channels of a head, G groups.
"""

import json
import math
from collections import namedtuple
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

Output = namedtuple("CausalLMOutput", ["logits"])


@dataclass
class MambaConfig:
    d_model: int = 8
    d_intermediate: int = 0
    n_layer: int = 2
    vocab_size: int = 19
    ssm_cfg: dict = field(default_factory=dict)
    attn_layer_idx: list = field(default_factory=list)
    attn_cfg: dict = field(default_factory=dict)
    rms_norm: bool = True
    residual_in_fp32: bool = True
    fused_add_norm: bool = True
    pad_vocab_size_multiple: int = 8
    tie_embeddings: bool = True


class RMSNorm(nn.Module):
    """Of groups of ``width / groups`` channels, each by itself, after the gate."""

    def __init__(self, width, groups=1, dtype=None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, dtype=dtype).uniform_(0.5, 1.5))
        self.groups, self.eps = groups, 1e-5

    def forward(self, x, z=None):
        x = x if z is None else x * F.silu(z)
        grouped = x.unflatten(-1, (self.groups, -1))
        return (grouped / (grouped.square().mean(-1, keepdim=True) + 1e-5).sqrt()).flatten(-2) * self.weight


def convolved(conv1d, x):
    """Causal and depthwise, then SiLU. (B, L, C) -> (B, L, C)."""
    return F.silu(conv1d(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))


class Mamba(nn.Module):
    def __init__(self, d_model, d_state=16, d_conv=4, expand=2, dt_rank="auto", conv_bias=True, bias=False, dtype=None):
        super().__init__()
        E, self.N = int(expand * d_model), d_state
        self.R = math.ceil(d_model / 16) if dt_rank == "auto" else dt_rank
        self.in_proj = nn.Linear(d_model, 2 * E, bias=bias, dtype=dtype)
        self.conv1d = nn.Conv1d(E, E, d_conv, groups=E, padding=d_conv - 1, bias=conv_bias, dtype=dtype)
        self.x_proj = nn.Linear(E, self.R + 2 * d_state, bias=False, dtype=dtype)
        self.dt_proj = nn.Linear(self.R, E, dtype=dtype)
        self.A_log = nn.Parameter(torch.empty(E, d_state).uniform_(-1, 1))  # float32 whatever the dtype, like D
        self.D = nn.Parameter(torch.empty(E).uniform_(0.5, 1.5))
        self.out_proj = nn.Linear(E, d_model, bias=bias, dtype=dtype)

    def forward(self, hidden):
        x, z = self.in_proj(hidden).chunk(2, -1)
        x = convolved(self.conv1d, x)
        dt, B, C = self.x_proj(x).split([self.R, self.N, self.N], -1)
        dt, A = F.softplus(self.dt_proj(dt)), -torch.exp(self.A_log)
        state, y = x.new_zeros(*x[:, 0].shape, self.N), []
        for t in range(x.shape[1]):
            state = torch.exp(dt[:, t, :, None] * A) * state + (dt * x)[:, t, :, None] * B[:, t, None]
            y.append((state * C[:, t, None]).sum(-1))
        return self.out_proj((torch.stack(y, 1) + self.D * x) * F.silu(z))


class Mamba2(nn.Module):
    def __init__(
        self,
        d_model,
        d_state=128,
        d_conv=4,
        expand=2,
        headdim=64,
        ngroups=1,
        dt_limit=(0.0, float("inf")),
        bias=False,
        conv_bias=True,
        chunk_size=256,
        dtype=None,
    ):
        super().__init__()
        self.E, self.N, self.G, self.dt_limit = expand * d_model, d_state, ngroups, dt_limit
        self.H, width = self.E // headdim, self.E + 2 * ngroups * d_state
        self.in_proj = nn.Linear(d_model, self.E + width + self.H, bias=bias, dtype=dtype)
        self.conv1d = nn.Conv1d(width, width, d_conv, groups=width, padding=d_conv - 1, bias=conv_bias, dtype=dtype)
        self.dt_bias = nn.Parameter(torch.empty(self.H, dtype=dtype).uniform_(-2, 1))
        self.A_log = nn.Parameter(torch.empty(self.H, dtype=dtype).uniform_(-1, 1))
        self.D = nn.Parameter(torch.empty(self.H).uniform_(0.5, 1.5))  # float32 whatever the dtype
        self.norm = RMSNorm(self.E, ngroups, dtype=dtype)
        self.out_proj = nn.Linear(self.E, d_model, bias=bias, dtype=dtype)

    def forward(self, hidden):
        z, xBC, dt = self.in_proj(hidden).split([self.E, self.E + 2 * self.G * self.N, self.H], -1)
        x, B, C = convolved(self.conv1d, xBC).split([self.E, self.G * self.N, self.G * self.N], -1)
        x = x.unflatten(-1, (self.H, -1))  # (B, L, H, P)
        B, C = (v.unflatten(-1, (self.G, -1)).repeat_interleave(self.H // self.G, 2) for v in (B, C))  # (B, L, H, N)
        dt, A = F.softplus(dt + self.dt_bias).clamp(*self.dt_limit), -torch.exp(self.A_log)
        state, y = x.new_zeros(*x[:, 0].shape, self.N), []
        for t in range(x.shape[1]):
            step = dt[:, t, :, None, None]
            state = torch.exp(step * A[:, None, None]) * state + step * x[:, t, :, :, None] * B[:, t, :, None]
            y.append((state * C[:, t, :, None]).sum(-1))
        y = torch.stack(y, 1) + self.D[:, None] * x
        return self.out_proj(self.norm(y.flatten(-2), z))


class Mamba3(nn.Module):
    """With one input and output; mamba_ssm's own LM class has no such layer. Its ``step`` is what this computes."""

    def __init__(
        self, d_model, d_state=128, expand=2, headdim=64, ngroups=1, rope_fraction=0.5, A_floor=1e-4,
        is_outproj_norm=False, dtype=None,
    ):  # fmt: skip
        super().__init__()
        self.E, self.N, self.headdim, self.num_bc_heads = expand * d_model, d_state, headdim, ngroups
        self.H, self.A_floor, self.num_rope_angles = self.E // headdim, A_floor, int(d_state * rope_fraction) // 2
        width = 2 * self.E + 2 * d_state * ngroups + 3 * self.H + self.num_rope_angles
        self.in_proj = nn.Linear(d_model, width, bias=False, dtype=dtype)
        self.dt_bias = nn.Parameter(torch.empty(self.H).uniform_(-2, 1))
        self.B_bias = nn.Parameter(torch.empty(self.H, 1, d_state).uniform_(0.5, 1.5))
        self.C_bias = nn.Parameter(torch.empty(self.H, 1, d_state).uniform_(0.5, 1.5))
        self.B_norm, self.C_norm = RMSNorm(d_state, dtype=dtype), RMSNorm(d_state, dtype=dtype)
        self.D = nn.Parameter(torch.empty(self.H).uniform_(0.5, 1.5))
        if is_outproj_norm:
            self.norm = RMSNorm(self.E, self.H, dtype=dtype)
        self.out_proj = nn.Linear(self.E, d_model, bias=False, dtype=dtype)

    def forward(self, hidden):
        sizes = [self.E, self.E, *[self.N * self.num_bc_heads] * 2, *[self.H] * 3, self.num_rope_angles]
        z, x, B, C, dt, A, trap, angles = self.in_proj(hidden).split(sizes, -1)
        x = x.unflatten(-1, (self.H, -1))  # (B, L, H, P)
        B, C = (norm(v.unflatten(-1, (self.num_bc_heads, -1))) for v, norm in ((B, self.B_norm), (C, self.C_norm)))
        heads = self.H // self.num_bc_heads
        B, C = (v.repeat_interleave(heads, 2) + bias[:, 0] for v, bias in ((B, self.B_bias), (C, self.C_bias)))
        dt, A, trap = F.softplus(dt + self.dt_bias), -F.softplus(A).clamp(min=self.A_floor), torch.sigmoid(trap)
        angle, state = x.new_zeros(len(x), self.H, self.num_rope_angles), x.new_zeros(*x[:, 0].shape, self.N)
        x_before, B_before, y = torch.zeros_like(x[:, 0]), torch.zeros_like(B[:, 0]), []
        for t in range(x.shape[1]):
            angle = angle + torch.tanh(angles[:, t, None]) * dt[:, t, :, None] * math.pi
            B_t, C_t = (self.turned(v[:, t], angle) for v in (B, C))
            alpha = torch.exp(A[:, t] * dt[:, t])
            beta, gamma = (1 - trap[:, t]) * dt[:, t] * alpha, trap[:, t] * dt[:, t]
            state = state * alpha[..., None, None]
            for weight, value, key in ((gamma, x[:, t], B_t), (beta, x_before, B_before)):
                state = state + weight[..., None, None] * value[..., None] * key[:, :, None]
            y.append((state * C_t[:, :, None]).sum(-1) + self.D[:, None] * x[:, t])
            x_before, B_before = x[:, t], B_t
        y = torch.stack(y, 1).flatten(2)
        return self.out_proj((self.norm(y) if hasattr(self, "norm") else y) * F.silu(z))

    def turned(self, x, angle):
        """Neighbours, as many pairs as there are angles."""
        pairs, rest = x.split([2 * self.num_rope_angles, self.N - 2 * self.num_rope_angles], -1)
        first, second = pairs[..., ::2], pairs[..., 1::2]
        both = first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos()
        return torch.cat([torch.stack(both, -1).flatten(-2), rest], -1)


class Block(nn.Module):
    def __init__(self, config, dtype):
        super().__init__()
        settings = dict(config.ssm_cfg)
        mixer = {"Mamba1": Mamba, "Mamba2": Mamba2}[settings.pop("layer", "Mamba1")]
        self.norm = RMSNorm(config.d_model, dtype=dtype)
        self.mixer = mixer(config.d_model, **settings, dtype=dtype)

    def forward(self, hidden):
        return hidden + self.mixer(self.norm(hidden))


class MixerModel(nn.Module):
    def __init__(self, config, rows, dtype):
        super().__init__()
        self.embedding = nn.Embedding(rows, config.d_model, dtype=dtype)
        self.layers = nn.ModuleList([Block(config, dtype) for _ in range(config.n_layer)])
        self.norm_f = RMSNorm(config.d_model, dtype=dtype)

    def forward(self, ids):
        hidden = self.embedding(ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.norm_f(hidden)


class MambaLMHeadModel(nn.Module):
    """The forward is for weights of one dtype; ``.float()`` a model in half precision."""

    def __init__(self, config, dtype=None):
        super().__init__()
        self.config = config
        rows = math.ceil(config.vocab_size / config.pad_vocab_size_multiple) * config.pad_vocab_size_multiple
        self.backbone = MixerModel(config, rows, dtype)
        self.lm_head = nn.Linear(config.d_model, rows, bias=False, dtype=dtype)
        if config.tie_embeddings:
            self.lm_head.weight = self.backbone.embedding.weight

    def forward(self, input_ids):
        return Output(self.lm_head(self.backbone(input_ids)))

    def save_pretrained(self, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        torch.save(self.state_dict(), Path(folder) / "pytorch_model.bin")
        (Path(folder) / "config.json").write_text(json.dumps(self.config.__dict__))


MambaLMHeadModel.__module__ = "mamba_ssm.models.mixer_seq_simple"
