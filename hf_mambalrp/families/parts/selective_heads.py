"""The mixer of Zamba (Glorioso et al. 2024): Mamba-1's, whose channels select in heads.

Glossary: B batch, L length, D hidden, E inner, H heads of P channels, N state, R rank of dt, K the convolution's width.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp.attention import HeadsMixing, SelectiveMixing
from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts.convolution import convolution, convolved
from hf_mambalrp.families.parts.reading import masked, reads, with_silu
from hf_mambalrp.families.parts.selective import SelectiveState, gamma_keeps
from hf_mambalrp.ops.gated_scan import gated_scan
from hf_mambalrp.ops.gated_scan.dispatch import BACKENDS
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.linear import linear, linear_without_bias
from hf_mambalrp.rules.offload import loaded


class SelectiveHeads:
    """``in_proj`` D -> 2 E (x and z of every channel side by side), ``conv1d`` with SiLU, then for every head
    ``x_proj_weight`` (H, R + 2 N, P), ``dt_proj_weight`` (H, P, R), ``dt_proj_bias`` (H, P), ``A_log`` (H, P, N), the
    skip ``D`` (H, P), and the gate; ``out_proj`` E -> D.
    """

    kind = mixes = "ssm"
    backends = tuple(BACKENDS)
    causal, appends, recordable = True, False, True

    def __init__(self, module: Any) -> None:
        names = ("in_proj", "conv1d", "x_proj_weight", "dt_proj_weight", "dt_proj_bias", "A_log", "D", "out_proj")
        self.module = with_silu(reads(module, *names))

    def state(self, batch: int, like: Tensor) -> SelectiveState:
        """Zeros."""
        heads, width, states = self.module.A_log.shape
        inner, before = heads * width, self.module.conv1d.weight.shape[-1] - 1
        return SelectiveState(like.new_zeros(batch, before, inner), like.new_zeros(batch, inner, states))

    def kept(self, rules: Rules) -> int:
        """As of a mixer without heads."""
        return ((3 if rules.ssm else 10) + gamma_keeps(rules)) * int(self.module.conv1d.weight.shape[0])

    def __call__(self, x: Tensor, state: SelectiveState, step: Step) -> tuple[Tensor, SelectiveState]:
        """Mix the normed stream over positions; padding is masked before in_proj and after the convolution."""
        m, rules = self.module, step.rules
        x, z = self._content_and_gate(x, step)
        u, conv = convolved(m.conv1d, x, state.conv, step)
        A_log, D, bias = self._parameters()
        outputs, states = [], []
        for head, at in enumerate(self._channels()):
            own = u[..., at].contiguous()
            with torch.set_grad_enabled(torch.is_grad_enabled() and not rules.ssm):
                low, B, C = self._selected(own, head)
            p, ssm = gated_scan(
                own, partial(self._step_size, low, head), z[..., at].contiguous(), A_log[head], B, C,
                D[head], bias[head], state.ssm[:, at], rules=rules, backend=step.backend,
            )  # fmt: skip
            outputs.append(p)
            states.append(ssm)
        y = linear(m.out_proj, torch.cat(outputs, -1), step.ledger, rules.gamma_of("linear"))
        return y, SelectiveState(conv, torch.cat(states, 1))

    def mixing(self, x: Tensor, step: Step) -> HeadsMixing:
        """Every head as a linear map of its part of the convolution's input."""
        m = self.module
        with torch.no_grad():
            x, z = self._content_and_gate(x, step)
            x, c, u, taps, conv_bias = convolution(m.conv1d, x, step)
            A_log, D, bias = (parameter.to(u.dtype) for parameter in self._parameters())
            A = -torch.exp(A_log)
            scale, out, heads = F.silu(z), linear_without_bias(m.out_proj), []
            for head, at in enumerate(self._channels()):
                low, B, C = self._selected(u[..., at], head)
                dt = F.softplus(self._step_size(low, head) + bias[head])
                of_head = (x[..., at], c[..., at], u[..., at], D[head], taps[at], conv_bias[at], scale[..., at])
                heads.append(SelectiveMixing(*of_head, out, dt, A[head], B, C))
        return HeadsMixing(x, out, tuple(heads))

    def _channels(self) -> list[slice]:
        """Those of every head."""
        heads, width, _ = self.module.A_log.shape
        return [slice(head * width, (head + 1) * width) for head in range(heads)]

    def _content_and_gate(self, x: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """x and z, (B, L, E) each, zero on padding."""
        gamma = step.rules.gamma_of("linear")
        projected = linear(self.module.in_proj, masked(x, step.mask), step.ledger, gamma).unflatten(-1, (-1, 2))
        return projected[..., 0].contiguous(), projected[..., 1].contiguous()

    def _parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        """A_log (H, P, N), D (H, P) and the bias of dt (H, P)."""
        m = self.module
        with loaded(m):
            return constant(m.A_log), constant(m.D), constant(m.dt_proj_bias)

    def _selected(self, u: Tensor, head: int) -> tuple[Tensor, Tensor, Tensor]:
        """dt before its projection, B and C, of a head's input."""
        m, states = self.module, self.module.A_log.shape[-1]
        with loaded(m):
            projected = F.linear(u, constant(m.x_proj_weight[head], u.dtype))
        low, B, C = projected.split([projected.shape[-1] - 2 * states, states, states], -1)
        return low, B, C

    def _step_size(self, low: Tensor, head: int) -> Tensor:
        with loaded(self.module):
            return F.linear(low, constant(self.module.dt_proj_weight[head], low.dtype))
