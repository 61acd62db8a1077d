"""A slow float64 oracle of Vision Mamba's forward, written from the architecture and the released weight names only.

Nothing here imports the package, and nothing but sums, products, exponentials and loops is used of torch, so that
autograd differentiates what is written. Glossary: S pixels a side, P patch, M patches, L positions, D hidden, E inner
channels, N state, R step size rank, K conv width, n class tokens.

    h_0   = class tokens among patch vectors W_p pixels + b_p, with positions
    u     = w h / sqrt(mean_d h^2 + eps)
    x, z  = split(W_in u)
    one direction, over x_1 ... x_L (the backward one over x_L ... x_1, its results put back in order):
        c_t = silu(sum_k W_conv[k] x_{t-K+1+k} + b_conv)
        delta, B_t, C_t = split(W_x c_t);  dt_t = softplus(W_dt delta + b_dt)
        s_t = exp(dt_t A) s_{t-1} + dt_t B_t c_t,  A = -exp(A_log)
        y_t = (C_t s_t + D c_t) silu(z_t)
    h'    = h + W_out (y + y_b) [/ 2]
    class vector = RMSNorm(h) at the class token, or of several: RMSNorm(all of W_neck RMSNorm(h), side by side)
    logits = W_head class vector + b_head
"""

from dataclasses import dataclass

import torch


@dataclass
class VimOracle:
    """What is computed, all float64."""

    logits: torch.Tensor  # (B, V)
    pooled: torch.Tensor  # (B, what the head reads)
    last: torch.Tensor  # (B, L, D) after the last norm
    states: list  # the residual stream: before the first block, after each


def silu(x):
    return x / (1 + torch.exp(-x))


def softplus(x):
    return torch.where(x > 30, x, torch.log(1 + torch.exp(torch.minimum(x, torch.full_like(x, 30)))))


def rms_norm(h, weight, epsilon=1e-5):
    return weight * h / torch.sqrt((h * h).mean(-1, keepdim=True) + epsilon)


def patch_vectors(pixels, weight, bias, stride):
    """(B, C, height, width) -> (B, M, D), row by row."""
    size = weight.shape[-1]
    vectors = []
    for top in range(0, pixels.shape[2] - size + 1, stride):
        for left in range(0, pixels.shape[3] - size + 1, stride):
            patch = pixels[:, :, top : top + size, left : left + size]
            vectors.append(torch.einsum("bchw,dchw->bd", patch, weight) + bias)
    return torch.stack(vectors, 1)


def direction(x, z, weights, name, suffix):
    """One direction over x (B, L, E) as it comes, gated. Returns (B, L, E)."""
    conv, conv_bias = weights[f"{name}.conv1d{suffix}.weight"][:, 0], weights[f"{name}.conv1d{suffix}.bias"]
    A = -torch.exp(weights[f"{name}.A{suffix}_log"])
    rank = weights[f"{name}.dt_proj{suffix}.weight"].shape[1]
    K, N = conv.shape[1], A.shape[1]
    state, outputs = torch.zeros(len(x), *A.shape, dtype=x.dtype), []
    for t in range(x.shape[1]):
        c = conv_bias.expand(len(x), -1)
        for k in range(K):
            if t - K + 1 + k >= 0:
                c = c + conv[:, k] * x[:, t - K + 1 + k]
        c = silu(c)
        projected = c @ weights[f"{name}.x_proj{suffix}.weight"].T
        delta, B, C = projected[:, :rank], projected[:, rank : rank + N], projected[:, rank + N :]
        dt = softplus(delta @ weights[f"{name}.dt_proj{suffix}.weight"].T + weights[f"{name}.dt_proj{suffix}.bias"])
        state = torch.exp(dt[:, :, None] * A) * state + (dt * c)[:, :, None] * B[:, None, :]
        y = (state * C[:, None, :]).sum(-1) + weights[f"{name}.D{suffix}"] * c
        outputs.append(y * silu(z[:, t]))
    return torch.stack(outputs, 1)


def vim_forward(weights, pixels, stride, class_token="middle", divide_out=True):
    """Forward of the released weights, named as released (without ``vim.``).

    Args:
        weights: state dict, used in float64; those that require a gradient there get one.
        pixels: (B, C, S, S).
        stride: pixels from one patch to the next.
        class_token: "middle", "first" or "spread".
        divide_out: whether the sum of both directions is halved.
    """
    w = {name: value.double() for name, value in weights.items()}
    patches = patch_vectors(pixels.double(), w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride)
    B, M, _ = patches.shape
    n = w["cls_token"].shape[1]
    places = {"first": [0], "middle": [M // 2]}.get(class_token)
    if places is None:  # after every M // (n + 1) patches, one class token
        places = [(M // (n + 1) + 1) * (i + 1) - 1 for i in range(n)]
    rows, tokens, left = [], list(range(n)), list(range(M))
    for position in range(M + n):
        if position in places:
            i = tokens.pop(0)
            row = w["cls_token"][:, i] + (w["pos_embed_cls"][:, i] if class_token == "spread" else 0)
            row = row.expand(B, -1)
        else:
            i = left.pop(0)
            row = patches[:, i] + (w["pos_embed"][:, i] if class_token == "spread" else 0)
        rows.append(row if class_token == "spread" else row + w["pos_embed"][:, position])
    h = torch.stack(rows, 1)
    states, layer = [h], 0
    while (name := f"layers.{layer}.mixer") + ".in_proj.weight" in w:
        xz = rms_norm(h, w[f"layers.{layer}.norm.weight"]) @ w[f"{name}.in_proj.weight"].T
        E = xz.shape[-1] // 2
        x, z = xz[..., :E], xz[..., E:]
        y = direction(x, z, w, name, "") + direction(x.flip(1), z.flip(1), w, name, "_b").flip(1)
        h = h + (y / 2 if divide_out else y) @ w[f"{name}.out_proj.weight"].T
        states.append(h)
        layer += 1
    last = rms_norm(h, w["norm_f.weight"])
    pooled = torch.cat([last[:, p] @ w["neck.weight"].T if "neck.weight" in w else last[:, p] for p in places], -1)
    if "neck.weight" in w:
        pooled = rms_norm(pooled, w["norm_neck.weight"])
    return VimOracle(pooled @ w["head.weight"].T + w["head.bias"], pooled, last, states)
