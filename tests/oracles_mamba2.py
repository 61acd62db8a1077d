"""Slow float64 oracles for MambaLRP on Mamba-2, and `oracle_of(model)` for every family.

Like `oracles.py`, whose rules, result and helpers it shares, it is written from the paper and from Hugging Face's
weight names, and imports nothing of the package. Two derivations, compared in `test_oracles_mamba2.py` with each other
and with autograd through Hugging Face's model (`hf_gradient_x_input`):

- `mamba2_explicit`: every layer's backward rule written out by hand, the recurrence token by token, no autograd;
- `mamba2_dense`: every block as one dense (L D, L D) matrix, the scan in its attention form (small sizes only).

Glossary: B rows, L tokens, D hidden, H heads, P head dim, E = H P inner channels, G groups of B and C, N state, K conv
width, W = E + 2 G N conv channels, V logits. Head h reads group h // (H / G). One block, with mask m_t in {0, 1}:

    u   = w * h * r,  r = rsqrt(mean_d h^2 + eps)                 RMSNorm
    z, xBC, dt_low = split(W_in (m u) + b_in, [E, W, H])          in_proj
    c_t = sum_k W_conv[k] xBC_{t - (K-1) + k} + b_conv            depthwise causal conv
    x, B, C = split(m silu(c), [E, G N, G N])
    dt  = clamp(softplus(dt_low + dt_bias), *time_step_limit)     one per head
    s_t = exp(dt_t A) s_{t-1} + dt_t x_t B_t^T,  A = -exp(A_log)  one A per head; s_t (H, P, N)
    y_t = s_t C_t + D x_t                                         one D per head
    p   = y silu(z)                                               gate
    o   = w_o * p * rsqrt(mean p^2 + eps)                         gated RMSNorm: E in `norm_groups` equal groups
    h'  = h + W_out o + b_out                                     residual stream

`norm_groups` is G in transformers 5.23; older releases (4.57, 5.16) normalise over the whole width, `norm_groups` 1.
The rules: "norm" (normaliser constant, of all three kinds of norm), "silu" (after the conv and on the gate), "ssm"
(exp(dt A), dt, B and C constant), "gate" (half of p's relevance to y, half to silu(z)). `dt_bias` is inside what "ssm"
holds constant and is no content bias; the parts of in_proj.bias and conv1d.bias that feed dt, B and C then carry zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from oracles import (
    MAMBALRP,
    DenseBlock,
    Inputs,
    OracleResult,
    State,
    backward_conv,
    backward_norm,
    block_parameters,
    causal_conv,
    check_rules,
    conv_matrix,
    dense_product,
    explicit_recursion,
    mambalrp_explicit,
    norm_matrix,
    prepare_inputs,
    rsqrt_mean_square,
    silu,
    silu_slope,
    softplus_slope,
)
from torch import Tensor


@dataclass(frozen=True)
class _Block:
    """One block's parameters; absent biases are zero."""

    norm: Tensor  # (D,)
    in_proj: Tensor  # (E + W + H, D), rows z, xBC, dt
    in_proj_bias: Tensor  # (E + W + H,)
    conv: Tensor  # (W, K), last tap = current token
    conv_bias: Tensor  # (W,)
    dt_bias: Tensor  # (H,)
    A: Tensor  # (H,), negative
    D: Tensor  # (H,)
    gated_norm: Tensor  # (E,)
    out_proj: Tensor  # (D, E)
    out_proj_bias: Tensor  # (D,)
    H: int
    P: int
    G: int
    N: int
    norm_groups: int
    time_step_limit: tuple[float, float]

    @property
    def group_of_head(self) -> Tensor:
        """(H,)."""
        return torch.arange(self.H) // (self.H // self.G)


def _blocks(
    inputs: Inputs, head_dim: int, n_groups: int, norm_groups: int, time_step_limit: tuple[float, float]
) -> list[_Block]:
    parameters = (block_parameters(inputs, i) for i in range(inputs.num_layers))
    return [_block(p, head_dim, n_groups, norm_groups, time_step_limit) for p in parameters]


