"""Vision Mamba's forward for training: both directions at once, few launches, any scan. The tests compare it.

Symbols as in the paper: B images, L positions, D hidden, E channels, N states, R rank of the step sizes, K width.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp import VimForImageClassification
from hf_mambalrp.ops.selective_scan import selective_scan

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def scan_plain(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t, y_t = C_t h_t, by the package's scan; it runs everywhere.

    Shapes: u, dt (2, B, L, E); A (2, E, N); B, C (2, B, L, N); returns (2, B, L, E) in the dtype of u.
    """
    directions = zip(u, dt, A, B, C, strict=True)
    return torch.stack([selective_scan(*(x.float() for x in each), backend="chunked")[0] for each in directions]).to(u)


def logits(model: VimForImageClassification, pixel_values: Tensor, scan: Scan) -> Tensor:
    """(B, 3, S, S) -> (B, classes), of a model whose one class token stands in the middle."""
    vim = model.vim
    hidden = vim.patch_embed.proj(pixel_values).flatten(2).mT
    middle = hidden.shape[1] // 2
    token = vim.cls_token.to(hidden.dtype).expand(len(hidden), -1, -1)
    hidden = torch.cat([hidden[:, :middle], token, hidden[:, middle:]], 1) + vim.pos_embed
    for layer in vim.layers:
        hidden = hidden + mixer_forward(layer.mixer, _rms_norm(layer.norm, hidden), scan)
    return model.head(_rms_norm(vim.norm_f, hidden[:, middle]))


def _rms_norm(norm: torch.nn.Module, hidden: Tensor) -> Tensor:
    return F.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def mixer_forward(mixer: torch.nn.Module, hidden: Tensor, scan: Scan) -> Tensor:
    """(B, L, D) -> (B, L, D)."""

    def both(name: str) -> Tensor:
        """A parameter of the forward direction and the backward one's, stacked."""
        return torch.stack([mixer.get_parameter(name.format(direction)) for direction in ("", "_b")])

    x, z = mixer.in_proj(hidden).chunk(2, -1)
    x = torch.stack([x, x.flip(1)])  # (2, B, L, E)
    u = F.silu(_convolution(x, both("conv1d{}.weight"), both("conv1d{}.bias")))
    A = -both("A{}_log").exp()
    N, R = A.shape[2], mixer.dt_proj.in_features
    delta, B, C = _project(u, both("x_proj{}.weight")).split([R, N, N], -1)
    dt = F.softplus(_project(delta, both("dt_proj{}.weight")) + both("dt_proj{}.bias")[:, None, None])
    y = scan(u, dt, A, B, C) + u * both("D{}")[:, None, None]
    y = (y[0] + y[1].flip(1)) * F.silu(z)
    return mixer.out_proj(y / 2 if mixer.divide_out else y)


def _convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Causal and depthwise, as K shifted products. (2, B, L, E), (2, E, 1, K), (2, E) -> (2, B, L, E)."""
    length, taps = x.shape[2], weight.to(x.dtype)[:, None, :, 0].mT.unbind(2)  # K of (2, 1, E)
    padded = F.pad(x, (0, 0, len(taps) - 1, 0))
    y = bias.to(x.dtype)[:, None, None]
    for k, tap in enumerate(taps):
        y = torch.addcmul(y, padded[:, :, k : k + length], tap[:, :, None])
    return y


def _project(x: Tensor, weight: Tensor) -> Tensor:
    """Each direction by its own matrix. (2, B, L, in), (2, out, in) -> (2, B, L, out)."""
    return torch.bmm(x.flatten(1, 2), weight.mT).unflatten(1, x.shape[1:3])
