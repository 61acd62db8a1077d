"""Slow float64 oracles for MambaLRP on Mamba-1 and Falcon-Mamba, written from the paper and from Hugging Face's weight
names only. Mamba-2 is in `oracles_mamba2.py`, with `oracle_of(model)`, which picks the oracle of a model's family.

Nothing here imports the package. There are three derivations, compared with each other in `test_oracles.py`:

- `mambalrp_explicit`: every layer's backward rule written out by hand, loops over tokens, no autograd;
- `mambalrp_dense`: every block as one dense (L D, L D) matrix and an offset, multiplied together (small sizes only);
- `hf_gradient_x_input`: torch autograd through Hugging Face's own model in float64, without rules.

Glossary: B rows, L tokens, D hidden, E inner channels, N state, R dt rank, K conv width, V logits.
The forward of one block, tokens t, channels e, states n, with mask m_t in {0, 1} (Hugging Face, transformers >= 5.15):

    u   = w * h * r,  r = rsqrt(mean_d h^2 + eps)             RMSNorm
    x0, z = split(W_in (m u) + b_in)                          in_proj
    c_t = sum_k W_conv[k] x0_{t - (K-1) + k} + b_conv         depthwise causal conv
    x   = m silu(c)
    dt, B, C = softplus(W_dt W_x[:R] x + b_dt), W_x[R:R+N] x, W_x[R+N:] x
    s_t = exp(dt_t A) s_{t-1} + dt_t B_t x_t,  A = -exp(A_log)
    y_t = sum_n C_t s_t + D x_t
    o   = y silu(z)                                           gate
    h'  = h + W_out o + b_out                                 residual stream

Falcon-Mamba is the same but for parameter-free RMSNorms, v * rsqrt(mean v^2 + parameter_eps), on the three parts of
W_x x (dt before W_dt, B and C). Then logits = W_head (w_f h r_f) + b_head at one position per row. `G` below is always
the modified gradient, i.e. what the rewritten network's backward carries: d(score)/d(that value). Relevance of a value
is value * G.

Which rules apply is a set: "norm" (normaliser constant), "silu" (SiLU(x) = x * const), "ssm" (exp(dt A), dt B and C
constant), "gate" (half of the relevance to y, half to silu(z)). All four are MambaLRP, none is gradient x input, only
"norm" is the LRP (LN-rule) baseline. Everything else is linear and needs no rule (LRP-0). Falcon-Mamba's norms on dt, B
and C are inside what "ssm" holds constant; where a gradient flows through them, "norm" applies to them too.

The rules' constants do not depend on the target, so relevance is linear in `weights`: a score that sums logits of
several positions is explained by the sum of the results of one call per position.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

State = Mapping[str, Tensor]
"""A Hugging Face state dict; any dtype, used in float64."""

MAMBALRP = frozenset({"norm", "silu", "ssm", "gate"})
LRP_LN = frozenset({"norm"})
GRADIENT_X_INPUT: frozenset[str] = frozenset()

CONTENT_BIASES = ("in_proj.bias", "conv1d.bias", "out_proj.bias")
"""Additive biases on a block's content path. dt_proj.bias is not: it sits inside what the "ssm" rule holds constant."""


@dataclass(frozen=True)
class OracleResult:
    """What an oracle returns, all float64.

    With all four rules `relevance.sum(-1) + biases == score`, and `layer_relevance[i].sum(-1) +
    bias_by_layer[i:].sum(0) == score` for every i.
    """

    logits: Tensor  # (B, V) at `positions`
    score: Tensor  # (B,) sum_v weights_v logit_v
    relevance: Tensor  # (B, L) sum_d embedding * G; equal to layer_relevance[0]
    layer_relevance: Tensor  # (num_layers + 1, B, L): 0 = embeddings, i = residual stream after i blocks, before norm_f
    biases: Tensor  # (B,) what all additive biases on the content path absorbed
    bias_by_layer: Tensor  # (num_layers + 1, B): row i = biases inside block i (from 0), last row = the head's bias
    bias_by_name: dict[str, Tensor]  # the same, (B,) per parameter name
    layer_terms: Tensor  # (num_layers + 1, B, L) sum_d |stream * G|: rounding is relative to this, however much cancels


