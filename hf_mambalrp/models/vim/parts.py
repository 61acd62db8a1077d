"""The modules of Vision Mamba (Zhu et al. 2024, section 3): patches, norm, the mixer of two directions, the block.

Glossary: B images, M patches, L positions in the sequence (patches and class tokens), D hidden, E inner channels, N
state, R step size rank, K conv width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_mambalrp.models.vim.configuration import VimConfig
from hf_mambalrp.ops.selective_scan import selective_scan


class VimRMSNorm(nn.Module):
    """w h / sqrt(mean_d h^2 + eps), in float32 at least, returned in the dtype of ``weight``."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.variance_epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return (self.weight * normed).to(self.weight.dtype)


class VimMixer(nn.Module):
    """out_proj((f(x) + flip(f_b(flip(x)))) silu(z) [/ 2]),  x, z = in_proj(h);  f and f_b are the two directions.

    Each direction is convolution, SiLU and selective scan with weights of its own, those of the backward one with "_b".
    """

    def __init__(self, config: VimConfig) -> None:
        super().__init__()
        D, E, N, R = config.hidden_size, config.intermediate_size, config.state_size, config.time_step_rank
        self.divide_out = config.divide_out
        self.in_proj = nn.Linear(D, 2 * E, bias=False)
        self.out_proj = nn.Linear(E, D, bias=False)
        for direction in ("", "_b"):
            convolution = nn.Conv1d(E, E, config.conv_kernel, groups=E, padding=config.conv_kernel - 1)
            self.add_module(f"conv1d{direction}", convolution)
            self.add_module(f"x_proj{direction}", nn.Linear(E, R + 2 * N, bias=False))
            self.add_module(f"dt_proj{direction}", nn.Linear(R, E))
            self.register_parameter(f"A{direction}_log", nn.Parameter(torch.empty(E, N)))
            self.register_parameter(f"D{direction}", nn.Parameter(torch.empty(E)))

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        x, z = self.in_proj(hidden).chunk(2, -1)
        y = self._one_direction(x, "") + self._one_direction(x.flip(1), "_b").flip(1)
        y = y * F.silu(z)
        found: Tensor = self.out_proj(y / 2 if self.divide_out else y)
        return found

    def _one_direction(self, x: Tensor, direction: str) -> Tensor:
        """C_t h_t + D u_t,  h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t,  u = silu(conv(x)). (B, L, E) -> (B, L, E)."""
        conv1d, x_proj, dt_proj = (getattr(self, name + direction) for name in ("conv1d", "x_proj", "dt_proj"))
        A_log, D = getattr(self, f"A{direction}_log"), getattr(self, f"D{direction}")
        u = F.silu(conv1d(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        N = A_log.shape[1]
        delta, B, C = x_proj(u).split([dt_proj.in_features, N, N], -1)
        # The scan itself is in float32 at least, whatever the weights are in, as in the released kernels.
        wide = torch.promote_types(u.dtype, torch.float32)
        dt = F.softplus(dt_proj(delta).to(wide))
        u, B, C, A, D = (value.to(wide) for value in (u, B, C, -torch.exp(A_log.to(wide)), D))
        with torch.autocast(x.device.type, enabled=False):
            y, _ = selective_scan(u, dt, A, B, C)
        return torch.addcmul(y, u, D).to(x.dtype)


class VimLayer(GradientCheckpointingLayer):
    """h + mixer(norm(h)); the residual stream h is in float32 at least."""

    def __init__(self, config: VimConfig) -> None:
        super().__init__()
        self.norm = VimRMSNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mixer = VimMixer(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        after: Tensor = hidden + self.mixer(self.norm(hidden))
        return after


class VimPatchEmbedding(nn.Module):
    """Patches of an image as vectors, in row-major order."""

    def __init__(self, config: VimConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, config.stride)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, channels, height, width) -> (B, M, D)."""
        patches: Tensor = self.proj(pixel_values).flatten(2).transpose(1, 2)
        return patches
