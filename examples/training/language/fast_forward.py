"""Mamba-2's forward for training on a GPU: the scan as batched matrix products, no loop over positions or chunks.

Symbols as in the paper: B rows, L positions, D hidden, E inner width, N state size, H heads, P head width, K width of
the convolution; c chunks of Q positions each. Checked against the stock class by the tests.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Mamba2ForCausalLM

CHUNK = 64


def ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t, y_t = h_t C_t, as section 6 of the paper has it.

    Shapes: x (B, L, H, P), dt (B, L, H) and A (H) in float32, B and C (B, L, N), one group; L is a multiple of CHUNK.
    Between chunks the states are a product too, with the decays of every chunk to every later one.
    """
    x, dt, B, C = (t.unflatten(1, (-1, CHUNK)) for t in (x * dt[..., None].to(x), dt, B, C))
    s = (dt * A).cumsum(2).permute(0, 1, 3, 2)  # (B, c, H, Q): log decay since the chunk's start
    x = x.transpose(2, 3)  # (B, c, H, Q, P)
    decay = _decay(s[..., :, None] - s[..., None, :]).to(x)
    y = ((C @ B.mT)[:, :, None] * decay) @ x

    until = (s[..., -1:] - s).exp().to(x)
    states = (until[..., None] * x).mT @ B[:, :, None]  # (B, c, H, P, N): what each chunk adds
    total = s[..., -1].cumsum(1).mT  # (B, H, c)
    # Chunk i starts with what chunk j < i added, decayed over the chunks between.
    before = F.pad(total, (1, 0))[..., :-1]
    between = _decay(before[..., :, None] - total[..., None, :], diagonal=-1)
    start = torch.einsum("bhij,bjhpn->bihpn", between.to(x), states)
    y = y + s.exp().to(x)[..., None] * (C[:, :, None] @ start.mT)
    return y.transpose(2, 3).flatten(1, 2)


def _decay(exponent: Tensor, diagonal: int = 0) -> Tensor:
    """exp of a square's lower triangle, 0 above it."""
    kept = torch.ones(exponent.shape[-2:], dtype=torch.bool, device=exponent.device).tril(diagonal)
    return exponent.masked_fill(~kept, -torch.inf).exp()


def mixer_forward(mixer: nn.Module, hidden: Tensor) -> Tensor:
    """One ``Mamba2Mixer`` with a single group. (B, L, D) -> (B, L, D)."""
    inner, state = mixer.intermediate_size, mixer.ssm_state_size
    gate, xBC, dt = mixer.in_proj(hidden).split([inner, mixer.conv_dim, mixer.num_heads], -1)
    x, B, C = F.silu(_convolution(mixer.conv1d, xBC)).split([inner, state, state], -1)
    x = x.unflatten(-1, (mixer.num_heads, mixer.head_dim))
    dt = F.softplus(dt.float() + mixer.dt_bias)
    y = ssd(x, dt, -mixer.A_log.float().exp(), B, C) + x * mixer.D.to(x)[:, None]
    y = y.flatten(2) * F.silu(gate)
    return mixer.out_proj(_rms_norm(y, mixer.norm.weight, mixer.norm.variance_epsilon))


def _convolution(conv1d: nn.Conv1d, x: Tensor) -> Tensor:
    """Causal and depthwise, as K shifted products. (B, L, channels)."""
    width = conv1d.kernel_size[0]
    padded = F.pad(x, (0, 0, width - 1, 0))
    taps = conv1d.weight[:, 0].mT.to(x)
    y = conv1d.bias.to(x)
    for k in range(width):
        y = y + padded[:, k : k + x.shape[1]] * taps[k]
    return y


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x.float(), weight.shape, weight.float(), eps).to(x)


def hidden_states(model: Mamba2ForCausalLM, input_ids: Tensor, dropout: float = 0.0) -> Tensor:
    """What the head reads, (B, L) -> (B, L, D). Positions past the end pad L to whole chunks; none sees a later one."""
    length = input_ids.shape[1]
    hidden = model.backbone.embeddings(F.pad(input_ids, (0, -length % CHUNK)))
    for block in model.backbone.layers:
        normed = _rms_norm(hidden, block.norm.weight, block.norm.variance_epsilon)
        hidden = hidden + F.dropout(mixer_forward(block.mixer, normed), dropout, training=dropout > 0)
    norm = model.backbone.norm_f
    return _rms_norm(hidden, norm.weight, norm.variance_epsilon)[:, :length]


def logits(model: Mamba2ForCausalLM, input_ids: Tensor) -> Tensor:
    """(B, L) -> (B, L, V)."""
    return model.lm_head(hidden_states(model, input_ids))