# ---------------------------------------------------------------------------------------------------------------------
# Inputs shared by the oracles
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    state: dict[str, Tensor]
    embeddings: Tensor  # (B, L, D)
    mask: Tensor  # (B, L) of 0.0 and 1.0
    positions: Tensor  # (B,)
    num_layers: int
    head: Tensor  # (V, D)
    head_bias: Tensor  # (V,), zeros where the head has none
    head_name: str


@dataclass(frozen=True)
class _Block:
    """One block's parameters; absent biases are zero."""

    norm: Tensor  # (D,)
    in_proj: Tensor  # (2 E, D), rows x0 then z
    in_proj_bias: Tensor  # (2 E,)
    conv: Tensor  # (E, K), last tap = current token
    conv_bias: Tensor  # (E,)
    x_proj: Tensor  # (R + 2 N, E), rows dt, B, C
    dt_proj: Tensor  # (E, R)
    dt_bias: Tensor  # (E,)
    A: Tensor  # (E, N), negative
    D: Tensor  # (E,)
    out_proj: Tensor  # (D, E)
    out_proj_bias: Tensor  # (D,)
    parameter_eps: float | None  # Falcon-Mamba's norms on dt, B and C; None is Mamba-1


def last_attended(attention_mask: Tensor) -> Tensor:
    """Position of the rightmost attended token, (B, L) -> (B,)."""
    return (torch.arange(attention_mask.shape[1]) * (attention_mask != 0)).argmax(-1)


def logit_weights(targets: Iterable[int], num_logits: int, contrasts: Iterable[int] | None = None) -> Tensor:
    """Weights (B, V) of the score logit(target) - logit(contrast)."""
    weights = F.one_hot(torch.tensor(list(targets)), num_logits).double()
    if contrasts is not None:
        weights = weights - F.one_hot(torch.tensor(list(contrasts)), num_logits).double()
    return weights


def predicted(logits: Tensor) -> Tensor:
    """Weights (B, V) of the largest logit."""
    return logit_weights(logits.argmax(-1).tolist(), logits.shape[1])


def prepare_inputs(
    state: State,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    attention_mask: Tensor | None,
    positions: Tensor | None,
) -> Inputs:
    double = {name: tensor.detach().to("cpu", torch.float64) for name, tensor in state.items()}
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("pass exactly one of input_ids and inputs_embeds")
    embedding = double["backbone.embeddings.weight"]
    embeddings = embedding[input_ids.cpu()] if input_ids is not None else inputs_embeds.detach().cpu().double()
    mask = torch.ones(embeddings.shape[:2]) if attention_mask is None else (attention_mask.cpu() != 0)
    head_name = next((name for name in ("score", "lm_head") if f"{name}.weight" in double), "lm_head")
    head = double.get(f"{head_name}.weight", embedding)  # tied weights may be left out of a state dict
    return Inputs(
        state=double,
        embeddings=embeddings,
        mask=mask.double(),
        positions=last_attended(mask) if positions is None else positions.cpu(),
        num_layers=1 + max(int(name.split(".")[2]) for name in double if name.startswith("backbone.layers.")),
        head=head,
        head_bias=double.get(f"{head_name}.bias", head.new_zeros(head.shape[0])),
        head_name=head_name,
    )


def block_parameters(inputs: Inputs, index: int) -> dict[str, Tensor]:
    """One block's parameters by their names inside the block, zeros for a bias that the model does not have."""
    prefix = f"backbone.layers.{index}."
    p = {name.removeprefix(prefix): value for name, value in inputs.state.items() if name.startswith(prefix)}
    for module in ("in_proj", "conv1d", "out_proj"):
        weight = p[f"mixer.{module}.weight"]
        p.setdefault(f"mixer.{module}.bias", weight.new_zeros(weight.shape[0]))
    return p


def _blocks(inputs: Inputs, parameter_eps: float | None) -> list[_Block]:
    return [_block(block_parameters(inputs, i), parameter_eps) for i in range(inputs.num_layers)]


