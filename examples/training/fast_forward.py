"""Mamba's forward for training on short texts without the fused kernels: the scan in log2(L) steps instead of L.

Symbols as in the paper: B batch, L length, E inner width, N state size. Checked against the stock class by the tests.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import MambaModel


def prefix_scan(a: Tensor, x: Tensor) -> Tensor:
    """h_t = a_t h_{t-1} + x_t along dimension 1, by doubling the stretch each position has summed. (B, L, E, N)."""
    stretch = 1
    while stretch < x.shape[1]:
        x = torch.cat([x[:, :stretch], torch.addcmul(x[:, stretch:], a[:, stretch:], x[:, :-stretch])], 1)
        if 2 * stretch < x.shape[1]:
            a = torch.cat([a[:, :stretch], a[:, stretch:] * a[:, :-stretch]], 1)
        stretch *= 2
    return x


class LinearScan(torch.autograd.Function):
    """``prefix_scan`` with its gradient, which is the same scan run backwards in time."""

    @staticmethod
    def forward(ctx, a: Tensor, x: Tensor) -> Tensor:
        h = prefix_scan(a, x)
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, h = ctx.saved_tensors
        later = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], 1)
        grad_x = prefix_scan(later.flip(1), grad.flip(1)).flip(1)
        earlier = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)
        return grad_x * earlier, grad_x


def mixer_forward(mixer: torch.nn.Module, hidden: Tensor) -> Tensor:
    """One ``MambaMixer`` without cache. (B, L, D) -> (B, L, D)."""
    x, gate = mixer.in_proj(hidden).chunk(2, -1)
    x = F.silu(mixer.conv1d(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
    rank, size = mixer.time_step_rank, mixer.ssm_state_size
    dt, B, C = mixer.x_proj(x).split([rank, size, size], -1)
    dt = F.softplus(mixer.dt_proj(dt))
    decay = torch.exp(dt[..., None] * -mixer.A_log.exp())
    h = LinearScan.apply(decay, (dt * x)[..., None] * B[:, :, None])
    y = torch.matmul(h, C[..., None])[..., 0] + x * mixer.D
    return mixer.out_proj(y * F.silu(gate))


def backbone_forward(backbone: MambaModel, embeds: Tensor) -> Tensor:
    """Last hidden states for rows padded on the right, (B, L, D); causal, so padding changes no real position."""
    hidden = embeds
    for layer in backbone.layers:
        hidden = hidden + mixer_forward(layer.mixer, layer.norm(hidden))
    return backbone.norm_f(hidden)
