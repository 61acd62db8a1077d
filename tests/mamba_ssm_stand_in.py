"""A stand-in for the package mamba_ssm, which needs CUDA: its classes with its parameters' names and its way to save,
and a slow forward. Written from mamba_ssm 2.3 (`models/mixer_seq_simple.py`, `modules/mamba_simple.py`,
`modules/mamba2.py`, `selective_scan_ref`, `rms_norm_ref`); nothing of transformers or of this package is in it.

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
        self.groups = groups

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