def _block(p: Mapping[str, Tensor], parameter_eps: float | None) -> _Block:
    return _Block(
        norm=p["norm.weight"],
        in_proj=p["mixer.in_proj.weight"],
        in_proj_bias=p["mixer.in_proj.bias"],
        conv=p["mixer.conv1d.weight"][:, 0, :],
        conv_bias=p["mixer.conv1d.bias"],
        x_proj=p["mixer.x_proj.weight"],
        dt_proj=p["mixer.dt_proj.weight"],
        dt_bias=p["mixer.dt_proj.bias"],
        A=-torch.exp(p["mixer.A_log"]),
        D=p["mixer.D"],
        out_proj=p["mixer.out_proj.weight"],
        out_proj_bias=p["mixer.out_proj.bias"],
        parameter_eps=parameter_eps,
    )


def check_rules(rules: Iterable[str]) -> frozenset[str]:
    chosen = frozenset(rules)
    if not chosen <= MAMBALRP:
        raise ValueError(f"unknown rules {sorted(chosen - MAMBALRP)}; known: {sorted(MAMBALRP)}")
    return chosen


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def silu_slope(x: Tensor, rules: frozenset[str]) -> Tensor:
    """With the rule silu(x) / x = sigmoid(x), else silu'(x) = sigmoid(x) (1 + x (1 - sigmoid(x)))."""
    sigma = torch.sigmoid(x)
    return sigma if "silu" in rules else sigma * (1 + x * (1 - sigma))


def softplus_slope(v: Tensor) -> Tensor:
    """Derivative of torch's softplus, which is the identity above 20."""
    return torch.where(v > 20, torch.ones_like(v), torch.sigmoid(v))


def rsqrt_mean_square(h: Tensor, eps: float) -> Tensor:
    return torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + eps)


def backward_norm(h: Tensor, r: Tensor, weight: Tensor, G: Tensor, rules: frozenset[str]) -> Tensor:
    """G of h from G of w h r, r = rsqrt_mean_square(h): with the rule G w r, else r (G w) - h r^3 mean_d(h G w)."""
    Gw = G * weight
    return Gw * r if "norm" in rules else Gw * r - h * r**3 * (h * Gw).mean(-1, keepdim=True)


def causal_conv(conv: Tensor, x: Tensor) -> Tensor:
    """c_t = sum_k conv[:, k] x_{t - (K-1) + k} for conv (E, K) and x (B, L, E)."""
    L, K = x.shape[1], conv.shape[1]
    c = torch.zeros_like(x)
    for k in range(max(0, K - L), K):
        delay = K - 1 - k
        c[:, delay:] += conv[:, k] * x[:, : L - delay]
    return c


def backward_conv(conv: Tensor, G_c: Tensor) -> Tensor:
    """G of the convolution's input (B, L, E) from G of its output."""
    L, K = G_c.shape[1], conv.shape[1]
    G_x = torch.zeros_like(G_c)
    for k in range(max(0, K - L), K):
        delay = K - 1 - k
        G_x[:, : L - delay] += conv[:, k] * G_c[:, delay:]
    return G_x


def make_result(
    inputs: Inputs, logits: Tensor, score: Tensor, layer_terms: list[Tensor], bias_by_name: dict[str, Tensor]
) -> OracleResult:
    """`layer_terms`, (B, L, D) at the embedding and after each block, are stream * G: relevance is their sum over D."""
    by_layer = torch.zeros(inputs.num_layers + 1, len(score), dtype=torch.float64)
    for name, absorbed in bias_by_name.items():
        parts = name.split(".")
        by_layer[int(parts[2]) if parts[1] == "layers" else inputs.num_layers] += absorbed
    terms = torch.stack(layer_terms)
    return OracleResult(
        logits=logits,
        score=score,
        relevance=terms[0].sum(-1),
        layer_relevance=terms.sum(-1),
        biases=by_layer.sum(0),
        bias_by_layer=by_layer,
        bias_by_name=bias_by_name,
        layer_terms=terms.abs().sum(-1),
    )


# ---------------------------------------------------------------------------------------------------------------------
# 1. The explicit backward recursion
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trace:
    """What a block's forward leaves for its backward."""

    h: Tensor  # (B, L, D) input of the block
    r: Tensor  # (B, L, 1) normaliser
    z: Tensor  # (B, L, E) gate, before silu
    c: Tensor  # (B, L, E) after the conv, before silu
    x: Tensor  # (B, L, E) input of the scan
    projected: tuple[Tensor, ...]  # W_x x: (B, L, R), (B, L, N), (B, L, N), before Falcon-Mamba's norms
    v: Tensor  # (B, L, E) dt before softplus
    dt: Tensor  # (B, L, E)
    B: Tensor  # (B, L, N)
    C: Tensor  # (B, L, N)
    states: Tensor  # (B, L, E, N) s_t
    y: Tensor  # (B, L, E) scan output with the D skip


