"""The mixer of Mamba-3 (Lahoti et al. 2026), as mamba_ssm has it with one input and output, under the rules.

With the step size dt_t, the decay a_t = exp(A_t dt_t) and the weight l_t of the trapezoid, for every head

    S_t = a_t S_{t-1} + (1 - l_t) dt_t a_t x_{t-1} k_{t-1}^T + l_t dt_t x_t k_t^T,   y_t = S_t q_t + D x_t,

k and q turned by the sum of pi tanh(angle) dt up to t, as RoPE turns by positions. What is carried, x, is explained and
what selects, all else, is constant under the SSM rule, so that y is linear in x and passes on what it gets: the rule of
MambaLRP for its scan; its use here is this project's own. Put together by x_j, it is Mamba-2's scan:

    y_i = sum over j < i of exp(s_i - s_j) (q_i . k_j) w_j x_j + l_i dt_i (q_i . k_i) x_i + D x_i,
    w_j = l_j dt_j + (1 - l_{j+1}) dt_{j+1},   s_i the sum of A dt up to i.

Glossary: B batch, L length, D hidden, E inner, H heads of P channels, N state, G groups, R angles.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp.attention import Mamba3Mixing
from hf_mambalrp.errors import UnknownArchitectureError
from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts.reading import masked, reads, wide
from hf_mambalrp.families.parts.trapezoid import Trapezoid
from hf_mambalrp.ops.ssd_scan import ssd_scan
from hf_mambalrp.ops.ssd_scan.dispatch import BACKENDS
from hf_mambalrp.rules import LRP_LN, Rules
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.gate import gate
from hf_mambalrp.rules.linear import linear, linear_parts, linear_without_bias
from hf_mambalrp.rules.norm import rms_norm
from hf_mambalrp.rules.offload import loaded


class Mamba3State(NamedTuple):
    """What the mixer hands from one chunk of positions to the next."""

    x: Tensor
    """(B, 1, E) content at the last position before the chunk."""
    k: Tensor
    """(B, H, N) its key, turned."""
    angle: Tensor
    """(B, H, R) sum of the angles."""
    scan: Tensor
    """(B, H, P, N) state of the scan before the chunk."""


class Mamba3:
    """``in_proj`` D -> E + E + G N + G N + 3 H + R (gate z, content x, B, C, dt, A, l, angles), ``B_norm`` and
    ``C_norm`` (N,), ``B_bias`` and ``C_bias`` (H, 1, N), ``dt_bias`` and the skip ``D`` (H,), ``norm`` of every head
    before the gate, where there is one, ``out_proj`` E -> D; A = -softplus(.), at most -``A_floor``. No convolution.

    Raises:
        UnknownArchitectureError: a mixer of several inputs and outputs (``is_mimo``).
    """

    kind = mixes = "ssm"
    backends = tuple(BACKENDS)
    causal, appends, recordable = True, False, True

    def __init__(self, module: Any) -> None:
        names = ("in_proj", "B_norm", "C_norm", "B_bias", "C_bias", "dt_bias", "D", "out_proj", "A_floor")
        self.module = m = reads(module, *names, "headdim", "num_bc_heads", "num_rope_angles")
        self.heads, rank, self.states = (int(size) for size in m.B_bias.shape)
        self.inner, self.groups = self.heads * int(m.headdim), int(m.num_bc_heads)
        self.select = Trapezoid(m, self.heads, self.states, self.groups)
        if rank > 1:
            raise UnknownArchitectureError(
                f"This Mamba-3 has mimo_rank={rank}, and rules are known of one input and output. Explain a model with "
                "is_mimo=False."
            )

    def state(self, batch: int, like: Tensor) -> Mamba3State:
        """Zeros."""
        heads, N = (batch, self.heads), self.states
        return Mamba3State(
            like.new_zeros(batch, 1, self.inner),
            like.new_zeros(*heads, N),
            like.new_zeros(*heads, int(self.module.num_rope_angles)),
            like.new_zeros(*heads, self.inner // self.heads, N),
        )

    def kept(self, rules: Rules) -> int:
        """Two factors of the gate, q and k of every head, and factors; without the SSM rule what gradients need."""
        keys = 2 * self.heads * self.states
        return 2 * self.inner + keys + 4 * self.heads if rules.ssm else 10 * self.inner + 5 * keys + 300 * self.heads

    def __call__(self, x: Tensor, state: Mamba3State, step: Step) -> tuple[Tensor, Mamba3State]:
        """Mix the normed stream over positions; padding is masked before in_proj."""
        rules, (z, x, *projected) = step.rules, self._projected(x, step)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not rules.ssm):
            s = self.select(projected, state.angle, rules)
            key = state.k.to(s.k) * s.before[..., None]
        before = state.scan + self._in_heads(state.x)[:, 0, :, :, None] * key[:, :, None]
        content = self._in_heads(x)
        A, D = -torch.ones_like(s.before[0]), self.select.parameter("D", s.k.dtype)
        u = (content * (s.weight / s.log_decay)[..., None]).to(x.dtype)
        y, scan = ssd_scan(u, s.log_decay, A, s.k, s.q, before, backend=step.backend)  # constants
        y = y + (content * (D - s.later)[..., None]).to(y.dtype)  # LRP-0
        p = gate(self._normed(y.flatten(2), rules), z, rules)  # norm rule, half rule
        after = Mamba3State(x[:, -1:], s.k[:, -1], s.angle, scan)
        return linear(self.module.out_proj, p, step.ledger, rules.gamma_of("linear")), after

    def mixing(self, x: Tensor, step: Step) -> Mamba3Mixing:
        """The mixer as a linear map of x, everything that multiplies it constant."""
        with torch.no_grad():
            z, x, *projected = self._projected(x, step)
            s = self.select(projected, self.state(len(x), x).angle, LRP_LN)
            A, D = -torch.ones_like(s.before[0]), self.select.parameter("D", x.dtype)
            D = D.repeat_interleave(self.inner // self.heads)
            B = s.k * (s.weight / s.log_decay)[..., None]
            scan = ssd_scan(self._in_heads(x), s.log_decay, A, B, s.q)[0] - self._in_heads(x) * s.later[..., None]
            y = (scan.flatten(2) + D * x).requires_grad_()
        with torch.enable_grad():  # with the normaliser constant, y times a factor
            (scale,) = torch.autograd.grad(self._normed(y, LRP_LN).sum(), y)
        scale, out, one = scale * F.silu(z), linear_without_bias(self.module.out_proj), torch.ones_like(D)[:, None]
        return Mamba3Mixing(x, x, x, D, one, torch.zeros_like(D), scale, out, s.log_decay, A, B, s.q, s.later)

    def _projected(self, x: Tensor, step: Step) -> list[Tensor]:
        """z, x, B, C, dt, A, l, angles."""
        keys = self.groups * self.states
        sizes = [self.inner, self.inner, keys, keys, *[self.heads] * 3, int(self.module.num_rope_angles)]
        gamma = step.rules.gamma_of("linear")
        return linear_parts(self.module.in_proj, masked(x, step.mask), sizes, step.ledger, gamma)

    def _normed(self, y: Tensor, rules: Rules) -> Tensor:
        """Of every head by itself, where the mixer has this norm. Shape: (B, L, E) -> (B, L, E)."""
        norm = getattr(self.module, "norm", None)
        if norm is None:
            return y
        with loaded(norm):
            weight = constant(norm.weight, wide(y.dtype)).unflatten(0, (self.heads, -1))
        return rms_norm(self._in_heads(y), weight, norm.eps, rules).flatten(2).to(y.dtype)

    def _in_heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1))
        return heads
