"""The mixer of gated delta nets (Yang et al. 2025), and Kimi Delta Attention (Kimi Team 2025), under the rules.

What is carried is explained and what selects is constant, as in MambaLRP's rule for state-space models: values go
through convolution, SiLU, scan, norm and gate, while queries, keys, decay and beta are constants under the SSM rule.
The scan is then linear in the values, so the relevance of its output is that of the values, and nothing is lost:
sum_t o_t . do_t = sum_t v_t . dv_t, dv the transposed scan of do (:func:`hf_mambalrp.ops.delta_scan.delta_scan`). For
delta nets this rule is this project's own derivation: no LRP of them was found published. Were the halves of bilinear
products taken instead, shares would depend on the bracketing of v k^T q.

Glossary: B batch, L length, D hidden, H heads of values, P their width, G heads of queries and keys, N their width,
R = H / G, K width of the convolution.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp.attention import DeltaMixing
from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts.convolution import convolution, convolved
from hf_mambalrp.families.parts.delta_signals import Signals, projected
from hf_mambalrp.families.parts.reading import masked, named, reads, wide, with_silu
from hf_mambalrp.ops.delta_scan import delta_scan
from hf_mambalrp.ops.delta_scan.chunked import CHUNK
from hf_mambalrp.ops.delta_scan.dispatch import BACKENDS
from hf_mambalrp.ops.norm import norm
from hf_mambalrp.rules import LRP_LN, Rules
from hf_mambalrp.rules.adapters import effective, innermost
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.gate import gate, sigmoid_gate
from hf_mambalrp.rules.linear import linear, linear_without_bias
from hf_mambalrp.rules.norm import l2_norm
from hf_mambalrp.rules.offload import loaded

L2_EPS = 1e-6
"""Of the L2 norm of queries and keys, in every release of transformers."""


class DeltaState(NamedTuple):
    """What the mixer hands from one chunk of positions to the next."""

    conv_qk: Tensor
    """(B, K - 1, 2 G N) inputs of the convolution before the chunk, of queries and keys."""
    conv_v: Tensor
    """(B, K - 1, H P) the same of values: content."""
    scan: Tensor
    """(B, H, P, N) state of the scan before the chunk."""


class DeltaNet:
    """out(norm(o) f(z)), o the gated delta rule of v, and of q and k that are normed to length 1, q times N^-1/2.

    Projections are those of Qwen3-Next (``in_proj_qkvz`` and ``in_proj_ba``, by heads of keys), of Qwen3.5
    (``in_proj_qkv``, ``in_proj_z``, ``in_proj_b``, ``in_proj_a``), or one each (``q_proj``, ``k_proj``, ``v_proj``,
    ``b_proj``): then the gate is ``g_proj`` or ``g_b_proj``(``g_a_proj``), and the decay ``a_proj``, or of every
    channel ``forget_gate``: a = exp(-exp(``A_log``) softplus(. + ``dt_bias``)), or, where it is a ``safe_gate``,
    exp(``lower_bound`` sigmoid(exp(``A_log``) (. + ``dt_bias``))). ``conv1d`` is over q, k and v; beta is doubled where
    ``allow_neg_eigval``. The norm of every head, ``norm`` or ``o_norm``, says f: SiLU, with the half rule, or the
    sigmoid, which is constant. Padding is masked before the projections alone, as in transformers.
    """

    kind = mixes = "delta"
    backends = tuple(BACKENDS)
    causal, appends, recordable = True, False, True

    def __init__(self, module: Any) -> None:
        self.module = m = with_silu(reads(module, "conv1d"))
        self.norm, self.out = effective(named(m, "norm", "o_norm")), named(m, "out_proj", "o_proj")
        self.decay = reads(getattr(m, "forget_gate", m), "A_log", "dt_bias")
        self.sigmoid = getattr(self.norm, "activation", "silu") == "sigmoid"

    def _sizes(self) -> tuple[int, int, int, int]:
        """H, P, G and N, off the shapes of the weights, which offloaded modules keep, and the width of keys."""
        m, width = self.module, int(self.norm.weight.shape[0])
        inner, N = int(innermost(self.out).in_features), int(named(m, "head_k_dim", "head_dim"))
        return inner // width, width, (int(m.conv1d.weight.shape[0]) - inner) // (2 * N), N

    def state(self, batch: int, like: Tensor) -> DeltaState:
        """Zeros."""
        heads, width, groups, N = self._sizes()
        before = self.module.conv1d.weight.shape[-1] - 1
        return DeltaState(
            like.new_zeros(batch, before, 2 * groups * N),
            like.new_zeros(batch, before, heads * width),
            like.new_zeros(batch, heads, width, N),
        )

    def kept(self, rules: Rules) -> int:
        """Under the SSM rule three tensors of H P, the sigmoid after the convolution and two factors of the gate,
        q, k, decay and beta, and two matrices of every chunk; without it also what their gradients need.
        """
        heads, width, groups, N = self._sizes()
        inner, constants = heads * width, 2 * groups * N + heads + int(self.decay.dt_bias.numel())
        squares = 2 * CHUNK * heads
        return 3 * inner + constants + squares if rules.ssm else 10 * inner + 6 * (constants + squares + heads * N)

    def __call__(self, x: Tensor, state: DeltaState, step: Step) -> tuple[Tensor, DeltaState]:
        """Mix the normed stream over positions."""
        rules, (heads, width, groups, N) = step.rules, self._sizes()
        signals = self._signals(masked(x, step.mask), step)
        unmasked, keys = step._replace(mask=None), 2 * groups * N
        v, conv_v = convolved(
            self.module.conv1d, signals.v, state.conv_v, unmasked, slice(keys, None)
        )  # LRP-0, identity
        with torch.set_grad_enabled(torch.is_grad_enabled() and not rules.ssm):  # constants
            qk, conv_qk = convolved(self.module.conv1d, signals.qk, state.conv_qk, unmasked, slice(keys))
            constants = self._selects(qk, signals, rules)
        o, scan = delta_scan(v.unflatten(-1, (heads, width)), *constants, state.scan, backend=step.backend)
        with loaded(self.norm):
            weight = constant(self.norm.weight, wide(o.dtype))
        o = norm(o, weight, self.norm.variance_epsilon, step.dtype, rules=rules, backend=step.backend).flatten(2)
        p = sigmoid_gate(o, signals.z, rules) if self.sigmoid else gate(o, signals.z, rules)
        return linear(self.out, p, step.ledger, rules.gamma_of("linear")), DeltaState(conv_qk, conv_v, scan)

    def mixing(self, x: Tensor, step: Step) -> DeltaMixing:
        """The mixer as a linear map of the convolution's input, everything that multiplies it constant."""
        heads, width, groups, N = self._sizes()
        keys = 2 * groups * N
        with torch.no_grad():
            signals = self._signals(masked(x, step.mask), step)
            conv1d, unmasked = self.module.conv1d, step._replace(mask=None)
            qk = convolution(conv1d, signals.qk, unmasked, slice(keys)).u
            q, k, log_decay, beta = self._selects(qk, signals, LRP_LN)
            v, c, u, taps, bias = convolution(conv1d, signals.v, unmasked, slice(keys, None))
            o, _ = delta_scan(u.unflatten(-1, (heads, width)), q, k, log_decay, beta)
            with loaded(self.norm):
                weight = constant(self.norm.weight, o.dtype)
            scale = torch.rsqrt(o.pow(2).mean(-1, keepdim=True) + self.norm.variance_epsilon) * weight
            scale = scale.flatten(2) * (torch.sigmoid(signals.z) if self.sigmoid else F.silu(signals.z))
        out, D = linear_without_bias(self.out), torch.zeros_like(bias)
        return DeltaMixing(v, c, u, D, taps, bias, scale, out, q, k, log_decay, beta)

    def _signals(self, x: Tensor, step: Step) -> Signals:
        heads, width, groups, N = self._sizes()
        return projected(self.module, self.decay, (heads * width, groups, N), x, step)

    def _selects(self, qk: Tensor, signals: Signals, rules: Rules) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q and k (B, L, G, N), the log decay (B, L, H), or (B, L, H, N) of every channel, and beta (B, L, H)."""
        heads, _, groups, N = self._sizes()
        dtype = wide(qk.dtype)
        q, k = (l2_norm(x, L2_EPS, rules) for x in qk.to(dtype).unflatten(-1, (2, groups, N)).unbind(2))
        beta = torch.sigmoid(signals.beta.to(dtype))
        beta = 2 * beta if getattr(self.module, "allow_neg_eigval", False) else beta
        with loaded(self.decay):
            bias, rate = constant(self.decay.dt_bias, dtype), torch.exp(constant(self.decay.A_log, dtype)).flatten()
        before = (signals.decay.to(dtype) + bias).unflatten(-1, (heads, -1))
        if getattr(self.decay, "safe_gate", False):
            log_decay = self.decay.lower_bound * torch.sigmoid(rate[:, None] * before)
        else:
            log_decay = -rate[:, None] * F.softplus(before)
        by_head = log_decay.squeeze(-1) if len(bias) == heads else log_decay
        return (N**-0.5 * q).to(qk.dtype), k.to(qk.dtype), by_head, beta
