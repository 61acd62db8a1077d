"""Slow float64 oracles for hidden attention and the methods built on it, by loops over the papers' formulas.

Nothing here imports the package. Signals are computed from Hugging Face's weights by name; every signal is by channel:
dt, x, c, u, z (B, L, E), A (E, N), B and C (B, L, E, N), D (E,). Models are float64.
"""

import torch
import torch.nn.functional as F
from oracles import HFFloat64


def signals_of_mixer(model, layer, ids, mask):
    """The mixer's signals by its own weights and transformers' own modules, in float64: written from their names."""
    mixer, block = model.backbone.layers[layer].mixer, model.backbone.layers[layer]
    keep = mask.double()[:, :, None]
    normed = []
    hook = block.norm.register_forward_hook(lambda _module, _inputs, output: normed.append(output))
    with HFFloat64():
        model(ids, attention_mask=mask, use_cache=False)
    hook.remove()
    projected = mixer.in_proj(normed[0] * keep)
    config = model.config
    if config.model_type == "mamba2":
        inner, groups, states = mixer.norm.weight.shape[0], config.n_groups, config.state_size
        z, xBC, dt = projected.split([inner, inner + 2 * groups * states, config.num_heads], -1)
    else:
        x, z = projected.chunk(2, -1)
        inner, xBC = x.shape[-1], x
    padded = F.pad(xBC.transpose(1, 2), (config.conv_kernel - 1, 0))
    c = F.conv1d(padded, mixer.conv1d.weight, mixer.conv1d.bias, groups=xBC.shape[-1])
    c = c.transpose(1, 2)
    u = F.silu(c) * keep
    A = -mixer.A_log.exp()
    if config.model_type == "mamba2":
        per_head = inner // config.num_heads
        u, B, C = u.split([inner, groups * states, groups * states], -1)
        heads_per_group = config.num_heads // groups
        B, C = (p.unflatten(-1, (groups, states)).repeat_interleave(heads_per_group * per_head, 2) for p in (B, C))
        dt = F.softplus(dt + mixer.dt_bias).clamp(*config.time_step_limit)
        dt, A, D = dt.repeat_interleave(per_head, 2), A.repeat_interleave(per_head), mixer.D.repeat_interleave(per_head)
        A = A[:, None].expand(-1, states)
    else:
        low, B, C = mixer.x_proj(u).split([config.time_step_rank, config.state_size, config.state_size], -1)
        if config.model_type == "falcon_mamba":
            low, B, C = (p * torch.rsqrt(p.pow(2).mean(-1, True) + config.mixer_rms_eps) for p in (low, B, C))
        dt, D = F.softplus(mixer.dt_proj(low)), mixer.D
        B, C = (p[:, :, None].expand(-1, -1, inner, -1) for p in (B, C))
    return {"x": xBC[..., :inner], "c": c[..., :inner], "u": u, "dt": dt, "A": A, "B": B, "C": C, "D": D, "z": z}


def alpha_by_loops(s):
    """alpha_ij^d = sum_m C_i[m] (prod_{k=j+1..i} exp(dt_k A[m])) dt_j B_j[m]. Shape: (B, E, L, L)."""
    rows, length, inner = s["u"].shape
    alpha = torch.zeros(rows, inner, length, length, dtype=torch.float64)
    for j in range(length):
        product = torch.ones(rows, inner, s["A"].shape[1], dtype=torch.float64)
        for i in range(j, length):
            if i > j:
                product = product * torch.exp(s["dt"][:, i, :, None] * s["A"])
            alpha[:, :, i, j] = (s["C"][:, i] * product * s["B"][:, j]).sum(-1) * s["dt"][:, j]
    return alpha


def scale_of(model, layer, s, mask):
    """The factor from y, with its skip, to the input of out_proj: silu(z), for Mamba-2 times normaliser and weight."""
    mixer = model.backbone.layers[layer].mixer
    scale = F.silu(s["z"])
    if model.config.model_type == "mamba2":
        alpha = alpha_by_loops(s)
        p = (torch.einsum("beij,bje->bie", alpha, s["u"]) + s["D"] * s["u"]) * scale
        grouped = p.unflatten(-1, (-1, getattr(mixer.norm, "group_size", None) or p.shape[-1]))
        normaliser = torch.rsqrt(grouped.pow(2).mean(-1, True) + mixer.norm.variance_epsilon).expand_as(grouped)
        scale = scale * normaliser.flatten(-2) * mixer.norm.weight
    return scale


def unified_by_loops(model, layer, s, mask):
    """diag(scale) alpha diag(sigmoid(c)) M_conv. Shape: (B, E, L, L)."""
    mixer = model.backbone.layers[layer].mixer
    alpha, keep = alpha_by_loops(s), mask.double()[:, :, None]
    inner, length = alpha.shape[1:3]
    scale = scale_of(model, layer, s, mask)
    taps = mixer.conv1d.weight[:inner, 0]
    sigmoid = torch.sigmoid(s["c"]) * keep
    H = torch.zeros_like(alpha)
    for i in range(length):
        for j in range(length):
            for k in range(j, min(j + taps.shape[1], i + 1)):
                H[:, :, i, j] += scale[:, i] * alpha[:, :, i, k] * sigmoid[:, k] * taps[:, taps.shape[1] - 1 - (k - j)]
    return H


def both_attended(mask):
    return (mask[:, :, None] * mask[:, None, :]).double()


def token_parts(model, layer, s, mask):
    """T_i(x_j) (B, L, L, D) with the skip in it, without the residual stream: additive in the convolution's input."""
    mixer = model.backbone.layers[layer].mixer
    H = unified_by_loops(model, layer, s, mask)
    keep, length = mask.double()[:, :, None], mask.shape[1]
    taps = mixer.conv1d.weight[: H.shape[1], 0]
    scale = scale_of(model, layer, s, mask)
    for i in range(length):
        for j in range(max(0, i - taps.shape[1] + 1), i + 1):
            H[:, :, i, j] += scale[:, i] * s["D"] * torch.sigmoid(s["c"][:, i]) * taps[:, taps.shape[1] - 1 - (i - j)]
    parts = torch.einsum("de,beij,bje->bijd", mixer.out_proj.weight, H, s["x"] * keep)
    return parts * both_attended(mask)[..., None]


def streams_of(model, ids, mask):
    """The residual stream before the first block and after every block."""
    streams, hooks = [], []
    for block in model.backbone.layers:
        hooks.append(block.register_forward_pre_hook(lambda _module, inputs: streams.append(inputs[0])))
        last = block
    hooks.append(
        last.register_forward_hook(lambda _m, _i, out: streams.append(out[0] if isinstance(out, tuple) else out))
    )
    with HFFloat64():
        logits = model(ids, attention_mask=mask, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return streams, logits
