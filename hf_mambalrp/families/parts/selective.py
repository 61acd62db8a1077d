"""The selective state-space mixer of Mamba-1, line by line as in figure 3 of the Mamba paper, under the rules.

Glossary: B batch, L length, D hidden, E inner, N state, R rank of dt, K width of the convolution.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from accelerate.utils import align_module_device
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp.attention import SelectiveMixing
from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts.reading import convolved, masked, reads, taps_of, wide
from hf_mambalrp.ops.conv_silu.chunked import causal_convolution
from hf_mambalrp.ops.gated_scan import gated_scan
from hf_mambalrp.ops.gated_scan.dispatch import BACKENDS
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.linear import linear, linear_parts, linear_without_bias

ParameterNorm = Callable[[Any, Tensor, Rules], Tensor]
"""Norms one of dt (before its projection), B and C; its first argument is the mixer."""


class SelectiveState(NamedTuple):
    """What the mixer hands from one chunk of positions to the next."""

    conv: Tensor
    """(B, K - 1, E) inputs of the convolution before the chunk."""
    ssm: Tensor
    """(B, E, N) state of the scan before the chunk."""


class Selective:
    """Mamba-1's mixer: ``in_proj`` D -> 2 E (content x, gate z), ``conv1d``, ``x_proj`` E -> R + 2 N, ``dt_proj``
    R -> E, ``A_log`` (E, N) with A = -exp(A_log), the skip ``D`` (E,), ``out_proj`` E -> D.
    """

    backends = tuple(BACKENDS)

    def __init__(self, module: Any, parameter_norm: ParameterNorm | None = None) -> None:
        self.module = reads(module, "in_proj", "conv1d", "x_proj", "dt_proj", "A_log", "D", "out_proj")
        self.parameter_norm = parameter_norm

    def state(self, batch: int, like: Tensor) -> SelectiveState:
        """Zeros."""
        inner, states = self.module.A_log.shape
        before = self.module.conv1d.weight.shape[-1] - 1
        return SelectiveState(like.new_zeros(batch, before, inner), like.new_zeros(batch, inner, states))

    def kept(self, rules: Rules) -> int:
        """Under the SSM rule three tensors of E: the sigmoid after the convolution and two factors of the gate.

        Without it also what the gradients of dt, B and C need, about ten in all.
        """
        inner: int = self.module.A_log.shape[0]
        return (3 if rules.ssm else 10) * inner

    def __call__(self, x: Tensor, state: SelectiveState, step: Step) -> tuple[Tensor, SelectiveState]:
        """Mix the normed stream over positions; padding is masked before in_proj and after the convolution."""
        m, rules = self.module, step.rules
        inner = m.A_log.shape[0]
        x, z = linear_parts(m.in_proj, masked(x, step.mask), [inner, inner], step.ledger)  # LRP-0: (B, L, E) each
        u, conv = convolved(m.conv1d, x, state.conv, step)  # LRP-0, identity rule
        A, D, bias = self._parameters(wide(u.dtype))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not rules.ssm):
            step_size, B, C = self._selected(u, rules)
        p, ssm = gated_scan(  # constants, LRP-0 for the skip, half rule
            u, step_size, z, A, B, C, D, bias, state.ssm, rules=rules, backend=step.backend
        )
        return linear(m.out_proj, p, step.ledger), SelectiveState(conv, ssm)  # LRP-0

    def mixing(self, x: Tensor, step: Step) -> SelectiveMixing:
        """The mixer as a linear map of the convolution's input, everything that multiplies it constant."""
        m, inner = self.module, self.module.A_log.shape[0]
        with torch.no_grad():
            x, z = linear_parts(m.in_proj, masked(x, step.mask), [inner, inner], step.ledger)
            taps, conv_bias = taps_of(m.conv1d, slice(None), x.dtype)
            c = causal_convolution(x, taps, conv_bias, self.state(len(x), x).conv)
            u = masked(F.silu(c), step.mask)
            A, D, bias = self._parameters(u.dtype)
            step_size, B, C = self._selected(u, step.rules)
            dt = F.softplus(step_size() + bias)
        return SelectiveMixing(x, c, u, D, taps, conv_bias, F.silu(z), linear_without_bias(m.out_proj), dt, A, B, C)

    def _parameters(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """A (E, N), D (E,) and the bias of dt (E,)."""
        m = self.module
        with align_module_device(m):
            A, D = -torch.exp(constant(m.A_log, dtype)), constant(m.D, dtype)
        with align_module_device(m.dt_proj):
            return A, D, constant(m.dt_proj.bias, dtype)

    def _selected(self, u: Tensor, rules: Rules) -> tuple[Callable[[], Tensor], Tensor, Tensor]:
        """delta = W_dt dt_low as a function, B and C from the scan's own input: (B, L, E), (B, L, N) each."""
        m, states, dtype = self.module, self.module.A_log.shape[1], u.dtype
        projected = linear(m.x_proj, u)
        low, B, C = torch.split(projected, [projected.shape[-1] - 2 * states, states, states], -1)
        if self.parameter_norm is not None:
            low, B, C = (self.parameter_norm(m, one.to(wide(dtype)), rules).to(dtype) for one in (low, B, C))

        def step_size() -> Tensor:  # kept until the backward, and u need not be
            with align_module_device(m.dt_proj):
                return F.linear(low, constant(m.dt_proj.weight, dtype))

        return step_size, B, C
