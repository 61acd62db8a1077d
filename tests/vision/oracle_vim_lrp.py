"""A slow float64 oracle of MambaLRP on Vision Mamba, written from the rules; nothing here imports the package.

The forward is written out as in oracle_vim.py, each operation with its rule: what a rule holds constant is detached, so
that value times gradient is relevance. Of z = sum_i c_i + b under LRP-gamma the relevance of c_i is in proportion to
c_i + gamma c_i where c_i has z's sign, and to c_i elsewhere: z is replaced by [z / q] q, q the sum of these.
"""

import torch
from oracle_vim import patch_vectors, softplus


def silu(x):
    """The identity rule: x [sigmoid(x)]."""
    return x * (1 / (1 + torch.exp(-x))).detach()


def rms_norm(h, weight, epsilon=1e-5):
    return weight * h / torch.sqrt((h * h).mean(-1, keepdim=True) + epsilon).detach()


def summed(contributions, gamma):
    """The sum over the list, by LRP-gamma (LRP-0 at gamma 0)."""
    z = sum(contributions)
    q = sum(c + gamma * c * (c * z > 0) for c in contributions)
    return torch.where(q == 0, z, (z / q).detach() * q)


def linear(x, weight, gamma):
    """(..., F_in) -> (..., F_out), one contribution after the other."""
    return summed([x[..., i, None] * weight[:, i] for i in range(x.shape[-1])], gamma)


def direction(x, z, w, name, suffix, gamma):
    conv, conv_bias = w[f"{name}.conv1d{suffix}.weight"][:, 0], w[f"{name}.conv1d{suffix}.bias"]
    A, D = -torch.exp(w[f"{name}.A{suffix}_log"]), w[f"{name}.D{suffix}"]
    rank, N, K = w[f"{name}.dt_proj{suffix}.weight"].shape[1], A.shape[1], conv.shape[1]
    state, outputs = torch.zeros(len(x), *A.shape, dtype=x.dtype), []
    for t in range(x.shape[1]):
        taps = [conv[:, k] * x[:, t - K + 1 + k] for k in range(K) if t - K + 1 + k >= 0]
        u = silu(summed([*taps, conv_bias.expand(len(x), -1)], gamma))
        projected = (u @ w[f"{name}.x_proj{suffix}.weight"].T).detach()
        delta, B, C = projected[:, :rank], projected[:, rank : rank + N], projected[:, rank + N :]
        dt = softplus(delta @ w[f"{name}.dt_proj{suffix}.weight"].T + w[f"{name}.dt_proj{suffix}.bias"])
        state = torch.exp(dt[:, :, None] * A) * state + (dt * u)[:, :, None] * B[:, None, :]
        p = ((state * C[:, None, :]).sum(-1) + D * u) * silu(z[:, t])
        outputs.append(p / 2 + (p / 2).detach())
    return torch.stack(outputs, 1)


def vim_relevance(
    weights, pixels, target, stride, class_token="middle", divide_out=True, gamma_conv=0.0, gamma_linear=0.0
):
    """Scores (B,), relevance at every layer (num_layers + 1, B, L), and of pixels (B, height, width)."""
    w = {name: value.detach().double() for name, value in weights.items()}
    pixels = pixels.double().requires_grad_()
    patches = patch_vectors(pixels, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride)
    B, M, D = patches.shape
    n = w["cls_token"].shape[1]
    places = {"first": [0], "middle": [M // 2]}.get(class_token)
    places = places or [(M // (n + 1) + 1) * (i + 1) - 1 for i in range(n)]
    rest = [p for p in range(M + n) if p not in places]
    h = torch.zeros(B, M + n, D, dtype=torch.float64)
    if class_token == "spread":
        h[:, rest] = patches + w["pos_embed"]
        h[:, places] = w["cls_token"] + w["pos_embed_cls"]
    else:
        h[:, rest] = patches + w["pos_embed"][:, rest]
        h[:, places] = (w["cls_token"] + w["pos_embed"][:, places]).expand(B, -1, -1)
    streams, layer = [h], 0
    while (name := f"layers.{layer}.mixer") + ".in_proj.weight" in w:
        xz = linear(rms_norm(h, w[f"layers.{layer}.norm.weight"]), w[f"{name}.in_proj.weight"], gamma_linear)
        x, z = xz.chunk(2, -1)
        y = direction(x, z, w, name, "", gamma_conv)
        y = y + direction(x.flip(1), z.flip(1), w, name, "_b", gamma_conv).flip(1)
        h = h + linear(y / 2 if divide_out else y, w[f"{name}.out_proj.weight"], gamma_linear)
        streams.append(h)
        layer += 1
    read = rms_norm(h, w["norm_f.weight"])[:, places]
    if "neck.weight" in w:
        read = rms_norm((read @ w["neck.weight"].T).flatten(1), w["norm_neck.weight"])
    score = (read.flatten(1) @ w["head.weight"].T + w["head.bias"])[:, target]
    gradients = torch.autograd.grad(score.sum(), [*streams, pixels])
    layers = torch.stack([(s * g).sum(-1) for s, g in zip(streams, gradients, strict=False)])
    return score.detach(), layers.detach(), (pixels * gradients[-1]).sum(1).detach(), places
