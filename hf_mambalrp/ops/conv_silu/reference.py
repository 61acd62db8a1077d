"""The convolution with SiLU as it is defined, differentiated by autograd: for reading and tests."""

import torch
from torch import Tensor

from hf_mambalrp.rules import Rules


def conv_silu_reference(
    x: Tensor, weight: Tensor, bias: Tensor | None, earlier: Tensor, mask: Tensor | None, rules: Rules
) -> Tensor:
    """u_t = m_t c_t [sigmoid(c_t)],  c_t = sum_k w_k x_{t-K+1+k} + b per channel; shapes as in :func:`conv_silu`."""
    wide = torch.promote_types(x.dtype, torch.float32)
    whole, length = torch.cat([earlier.to(wide), x.to(wide)], 1), x.shape[1]
    taps = weight.detach().to(wide).unbind(1)
    contributions = [whole[:, k : k + length] * tap for k, tap in enumerate(taps)]
    contributions += [] if bias is None else [bias.expand_as(contributions[0])]
    c = sum(contributions, torch.zeros((), dtype=wide))
    gamma = rules.gamma_of("conv1d")
    if gamma:  # the same value, differentiated as R_i = (c_i + gamma [c_i c > 0] c_i) / (c + gamma s) R
        raised = sum((part + gamma * part * (part * c > 0) for part in contributions), torch.zeros((), dtype=wide))
        q = raised * torch.where(c == 0, 0.0, c / raised).detach()
        c = c.detach() + (q - q.detach())
    sigmoid = torch.sigmoid(c)
    u = c * (sigmoid.detach() if rules.silu else sigmoid)
    return (u if mask is None else u * mask.reshape(*x.shape[:2], 1)).to(x.dtype)