def _forward_block(p: _Block, h: Tensor, mask: Tensor, eps: float) -> tuple[Tensor, _Trace]:
    m = mask[:, :, None]
    rows, L, E, N, R = h.shape[0], h.shape[1], p.A.shape[0], p.A.shape[1], p.dt_proj.shape[1]
    r = rsqrt_mean_square(h, eps)
    x0, z = ((h * r * p.norm * m) @ p.in_proj.T + p.in_proj_bias).split(E, dim=-1)

    c = causal_conv(p.conv, x0) + p.conv_bias
    x = m * silu(c)

    projected = (x @ p.x_proj.T).split([R, N, N], dim=-1)
    dt_low, B, C = (
        projected if p.parameter_eps is None else (v * rsqrt_mean_square(v, p.parameter_eps) for v in projected)
    )
    v = dt_low @ p.dt_proj.T + p.dt_bias
    dt = F.softplus(v)

    decay, inputs = torch.exp(dt[..., None] * p.A), (dt * x)[..., None] * B[:, :, None, :]
    states, s = torch.empty_like(decay), torch.zeros(rows, E, N, dtype=torch.float64)
    for t in range(L):
        s = states[:, t] = decay[:, t] * s + inputs[:, t]
    y = (states * C[:, :, None, :]).sum(-1) + p.D * x
    trace = _Trace(h, r, z, c, x, projected, v, dt, B, C, states, y)
    return h + (trace.y * silu(z)) @ p.out_proj.T + p.out_proj_bias, trace


def _backward_scan(p: _Block, trace: _Trace, G_y: Tensor, rules: frozenset[str]) -> Tensor:
    """G of the scan's input x from G of its output y, both (B, L, E).

    With q_t = G of s_t:  q_t = C_t G_y_t + exp(dt_{t+1} A) q_{t+1},  G_x_t = sum_n dt_t B_t q_t + D G_y_t.
    Without the "ssm" rule also what flows back through C_t, B_t and dt_t:
        G_C_t = sum_e s_t G_y_t,   G_B_t = sum_e dt_t x_t q_t,
        G_dt_t = sum_n q_t (A exp(dt_t A) s_{t-1} + B_t x_t).
    """
    decay, q = torch.exp(trace.dt[..., None] * p.A), trace.C[:, :, None, :] * G_y[..., None]
    for t in reversed(range(G_y.shape[1] - 1)):
        q[:, t] += decay[:, t + 1] * q[:, t + 1]
    Bq = (trace.B[:, :, None, :] * q).sum(-1)
    G_x = trace.dt * Bq + p.D * G_y
    if "ssm" not in rules:
        before = torch.cat([torch.zeros_like(q[:, :1]), trace.states[:, :-1]], dim=1)
        G_C = (trace.states * G_y[..., None]).sum(2)
        G_B = ((trace.dt * trace.x)[..., None] * q).sum(2)
        G_dt = (q * p.A * decay * before).sum(-1) + trace.x * Bq
        G_projected: tuple[Tensor, ...] = ((G_dt * softplus_slope(trace.v)) @ p.dt_proj, G_B, G_C)
        if p.parameter_eps is not None:
            G_projected = tuple(
                backward_norm(v, rsqrt_mean_square(v, p.parameter_eps), torch.ones(1), G, rules)
                for v, G in zip(trace.projected, G_projected, strict=True)
            )
        G_x = G_x + torch.cat(G_projected, dim=-1) @ p.x_proj
    return G_x


