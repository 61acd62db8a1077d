"""Lightning attention (Qin et al. 2024), which is linear attention with a fixed decay, under the rules.

For every head S_t = exp(-s) S_{t-1} + v_t k_t^T and o_t = S_t q_t: Mamba-2's scan with dt = 1, A = -s, B = k and C = q.
What is carried, v, is explained and what selects, q and k, is constant under the SSM rule, so that o is linear in v:
o_i = sum_j [exp(-s (i - j)) q_i . k_j] v_j is homogeneous of degree 1 in the values, and with do the modified gradient
of o and dv = sum_i [.] do_i that of v, sum_i o_i . do_i = sum_j v_j . dv_j: nothing is lost. For linear attention this
rule is this project's own derivation. Were the halves of bilinear products taken instead, shares would depend on the
bracketing of (q k^T) v.

Glossary: B batch, L length, D hidden, H heads of P channels.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp.attention import SSDMixing
from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts.norm import RMSNorm
from hf_mambalrp.families.parts.reading import UnknownActivation, factor_of, masked, reads, wide
from hf_mambalrp.ops.ssd_scan import ssd_scan
from hf_mambalrp.ops.ssd_scan.dispatch import BACKENDS
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.activation import activation
from hf_mambalrp.rules.adapters import innermost
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.gate import sigmoid_gate
from hf_mambalrp.rules.linear import linear, linear_without_bias
from hf_mambalrp.rules.offload import loaded


class LightningState(NamedTuple):
    """What the part hands from one chunk of positions to the next."""

    scan: Tensor
    """(B, H, P, P) state of the scan before the chunk."""


class Lightning:
    """``out_proj``([sigmoid(``output_gate`` x)] ``norm``(o)), o linear attention of q, k and v, which are silu of
    ``qkv_proj`` x, of every head [q, k, v]; ``slope_rate`` (H, 1, 1) is s. Values are zero on padding.
    """

    kind = mixes = "linear"
    backends = tuple(BACKENDS)
    causal, appends, recordable = True, False, True

    def __init__(self, module: Any) -> None:
        self.module = m = reads(module, "qkv_proj", "output_gate", "norm", "out_proj", "slope_rate", "head_dim")
        if factor_of(m) is not torch.sigmoid:
            raise UnknownActivation(m, type(m.act_fn).__name__, ["silu"])
        self.norm, self.inner = RMSNorm(m.norm), int(innermost(m.out_proj).in_features)
        self.heads = self.inner // int(m.head_dim)

    def state(self, batch: int, like: Tensor) -> LightningState:
        """Zeros."""
        width = self.inner // self.heads
        return LightningState(like.new_zeros(batch, self.heads, width, width))

    def kept(self, rules: Rules) -> int:
        """The sigmoids of values and gate, q, k and dt; without the SSM rule also the matrices of every chunk."""
        return 4 * self.inner + self.heads if rules.ssm else 12 * self.inner + 300 * self.heads

    def __call__(self, x: Tensor, state: LightningState, step: Step) -> tuple[Tensor, LightningState]:
        """Mix the normed stream over positions."""
        m, ledger, rules, gamma = self.module, step.ledger, step.rules, step.rules.gamma_of("linear")
        q, k, v = self._projected(x, step)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not rules.ssm):
            q, k = (activation(one, rules) for one in (q, k))
        u = self._heads(masked(activation(v.flatten(2), rules), step.mask))
        o, scan = ssd_scan(u, *self._constants(q), k, q, state.scan, backend=step.backend)
        p = sigmoid_gate(self.norm(o.flatten(2), step), linear(m.output_gate, x, ledger), rules)
        return linear(m.out_proj, p, ledger, gamma), LightningState(scan)

    def mixing(self, x: Tensor, step: Step) -> SSDMixing:
        """The part as a linear map of the values before their activation, everything that multiplies them constant."""
        with torch.no_grad():
            q, k, v = self._projected(x, step)
            q, k, v = F.silu(q), F.silu(k), v.flatten(2)
            u = masked(F.silu(v), step.mask)
            dt, A = self._constants(q)
            o = ssd_scan(self._heads(u), dt, A, k, q)[0].flatten(2)
            norm = self.norm.module
            with loaded(norm):
                weight = constant(norm.weight, o.dtype)
            scale = torch.rsqrt(o.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon) * weight
            scale = scale * torch.sigmoid(linear(self.module.output_gate, x))
        none, one = v.new_zeros(self.inner), v.new_ones(self.inner, 1)  # of a skip and a bias; the convolution
        out = linear_without_bias(self.module.out_proj)
        return SSDMixing(v, v, u, none, one, none, scale, out, dt, A, k, q)

    def _projected(self, x: Tensor, step: Step) -> tuple[Tensor, ...]:
        """q, k and v before their activation, (B, L, H, P) each; q and k constant under the SSM rule."""
        projected = linear(self.module.qkv_proj, x, step.ledger, step.rules.gamma_of("linear"))
        q, k, v = projected.unflatten(-1, (self.heads, 3, -1)).unbind(3)
        return (q.detach(), k.detach(), v) if step.rules.ssm else (q, k, v)

    def _heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1))
        return heads

    def _constants(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """dt (B, L, H), which is 1, and A (H,)."""
        m, dtype = self.module, wide(q.dtype)
        with loaded(m):
            A = -constant(m.slope_rate, dtype).flatten()
        return torch.ones(q.shape[:3], dtype=dtype, device=q.device), A
