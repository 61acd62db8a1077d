"""The recurrent block of Griffin (De et al. 2024, section 2): the real-gated linear recurrent unit, under the rules.

    r_t = sigmoid(W_a x_t + b_a),   i_t = sigmoid(W_x x_t + b_x),   log a_t = -8 softplus(Lambda) r_t
    h_t = a_t h_{t-1} + m_t (i_t x_t),   m_t = sqrt(1 - a_t^2), and 1 at the first position

What is carried, x, is explained and what selects, a, m and i, is constant under the SSM rule, so that h is linear in x:
h_i = sum_j [(product over k = j + 1 .. i of a_k) m_j i_j] x_j is homogeneous of degree 1 in x, and with dh the modified
gradient of h and dx_j = sum_i [.] dh_i that of x, sum_i h_i dh_i = sum_j x_j dx_j: nothing is lost. This is Mamba's
rule for its scan, of which this one has the form, with a state of one number a channel; its use here is this project's
own.

Glossary: B batch, L length, D hidden, E inner, H blocks of E / H channels, K width of the convolution.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp.attention import RGLRUMixing
from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts.convolution import carried, taps_of
from hf_mambalrp.families.parts.reading import SLOWEST, factor_of, masked, reads, wide
from hf_mambalrp.ops.conv_silu.chunked import causal_convolution
from hf_mambalrp.ops.selective_scan import selective_scan
from hf_mambalrp.ops.ssd_scan import ssd_scan
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.gate import gate
from hf_mambalrp.rules.linear import linear, linear_without_bias
from hf_mambalrp.rules.offload import loaded

SHARPNESS = 8.0
"""c in log a = -c softplus(Lambda) r."""


class RGLRUState(NamedTuple):
    """What the part hands from one chunk of positions to the next."""

    conv: Tensor
    """(B, K - 1, E) inputs of the convolution before the chunk."""
    scan: Tensor
    """(B, E, 1) state of the recurrence before the chunk."""


class RGLRU:
    """``linear_out``(h * gelu(``linear_y`` x)), h the recurrence over ``conv_1d``(``linear_x`` x): LRP-0 for the
    convolution, which has no activation, half for both factors of the product. ``rg_lru`` has W and b of both gates in
    blocks, (H, E / H, E / H) and (H, E / H), and Lambda (E,). What the convolution reads is zero on padding, as is what
    it returns.
    """

    kind = mixes = "linear"
    backends: tuple[str, ...] = ("auto", "chunked", "compiled", "reference", "triton")
    causal, appends, recordable = True, False, True

    def __init__(self, module: Any) -> None:
        self.module = m = reads(module, "linear_x", "linear_y", "conv_1d", "rg_lru", "linear_out")
        names = [f"{gate}_gate_{what}" for gate in ("input", "recurrent") for what in ("weight", "bias")]
        self.unit, self.factor = reads(m.rg_lru, *names, "recurrent_param"), factor_of(m)
        self.inner = int(m.conv_1d.weight.shape[0])

    def state(self, batch: int, like: Tensor) -> RGLRUState:
        """Zeros."""
        before = self.module.conv_1d.weight.shape[-1] - 1
        return RGLRUState(like.new_zeros(batch, before, self.inner), like.new_zeros(batch, self.inner, 1))

    def kept(self, rules: Rules) -> int:
        """Decay and factor of the input, both factors of the gate; without the SSM rule also what gradients need."""
        return (4 if rules.ssm else 12) * self.inner

    def __call__(self, x: Tensor, state: RGLRUState, step: Step) -> tuple[Tensor, RGLRUState]:
        """Mix the normed stream over positions."""
        m, ledger, rules, gamma = self.module, step.ledger, step.rules, step.rules.gamma_of("linear")
        content = masked(linear(m.linear_x, x, ledger, gamma), step.mask)
        taps, added = taps_of(m.conv_1d, slice(None), wide(x.dtype))
        bias = None if m.conv_1d.bias is None else ledger.enter(added, taps.dtype)
        earlier = state.conv.to(taps.dtype)
        c = masked(causal_convolution(content.to(taps.dtype), taps, bias, earlier, rules.gamma_of("conv1d")), step.mask)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not rules.ssm):
            dt, written = self._selected(c, step.start == 0)
        h, scan = recurrence(written * c, dt, state.scan, step.backend)
        p = gate(h.to(x.dtype), linear(m.linear_y, x, ledger, gamma), rules, self.factor)
        return linear(m.linear_out, p, ledger, gamma), RGLRUState(carried(state.conv, content), scan)

    def mixing(self, x: Tensor, step: Step) -> RGLRUMixing:
        """The block as a linear map of the convolution's input, everything that multiplies it constant."""
        m = self.module
        with torch.no_grad():
            content = masked(linear(m.linear_x, x), step.mask)
            taps, bias = taps_of(m.conv_1d, slice(None), content.dtype)
            c = causal_convolution(content, taps, bias, content.new_zeros(len(x), taps.shape[-1] - 1, self.inner))
            u = masked(c, step.mask)
            dt, written = self._selected(u, True)
            z = linear(m.linear_y, x)
        none, one = torch.zeros_like(bias), torch.ones_like(dt[..., :1])  # of a skip; B and C
        scale, out, A = z * self.factor(z), linear_without_bias(m.linear_out), -torch.ones_like(bias)[:, None]
        return RGLRUMixing(content, c, u, none, taps, bias, scale, out, dt, A, one, one, written)

    def _selected(self, c: Tensor, first: bool) -> tuple[Tensor, Tensor]:
        """-log a and m i, (B, L, E) each; ``first`` says whether they are of the first positions of a text."""
        blocks = c.unflatten(-1, (self.unit.input_gate_weight.shape[0], -1))
        with loaded(self.unit):
            i, r = (
                torch.sigmoid(
                    torch.einsum("blhi,hij->blhj", blocks, constant(getattr(self.unit, f"{name}_gate_weight"), c.dtype))
                    + constant(getattr(self.unit, f"{name}_gate_bias"), c.dtype)
                ).flatten(2)
                for name in ("input", "recurrent")
            )
            rate = SHARPNESS * F.softplus(constant(self.unit.recurrent_param, c.dtype))
        dt = (rate * r).clamp_min(SLOWEST)
        m = torch.sqrt(-torch.expm1(-2 * dt))
        if first:
            m = torch.cat([torch.ones_like(m[:, :1]), m[:, 1:]], 1)
        return dt, m * i


def recurrence(x: Tensor, dt: Tensor, state: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    """h_t = exp(-dt_t) h_{t-1} + x_t of every channel: (B, L, E) each, and the last h, (B, E, 1).

    It is Mamba's scan with one state, A = -1 and B = C = 1, of x / dt; on a GPU Mamba-2's, whose heads are channels.
    """
    u = x / dt
    if backend == "triton":
        one = torch.ones_like(dt[:, :, :1, None])
        A = -torch.ones_like(dt[0, 0])
        h, last = ssd_scan(u[..., None], dt, A, one, one, state[..., None], backend=backend)
        return h[..., 0], last[..., 0]
    one = torch.ones_like(dt[..., :1])
    A = -torch.ones_like(dt[0, 0, :, None])
    return selective_scan(u, dt, A, one, one, state.to(u.dtype), backend=backend)