def _backward_block(
    p: _Block, trace: _Trace, mask: Tensor, G: Tensor, rules: frozenset[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """G of the block's input from G of its output, and what each bias absorbed: sum_{t, unit} b * G there."""
    m = mask[:, :, None]
    G_o = G @ p.out_proj
    share = 0.5 if "gate" in rules else 1.0
    G_y = share * G_o * silu(trace.z)
    G_z = share * G_o * trace.y * silu_slope(trace.z, rules)
    G_c = m * _backward_scan(p, trace, G_y, rules) * silu_slope(trace.c, rules)
    G_in = torch.cat([backward_conv(p.conv, G_c), G_z], dim=-1)
    G_h = G + backward_norm(trace.h, trace.r, p.norm, m * (G_in @ p.in_proj), rules)
    absorbed = {
        "in_proj.bias": (p.in_proj_bias * G_in).sum((1, 2)),
        "conv1d.bias": (p.conv_bias * G_c).sum((1, 2)),
        "out_proj.bias": (p.out_proj_bias * G).sum((1, 2)),
    }
    return G_h, absorbed


def explicit_recursion(
    inputs: Inputs,
    blocks: Sequence[Any],
    forward_block: Callable[..., tuple[Tensor, Any]],
    backward_block: Callable[..., tuple[Tensor, dict[str, Tensor]]],
    *,
    eps: float,
    weights: Tensor | None,
    rules: frozenset[str],
) -> OracleResult:
    """What the explicit oracles have in common: the blocks forward, the head, the blocks backward.

    `forward_block(p, h, mask, eps)` returns the block's output and a trace; `backward_block(p, trace, mask, G, rules)`
    returns G of the block's input and what each bias absorbed.
    """
    rows = torch.arange(len(inputs.positions))
    streams, traces = [inputs.embeddings], []
    for p in blocks:
        h, trace = forward_block(p, streams[-1], inputs.mask, eps)
        streams.append(h)
        traces.append(trace)
    norm_f = inputs.state["backbone.norm_f.weight"]
    last = streams[-1][rows, inputs.positions]  # (B, D)
    r_f = rsqrt_mean_square(last, eps)
    logits = (last * r_f * norm_f) @ inputs.head.T + inputs.head_bias
    weights = predicted(logits) if weights is None else weights.cpu().double()

    absorbed = {}
    if f"{inputs.head_name}.bias" in inputs.state:
        absorbed[f"{inputs.head_name}.bias"] = (weights * inputs.head_bias).sum(-1)
    G = torch.zeros_like(streams[-1])
    G[rows, inputs.positions] = backward_norm(last, r_f, norm_f, weights @ inputs.head, rules)
    layer_terms = [streams[-1] * G]
    for i in reversed(range(inputs.num_layers)):
        G, by_bias = backward_block(blocks[i], traces[i], inputs.mask, G, rules)
        layer_terms.insert(0, streams[i] * G)
        for name, value in by_bias.items():
            full = f"backbone.layers.{i}.mixer.{name}"
            if full in inputs.state:
                absorbed[full] = value
    return make_result(inputs, logits, (weights * logits).sum(-1), layer_terms, absorbed)


def mambalrp_explicit(
    state: State,
    *,
    eps: float,
    parameter_eps: float | None = None,
    input_ids: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    attention_mask: Tensor | None = None,
    positions: Tensor | None = None,
    weights: Tensor | None = None,
    rules: Iterable[str] = MAMBALRP,
) -> OracleResult:
    """Relevance by an explicit backward recursion, block by block and token by token.

    `positions` (B,) defaults to the rightmost attended token; `weights` (B, V) to the predicted logit. `eps` is the
    RMSNorms' epsilon, `parameter_eps` that of Falcon-Mamba's norms on dt, B and C (None: Mamba-1, which has none).
    8 layers, hidden 32, B = 2, L = 500 take a few seconds.
    """
    rules = check_rules(rules)
    inputs = prepare_inputs(state, input_ids, inputs_embeds, attention_mask, positions)
    blocks = _blocks(inputs, parameter_eps)
    return explicit_recursion(inputs, blocks, _forward_block, _backward_block, eps=eps, weights=weights, rules=rules)


# ---------------------------------------------------------------------------------------------------------------------
# 2. One dense matrix per block
# ---------------------------------------------------------------------------------------------------------------------


def hidden_attention(dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """alpha (E, L, L) and its factors P (L, L, E, N) for one row, dt (L, E), A (E, N), B and C (L, N).

    P_ij = prod_{k=j+1..i} exp(dt_k A), alpha_ij = sum_n C_i[n] P_ij[n] dt_j B_j[n], zero above the diagonal
    (Ali et al., The Hidden Attention of Mamba Models).
    """
    L, E = dt.shape
    P = torch.zeros(L, L, E, A.shape[1], dtype=torch.float64)
    for i in range(L):
        for j in range(i + 1):
            P[i, j] = torch.exp(A * dt[j + 1 : i + 1].sum(0)[:, None])
    alpha = torch.einsum("in,ijen,je,jn->eij", C, P, dt, B)
    return alpha, P


def _projected_with_jacobian(p: _Block, x: Tensor, rows: slice, rules: frozenset[str]) -> tuple[Tensor, Tensor]:
    """Some rows of W_x x with Falcon-Mamba's norm, (L, n) for x (L, E), and the Jacobian of each token's, (L, n, E)."""
    W = p.x_proj[rows]
    value = x @ W.T
    if p.parameter_eps is None:
        return value, W.expand(len(x), -1, -1)
    J = norm_jacobians(value, torch.ones_like(value), p.parameter_eps, rules) @ W
    return value / (value.pow(2).mean(-1, keepdim=True) + p.parameter_eps).sqrt(), J


def _scan_matrix(p: _Block, x: Tensor, rules: frozenset[str]) -> tuple[Tensor, Tensor]:
    """y (L, E) of one row and the (L E, L E) matrix that takes x to it: alpha + D, or without "ssm" the Jacobian."""
    L, E = x.shape
    N, R = p.A.shape[1], p.dt_proj.shape[1]
    dt_low, W_dt = _projected_with_jacobian(p, x, slice(0, R), rules)
    B, W_B = _projected_with_jacobian(p, x, slice(R, R + N), rules)
    C, W_C = _projected_with_jacobian(p, x, slice(R + N, None), rules)
    v = dt_low @ p.dt_proj.T + p.dt_bias
    dt = F.softplus(v)
    alpha, P = hidden_attention(dt, p.A, B, C)
    y = torch.einsum("eij,je->ie", alpha, x) + p.D * x
    channels, tokens = torch.eye(E, dtype=torch.float64), torch.eye(L, dtype=torch.float64)
    J = torch.einsum("eij,ef->iejf", alpha, channels) + torch.einsum("ij,e,ef->iejf", tokens, p.D, channels)
    if "ssm" not in rules:
        # y_i = sum_j C_i P_ij dt_j B_j x_j; each factor in turn as a function of x.
        by_B = torch.einsum("in,ijen,je,je,jnf->iejf", C, P, dt, x, W_B)
        by_C = torch.einsum("ijen,je,jn,je,inf,ik->iekf", P, dt, B, x, W_C, tokens)
        step = torch.einsum("in,iken,kn,ke->ike", C, P, B, x)  # dt_k as the step of token k
        for i in range(L):
            for k in range(i + 1):  # dt_k inside the decay P_ij of all j < k <= i
                step[i, k] += torch.einsum("n,jen,je,jn,je,en->e", C[i], P[i, :k], dt[:k], B[:k], x[:k], p.A)
        by_dt = torch.einsum("ike,ke,kef->iekf", step, softplus_slope(v), p.dt_proj @ W_dt)
        J = J + by_B + by_C + by_dt
    return y, J.reshape(L * E, L * E)


def conv_matrix(conv: Tensor, L: int) -> Tensor:
    """(L E, L E) matrix of the depthwise causal conv: T[t e, s e] = W_conv[e, K-1-(t-s)]."""
    E, K = conv.shape
    T = torch.zeros(L, E, L, E, dtype=torch.float64)
    for t in range(L):
        for s in range(max(0, t - K + 1), t + 1):
            for e in range(E):
                T[t, e, s, e] = conv[e, K - 1 - (t - s)]
    return T.reshape(L * E, L * E)


def norm_jacobians(h: Tensor, weight: Tensor, eps: float, rules: frozenset[str]) -> Tensor:
    """Matrices (L, D, D) of the RMSNorm of each h_t (D,): diag(w r), or its Jacobian diag(w) (r I - r^3 h h^T / D)."""
    blocks = []
    for token, w in zip(h, weight.expand(h.shape), strict=True):
        r = (token.pow(2).mean() + eps).rsqrt()
        J = r * torch.eye(len(token), dtype=torch.float64)
        if "norm" not in rules:
            J = J - r**3 * torch.outer(token, token) / len(token)
        blocks.append(w[:, None] * J)
    return torch.stack(blocks)


def norm_matrix(h: Tensor, weight: Tensor, eps: float, rules: frozenset[str]) -> Tensor:
    """(L D, L D) matrix of RMSNorm over h (L, D), weight (D,) or one row per h_t."""
    return torch.block_diag(*norm_jacobians(h, weight, eps, rules))


@dataclass(frozen=True)
class DenseBlock:
    """h' ~ M h + sum of the maps in `bias_maps` applied to the biases, exact with all four rules."""

    M: Tensor  # (L D, L D)
    offsets: dict[str, Tensor]  # name -> (L D,) what that bias adds to the output
    output: Tensor  # (L, D) the true forward


def _dense_block(p: _Block, h: Tensor, mask: Tensor, eps: float, rules: frozenset[str]) -> DenseBlock:
    """One row's block as a matrix, token-major: index t D + d.

    M = I + W_out g (diag(silu z) S diag(m slope_c) T W_x m Norm + diag(y slope_z) W_z m Norm), with S the scan's and T
    the conv's matrix, slope = sigmoid under the "silu" rule, g = 1/2 under the "gate" rule and 1 without.
    """
    L, D = h.shape
    E = p.A.shape[0]
    eye = torch.eye(L, dtype=torch.float64)
    norm = norm_matrix(h, p.norm, eps, rules)
    u = p.norm * h / (h.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    masked = torch.diag(mask.repeat_interleave(D))
    W_x, W_z, W_out = (torch.kron(eye, W) for W in (p.in_proj[:E], p.in_proj[E:], p.out_proj))
    b_x, b_z, b_c, b_out = (b.repeat(L) for b in (p.in_proj_bias[:E], p.in_proj_bias[E:], p.conv_bias, p.out_proj_bias))
    T = conv_matrix(p.conv, L)

    u_masked = masked @ u.reshape(-1)
    z = W_z @ u_masked + b_z
    c = T @ (W_x @ u_masked + b_x) + b_c
    y, S = _scan_matrix(p, (mask.repeat_interleave(E) * silu(c)).reshape(L, E), rules)
    y = y.reshape(-1)

    c_to_y = S @ torch.diag(mask.repeat_interleave(E) * silu_slope(c, rules))
    share = 0.5 if "gate" in rules else 1.0
    y_to_out = share * W_out @ torch.diag(silu(z))
    z_to_out = share * W_out @ torch.diag(y * silu_slope(z, rules))
    M = torch.eye(L * D, dtype=torch.float64)
    M = M + (y_to_out @ c_to_y @ T @ W_x + z_to_out @ W_z) @ masked @ norm
    offsets = {
        "in_proj.bias": y_to_out @ c_to_y @ T @ b_x + z_to_out @ b_z,
        "conv1d.bias": y_to_out @ c_to_y @ b_c,
        "out_proj.bias": b_out,
    }
    output = h + (W_out @ (y * silu(z)) + b_out).reshape(L, D)
    return DenseBlock(M, offsets, output)


def dense_product(
    inputs: Inputs,
    parameters: Sequence[Any],
    dense_block: Callable[..., DenseBlock],
    *,
    eps: float,
    weights: Tensor | None,
    rules: frozenset[str],
) -> OracleResult:
    """What the dense oracles have in common; `dense_block(p, h, mask, eps, rules)` is one row's block as a matrix.

    With head row q (L D,) and block matrices M_0 .. M_{n-1}, G_i = q M_{n-1} ... M_i and the relevance of the stream
    before block i is G_i * h_i. With all four rules it also checks that M_i h_i + offsets is the true forward.
    """
    num_rows, L, D = inputs.embeddings.shape
    norm_f = inputs.state["backbone.norm_f.weight"]
    logits, streams, chains = [], [], []
    for row in range(num_rows):
        h, stream, blocks = inputs.embeddings[row], [inputs.embeddings[row]], []
        for p in parameters:
            block = dense_block(p, h, inputs.mask[row], eps, rules)
            if rules == MAMBALRP:
                affine = block.M @ h.reshape(-1) + sum(block.offsets.values())
                torch.testing.assert_close(affine.reshape(L, D), block.output, rtol=1e-10, atol=1e-10)
            h = block.output
            stream.append(h)
            blocks.append(block)
        last = h[inputs.positions[row]]
        logits.append(inputs.head @ (norm_f * last / (last.pow(2).mean() + eps).sqrt()) + inputs.head_bias)
        streams.append(stream)
        chains.append(blocks)
    all_logits = torch.stack(logits)
    weights = predicted(all_logits) if weights is None else weights.cpu().double()

    layer_terms = torch.zeros(inputs.num_layers + 1, num_rows, L, D, dtype=torch.float64)
    absorbed: dict[str, Tensor] = {}
    if f"{inputs.head_name}.bias" in inputs.state:
        absorbed[f"{inputs.head_name}.bias"] = weights @ inputs.head_bias
    for row in range(num_rows):
        at = int(inputs.positions[row])
        q = torch.zeros(L, D, dtype=torch.float64)
        q[at] = weights[row] @ inputs.head @ norm_matrix(streams[row][-1][at : at + 1], norm_f, eps, rules)
        G = q.reshape(-1)
        layer_terms[-1, row] = G.reshape(L, D) * streams[row][-1]
        for i in reversed(range(inputs.num_layers)):
            for name, offset in chains[row][i].offsets.items():
                full = f"backbone.layers.{i}.mixer.{name}"
                if full in inputs.state:
                    absorbed.setdefault(full, torch.zeros(num_rows, dtype=torch.float64))[row] = G @ offset
            G = G @ chains[row][i].M
            layer_terms[i, row] = G.reshape(L, D) * streams[row][i]
    score = (weights * all_logits).sum(-1)
    return make_result(inputs, all_logits, score, list(layer_terms), absorbed)


def mambalrp_dense(
    state: State,
    *,
    eps: float,
    parameter_eps: float | None = None,
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
    return dense_product(inputs, _blocks(inputs, parameter_eps), _dense_block, eps=eps, weights=weights, rules=rules)


# ---------------------------------------------------------------------------------------------------------------------
# 3. Autograd through Hugging Face's own model
# ---------------------------------------------------------------------------------------------------------------------


class HFFloat64(TorchFunctionMode):
    """Context in which Hugging Face's explicit casts to float32 (norm, A, dt, residual, logits) go to float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        elif func is torch.Tensor.to:
            args = tuple(torch.float64 if arg is torch.float32 else arg for arg in args)
            kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))


def hf_gradient_x_input(
    model: torch.nn.Module,
    *,
    input_ids: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    attention_mask: Tensor | None = None,
    positions: Tensor | None = None,
    weights: Tensor | None = None,
) -> OracleResult:
    """Gradient x input by autograd through a float64 copy of a Hugging Face Mamba model with a head.

    The same fields as the other oracles, the layers from a forward hook on every block. Whatever hooks or patches the
    caller has put on the model take part, so rules can be added from outside.
    """
    model = copy.deepcopy(model).double().eval()
    inputs = prepare_inputs(model.state_dict(), input_ids, inputs_embeds, attention_mask, positions)
    streams = [inputs.embeddings.clone().requires_grad_(True)]
    for layer in model.backbone.layers:
        layer.register_forward_hook(lambda _m, _i, out: streams.append(out[0] if isinstance(out, tuple) else out))
    with HFFloat64():
        output = model(inputs_embeds=streams[0], attention_mask=attention_mask, use_cache=False)
    rows = torch.arange(len(inputs.positions))
    logits = output.logits[rows, inputs.positions] if output.logits.dim() == 3 else output.logits
    assert logits.dtype == torch.float64
    weights = predicted(logits) if weights is None else weights.cpu().double()
    score = (weights * logits).sum(-1)

    names = (*CONTENT_BIASES, "lm_head.bias", "score.bias")
    biases = {name: p for name, p in model.named_parameters() if name.endswith(names)}
    layer_terms = torch.zeros(inputs.num_layers + 1, *streams[0].shape, dtype=torch.float64)
    absorbed = {name: torch.zeros(len(rows), dtype=torch.float64) for name in biases}
    for row in rows.tolist():
        wanted = [*streams, *biases.values()]
        grads = torch.autograd.grad(score[row], wanted, retain_graph=True, materialize_grads=True)
        for i, stream in enumerate(streams):
            layer_terms[i, row] = (stream * grads[i])[row].detach()
        for (name, bias), grad in zip(biases.items(), grads[len(streams) :], strict=True):
            absorbed[name][row] = (bias * grad).sum().detach()
    return make_result(inputs, logits.detach(), score.detach(), list(layer_terms), absorbed)
