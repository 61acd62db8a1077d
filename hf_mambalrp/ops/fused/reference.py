"""The fused ops as they are defined: plain torch under autograd, every constant a ``detach``. For reading and tests.

Arithmetic is in float32, or in float64 for float64 inputs. Weights and masks are constants.
"""

import torch
from torch import Tensor


def conv_silu_reference(
    x: Tensor, weight: Tensor, bias: Tensor | None, earlier: Tensor, mask: Tensor | None = None
) -> Tensor:
    """u_t = m_t c_t [sigmoid(c_t)],  c_t = sum_k w_k x_{t-K+1+k} + b per channel, the bracket constant.

    Args:
        x: (B, L, E).
        weight: (E, K), constant.
        bias: (B, 1, E), one copy per row, or None.
        earlier: (B, K - 1, E), the inputs before the first position.
        mask: (B, L) or (B, L, 1), zero on padding, or None.

    Returns:
        (B, L, E) in the dtype of ``x``.
    """
    wide = _wide(x)
    whole, length = torch.cat([earlier.to(wide), x.to(wide)], 1), x.shape[1]
    taps = weight.detach().to(wide).unbind(1)
    c = sum((whole[:, k : k + length] * tap for k, tap in enumerate(taps)), torch.zeros((), dtype=wide))
    c = c if bias is None else c + bias
    u = c * torch.sigmoid(c).detach()
    return (u if mask is None else u * mask.reshape(*x.shape[:2], 1)).to(x.dtype)


def norm_reference(x: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype) -> Tensor:
    """y = x [rsqrt(mean(x^2) + eps)] w over the last dimension, the bracket constant. Shape: (..., D) -> (..., D)."""
    return _normed(x.to(_wide(x)), weight, eps).to(out_dtype)


def gated_norm_reference(
    y: Tensor,
    z: Tensor,
    weight: Tensor,
    eps: float,
    group_size: int,
    skip: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """o = p [rsqrt(mean(p^2) + eps)] w per group of consecutive channels, p = y z [sigmoid(z)] under the half rule.

    Args:
        y: (B, L, E).
        z: (B, L, E).
        weight: (E,), constant.
        eps: added to the mean square.
        group_size: channels in a group; divides E.
        skip: x (B, L, E) and D (H,), constant, one number for each E / H consecutive channels: y + D x takes the
            place of y.

    Returns:
        (B, L, E) in the dtype of ``y``.
    """
    total = y.to(_wide(y))
    if skip is not None:
        x, D = skip
        total = total + x * D.detach().to(total.dtype).repeat_interleave(y.shape[-1] // len(D))
    groups = (-1, group_size)
    p = _gated(total, z).unflatten(-1, groups)
    return _normed(p, weight.unflatten(0, groups), eps).flatten(-2).to(y.dtype)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    normaliser = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps).detach()
    return x * normaliser * weight.detach().to(x.dtype)


def _gated(y: Tensor, z: Tensor) -> Tensor:
    """p / 2 + [p / 2]."""
    z = z.to(_wide(y))
    p = y.to(z.dtype) * z * torch.sigmoid(z).detach()
    return p / 2 + (p / 2).detach()