def _block(
    p: Mapping[str, Tensor], head_dim: int, n_groups: int, norm_groups: int, time_step_limit: tuple[float, float]
) -> _Block:
    H = p["mixer.A_log"].shape[0]
    E, W = H * head_dim, p["mixer.conv1d.weight"].shape[0]
    N, rest = divmod(W - E, 2 * n_groups)
    if rest or H % n_groups or E % norm_groups:
        raise ValueError(f"{H} heads of {head_dim} and {W} conv channels do not fit {n_groups=}, {norm_groups=}")
    return _Block(
        norm=p["norm.weight"],
        in_proj=p["mixer.in_proj.weight"],
        in_proj_bias=p["mixer.in_proj.bias"],
        conv=p["mixer.conv1d.weight"][:, 0, :],
        conv_bias=p["mixer.conv1d.bias"],
        dt_bias=p["mixer.dt_bias"],
        A=-torch.exp(p["mixer.A_log"]),
        D=p["mixer.D"],
        gated_norm=p["mixer.norm.weight"],
        out_proj=p["mixer.out_proj.weight"],
        out_proj_bias=p["mixer.out_proj.bias"],
        H=H,
        P=head_dim,
        G=n_groups,
        N=N,
        norm_groups=norm_groups,
        time_step_limit=time_step_limit,
    )


def _clamp_slope(dt: Tensor, limit: tuple[float, float]) -> Tensor:
    """Derivative of torch's clamp: 1 inside and at the limits, 0 outside."""
    return ((limit[0] <= dt) & (dt <= limit[1])).double()


# ---------------------------------------------------------------------------------------------------------------------
# 1. The explicit backward recursion
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trace:
    """What a block's forward leaves for its backward."""

    h: Tensor  # (B, L, D) input of the block
    r: Tensor  # (B, L, 1) normaliser
    z: Tensor  # (B, L, E) gate, before silu
    c: Tensor  # (B, L, W) after the conv, before silu
    x: Tensor  # (B, L, H, P) input of the scan
    B: Tensor  # (B, L, H, N) of each head's group
    C: Tensor  # (B, L, H, N)
    v: Tensor  # (B, L, H) dt before softplus and clamp
    dt: Tensor  # (B, L, H)
    states: Tensor  # (B, L, H, P, N) s_t
    y: Tensor  # (B, L, E) scan output with the D skip
    r_p: Tensor  # (B, L, norm_groups, 1) normaliser of the gated norm


def _forward_block(p: _Block, h: Tensor, mask: Tensor, eps: float) -> tuple[Tensor, _Trace]:
    m = mask[:, :, None]
    rows, L, E, W = h.shape[0], h.shape[1], p.H * p.P, len(p.conv)
    r = rsqrt_mean_square(h, eps)
    z, xBC, dt_low = ((h * r * p.norm * m) @ p.in_proj.T + p.in_proj_bias).split([E, W, p.H], dim=-1)

    c = causal_conv(p.conv, xBC) + p.conv_bias
    x, B, C = (m * silu(c)).split([E, p.G * p.N, p.G * p.N], dim=-1)
    x = x.reshape(rows, L, p.H, p.P)
    B, C = (v.reshape(rows, L, p.G, p.N)[:, :, p.group_of_head] for v in (B, C))
    v = dt_low + p.dt_bias
    dt = F.softplus(v).clamp(*p.time_step_limit)

    decay, inputs = torch.exp(dt * p.A)[..., None, None], (dt[..., None] * x)[..., None] * B[..., None, :]
    states, s = torch.empty_like(inputs), torch.zeros(rows, p.H, p.P, p.N, dtype=torch.float64)
    for t in range(L):
        s = states[:, t] = decay[:, t] * s + inputs[:, t]
    y = ((states * C[..., None, :]).sum(-1) + p.D[:, None] * x).reshape(rows, L, E)

    groups = (y * silu(z)).reshape(rows, L, p.norm_groups, -1)
    r_p = rsqrt_mean_square(groups, eps)
    o = p.gated_norm * (groups * r_p).reshape(rows, L, E)
    trace = _Trace(h, r, z, c, x, B, C, v, dt, states, y, r_p)
    return h + o @ p.out_proj.T + p.out_proj_bias, trace


def _backward_scan(
    p: _Block, trace: _Trace, G_y: Tensor, rules: frozenset[str]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """G of x (B, L, H, P), of B and C (B, L, G, N) and of dt_low (B, L, H) from G of y (B, L, H, P).

    With q_t = G of s_t:  q_t = G_y_t C_t^T + exp(dt_{t+1} A) q_{t+1},  G_x_t = dt_t q_t B_t + D G_y_t.
    Under the "ssm" rule nothing flows back through B, C and dt. Without it, per head,
        G_C_t = s_t^T G_y_t,   G_B_t = dt_t q_t^T x_t,
        G_dt_t = sum_pn q_t (A exp(dt_t A) s_{t-1} + x_t B_t^T),
    and B and C sum over the heads of their group.
    """
    rows, L = G_y.shape[:2]
    G_B, G_C = torch.zeros(2, rows, L, p.G, p.N, dtype=torch.float64)
    G_dt = torch.zeros_like(trace.dt)
    decay, q = torch.exp(trace.dt * p.A)[..., None, None], G_y[..., None] * trace.C[..., None, :]
    for t in reversed(range(L - 1)):
        q[:, t] += decay[:, t + 1] * q[:, t + 1]
    qB = (q * trace.B[..., None, :]).sum(-1)
    G_x = trace.dt[..., None] * qB + p.D[:, None] * G_y
    if "ssm" not in rules:
        before = torch.cat([torch.zeros_like(q[:, :1]), trace.states[:, :-1]], dim=1)
        G_C_heads = (trace.states * G_y[..., None]).sum(3)
        G_B_heads = trace.dt[..., None] * (trace.x[..., None] * q).sum(3)
        for head, group in enumerate(p.group_of_head.tolist()):
            G_C[:, :, group] += G_C_heads[:, :, head]
            G_B[:, :, group] += G_B_heads[:, :, head]
        G_dt = p.A * (q * decay * before).sum((-2, -1)) + (trace.x * qB).sum(-1)
    slope = _clamp_slope(F.softplus(trace.v), p.time_step_limit) * softplus_slope(trace.v)
    return G_x, G_B, G_C, G_dt * slope


def _backward_block(
    p: _Block, trace: _Trace, mask: Tensor, G: Tensor, rules: frozenset[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """G of the block's input from G of its output, and what each bias absorbed: sum_{t, unit} b * G there."""
    m = mask[:, :, None]
    rows, L = mask.shape

    def grouped(channels: Tensor) -> Tensor:
        return channels.reshape(*channels.shape[:-1], p.norm_groups, -1)

    G_o = G @ p.out_proj
    product = trace.y * silu(trace.z)
    G_p = backward_norm(grouped(product), trace.r_p, grouped(p.gated_norm), grouped(G_o), rules).reshape(rows, L, -1)
    share = 0.5 if "gate" in rules else 1.0
    G_y = share * G_p * silu(trace.z)
    G_z = share * G_p * trace.y * silu_slope(trace.z, rules)
    *G_scan, G_dt_low = _backward_scan(p, trace, G_y.reshape(rows, L, p.H, p.P), rules)
    G_c = m * torch.cat([part.reshape(rows, L, -1) for part in G_scan], dim=-1) * silu_slope(trace.c, rules)
    G_in = torch.cat([G_z, backward_conv(p.conv, G_c), G_dt_low], dim=-1)
    G_h = G + backward_norm(trace.h, trace.r, p.norm, m * (G_in @ p.in_proj), rules)
    absorbed = {
        "in_proj.bias": (p.in_proj_bias * G_in).sum((1, 2)),
        "conv1d.bias": (p.conv_bias * G_c).sum((1, 2)),
        "out_proj.bias": (p.out_proj_bias * G).sum((1, 2)),
    }
    return G_h, absorbed


def mamba2_explicit(
    state: State,
    *,
    eps: float,
    head_dim: int,
    n_groups: int,
    norm_groups: int,
    time_step_limit: tuple[float, float] = (0.0, math.inf),
    input_ids: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    attention_mask: Tensor | None = None,
    positions: Tensor | None = None,
    weights: Tensor | None = None,
    rules: Iterable[str] = MAMBALRP,
) -> OracleResult:
    """Relevance by an explicit backward recursion, block by block and token by token.

    `positions` (B,) defaults to the rightmost attended token; `weights` (B, V) to the predicted logit. `eps` is the
    epsilon of all RMSNorms, `norm_groups` the number of groups of the gated one.
    """
    rules = check_rules(rules)
    inputs = prepare_inputs(state, input_ids, inputs_embeds, attention_mask, positions)
    blocks = _blocks(inputs, head_dim, n_groups, norm_groups, time_step_limit)
    return explicit_recursion(inputs, blocks, _forward_block, _backward_block, eps=eps, weights=weights, rules=rules)


# ---------------------------------------------------------------------------------------------------------------------
# 2. One dense matrix per block
# ---------------------------------------------------------------------------------------------------------------------


def mamba2_hidden_attention(dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and decay, both (H, L, L), of one row; dt (L, H), A (H,), B and C (L, H, N).

    decay_ij = exp(A sum_{k=j+1..i} dt_k), alpha_ij = (C_i . B_j) decay_ij dt_j, zero above the diagonal.
    """
    L, H = dt.shape
    decay = torch.zeros(H, L, L, dtype=torch.float64)
    for i in range(L):
        for j in range(i + 1):
            decay[:, i, j] = torch.exp(A * dt[j + 1 : i + 1].sum(0))
    return torch.einsum("ihn,jhn,hij,jh->hij", C, B, decay, dt), decay


def _scan_matrices(p: _Block, xBC: Tensor, dt_low: Tensor, rules: frozenset[str]) -> tuple[Tensor, Tensor, Tensor]:
    """y (L, E) of one row and what takes xBC (L, W) and dt_low (L, H) to it, (L E, L W) and (L E, L H).

    Under the "ssm" rule alpha + D for x and zero for B, C and dt, else the Jacobian.
    """
    L, H, P, G, N = len(xBC), p.H, p.P, p.G, p.N
    x, B, C = xBC.split([H * P, G * N, G * N], dim=-1)
    x = x.reshape(L, H, P)
    B, C = B.reshape(L, G, N)[:, p.group_of_head], C.reshape(L, G, N)[:, p.group_of_head]
    v = dt_low + p.dt_bias
    dt = F.softplus(v).clamp(*p.time_step_limit)
    alpha, decay = mamba2_hidden_attention(dt, p.A, B, C)
    y = torch.einsum("hij,jhp->ihp", alpha, x) + p.D[:, None] * x

    tokens, heads, channels = (torch.eye(n, dtype=torch.float64) for n in (L, H, P))
    by_x = torch.einsum("hij,hg,pq->ihpjgq", alpha, heads, channels)
    by_x = by_x + torch.einsum("ij,h,hg,pq->ihpjgq", tokens, p.D, heads, channels)
    by_B = by_C = torch.zeros(L, H, P, L, G, N, dtype=torch.float64)
    by_dt = torch.zeros(L, H, P, L, H, dtype=torch.float64)
    if "ssm" not in rules:
        # y_i = sum_j (C_i . B_j) decay_ij dt_j x_j; each factor in turn as an input.
        member = F.one_hot(p.group_of_head, G).double()  # (H, G)
        by_B = torch.einsum("ihn,hij,jh,jhp,hg->ihpjgn", C, decay, dt, x, member)
        by_C = torch.einsum("jhn,hij,jh,jhp,hg,ik->ihpkgn", B, decay, dt, x, member, tokens)
        step = torch.einsum("ihn,khn,hik,khp->ihpk", C, B, decay, x)  # dt_k as the step of token k
        for i in range(L):
            for k in range(i + 1):  # dt_k inside decay_ij of all j < k <= i
                step[i, :, :, k] += torch.einsum("hj,jhp,h->hp", alpha[:, i, :k], x[:k], p.A)
        slope = _clamp_slope(F.softplus(v), p.time_step_limit) * softplus_slope(v)
        by_dt = torch.einsum("ihpk,kh,hg->ihpkg", step, slope, heads)
    by_xBC = torch.cat([J.reshape(L * H * P, L, -1) for J in (by_x, by_B, by_C)], dim=-1)
    return y.reshape(L, -1), by_xBC.reshape(L * H * P, -1), by_dt.reshape(L * H * P, L * H)


def _dense_block(p: _Block, h: Tensor, mask: Tensor, eps: float, rules: frozenset[str]) -> DenseBlock:
    """One row's block as a matrix, token-major: index t D + d.

    M = I + W_out Norm_p g (diag(silu z) (S diag(m slope_c) T W_xBC + S_dt W_dt) + diag(y slope_z) W_z) m Norm, with S
    and S_dt the scan's matrices, T the conv's, slope = sigmoid under the "silu" rule, g = 1/2 under "gate", else 1.
    """
    L, D = h.shape
    E, W = p.H * p.P, len(p.conv)
    eye = torch.eye(L, dtype=torch.float64)
    norm = norm_matrix(h, p.norm, eps, rules)
    u = p.norm * h / (h.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    W_z, W_xBC, W_dt = (torch.kron(eye, part) for part in p.in_proj.split([E, W, p.H]))
    b_z, b_xBC, b_dt = (part.repeat(L) for part in p.in_proj_bias.split([E, W, p.H]))
    W_out, b_c, b_out = torch.kron(eye, p.out_proj), p.conv_bias.repeat(L), p.out_proj_bias.repeat(L)
    T = conv_matrix(p.conv, L)
    masked, mask_c = torch.diag(mask.repeat_interleave(D)), mask.repeat_interleave(W)

    u_masked = masked @ u.reshape(-1)
    z, dt_low = W_z @ u_masked + b_z, W_dt @ u_masked + b_dt
    c = T @ (W_xBC @ u_masked + b_xBC) + b_c
    y, S, S_dt = _scan_matrices(p, (mask_c * silu(c)).reshape(L, W), dt_low.reshape(L, p.H), rules)
    y = y.reshape(-1)
    product = (y * silu(z)).reshape(L * p.norm_groups, -1)
    gated_norm = p.gated_norm.reshape(p.norm_groups, -1).repeat(L, 1)
    o = gated_norm * product / (product.pow(2).mean(-1, keepdim=True) + eps).sqrt()

    share = 0.5 if "gate" in rules else 1.0
    p_to_out = share * W_out @ norm_matrix(product, gated_norm, eps, rules)
    y_to_out = p_to_out @ torch.diag(silu(z))
    z_to_out = p_to_out @ torch.diag(y * silu_slope(z, rules))
    c_to_out = y_to_out @ S @ torch.diag(mask_c * silu_slope(c, rules))
    dt_to_out = y_to_out @ S_dt
    M = torch.eye(L * D, dtype=torch.float64)
    M = M + (c_to_out @ T @ W_xBC + dt_to_out @ W_dt + z_to_out @ W_z) @ masked @ norm
    offsets = {
        "in_proj.bias": c_to_out @ T @ b_xBC + dt_to_out @ b_dt + z_to_out @ b_z,
        "conv1d.bias": c_to_out @ b_c,
        "out_proj.bias": b_out,
    }
    return DenseBlock(M, offsets, h + (W_out @ o.reshape(-1) + b_out).reshape(L, D))


def mamba2_dense(
    state: State,
    *,
    eps: float,
    head_dim: int,
    n_groups: int,
    norm_groups: int,
    time_step_limit: tuple[float, float] = (0.0, math.inf),
    input_ids: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    attention_mask: Tensor | None = None,
    positions: Tensor | None = None,
    weights: Tensor | None = None,
    rules: Iterable[str] = MAMBALRP,
) -> OracleResult:
    """Relevance by multiplying dense matrices, row by row (`dense_product`); for L * E of some tens."""
    rules = check_rules(rules)
    inputs = prepare_inputs(state, input_ids, inputs_embeds, attention_mask, positions)
    blocks = _blocks(inputs, head_dim, n_groups, norm_groups, time_step_limit)
    return dense_product(inputs, blocks, _dense_block, eps=eps, weights=weights, rules=rules)


# ---------------------------------------------------------------------------------------------------------------------
# The oracle of a model's family
# ---------------------------------------------------------------------------------------------------------------------


def mamba2_options(model: torch.nn.Module) -> dict[str, Any]:
    """What the Mamba-2 oracles need to know of a Hugging Face Mamba-2 besides its weights."""
    config: Any = model.config
    norm = model.get_submodule("backbone.layers.0.mixer.norm")
    width = config.num_heads * config.head_dim
    return {
        "eps": config.layer_norm_epsilon,
        "head_dim": config.head_dim,
        "n_groups": config.n_groups,
        "norm_groups": width // getattr(norm, "group_size", width),  # older releases: one group
        "time_step_limit": tuple(config.time_step_limit),
    }


def oracle_of(model: torch.nn.Module, **options: Any) -> OracleResult:
    """The explicit oracle of a Mamba, Falcon-Mamba or Mamba-2 with a language-modelling or classification head.

    `options` are the keyword arguments of `mambalrp_explicit` but for the epsilons, which are read from the model:
    input_ids or inputs_embeds, attention_mask, positions, weights, rules.
    """
    config: Any = model.config
    state = model.state_dict()
    if config.model_type == "mamba":
        return mambalrp_explicit(state, eps=config.layer_norm_epsilon, **options)
    if config.model_type == "falcon_mamba":
        eps, parameter_eps = config.layer_norm_epsilon, config.mixer_rms_eps
        return mambalrp_explicit(state, eps=eps, parameter_eps=parameter_eps, **options)
    if config.model_type == "mamba2":
        return mamba2_explicit(state, **mamba2_options(model), **options)
    raise ValueError(f"no oracle for model_type {config.model_type!r}; there is one for mamba, falcon_mamba and mamba2")
