"""The selective state-space mixer of Mamba-1, line by line as in figure 3 of the Mamba paper, under the rules.

Glossary: B batch, L length, D hidden, E inner, N state, R rank of dt, K width of the convolution.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp.attention import SelectiveMixing
from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts.convolution import convolution, convolved
from hf_mambalrp.families.parts.narrow import projected_again
from hf_mambalrp.families.parts.reading import masked, reads, wide, with_silu
from hf_mambalrp.ops.gated_scan import gated_scan
from hf_mambalrp.ops.gated_scan.dispatch import BACKENDS
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.linear import linear, linear_parts, linear_without_bias
from hf_mambalrp.rules.offload import loaded

ParameterNorms = Callable[[Any, Tensor, Tensor, Tensor, Rules], tuple[Tensor, ...]]
"""Norms dt (before its projection), B and C; its first argument is the mixer."""


class SelectiveState(NamedTuple):
    """What the mixer hands from one chunk of positions to the next."""

    conv: Tensor
    """(B, K - 1, E) inputs of the convolution before the chunk."""
    ssm: Tensor
    """(B, E, N) state of the scan before the chunk."""


class Scan:
    """What the mixer does between its projections, along the positions: ``conv1d`` with SiLU, ``x_proj`` E -> R + 2 N,
    ``dt_proj`` R -> E, ``A_log`` (E, N) with A = -exp(A_log), the skip ``D`` (E,), the gate.

    A mixer of two directions has all of these twice, the second time with ``suffix`` in their names.
    """

    def __init__(self, module: Any, parameter_norms: ParameterNorms | None = None, suffix: str = "") -> None:
        names = [name + suffix for name in ("conv1d", "x_proj", "dt_proj", "D")]
        self._A_log = f"A{suffix}_log"
        self.module = with_silu(reads(module, *names, self._A_log))
        self.conv1d, self.x_proj, self.dt_proj = (getattr(self.module, name) for name in names[:3])
        self._D = names[3]
        self.parameter_norms = parameter_norms
        self.sizes: tuple[int, int] = tuple(getattr(self.module, self._A_log).shape)
        """E and N, read off the shape of a weight, which offloaded modules keep."""

    def state(self, batch: int, like: Tensor) -> SelectiveState:
        """Zeros."""
        before = self.conv1d.weight.shape[-1] - 1
        inner, states = self.sizes
        ssm = like.new_zeros(batch, states, inner).transpose(1, 2)  # as a GPU's kernel holds it
        return SelectiveState(like.new_zeros(batch, before, inner), ssm)

    def kept(self, rules: Rules) -> int:
        """Under the SSM rule three tensors of E: the sigmoid of the convolution, two signals or factors of the gate;
        on a GPU half of that where the stream is narrow.

        Without it also what the gradients of dt, B and C need, about ten in all; gamma needs inputs and outputs.
        """
        return ((3 if rules.ssm else 10) + gamma_keeps(rules)) * self.sizes[0]

    def __call__(self, x: Tensor, z: Tensor, state: SelectiveState, step: Step) -> tuple[Tensor, SelectiveState]:
        """Return the gated output. Shape: (B, L, E), (B, L, E) -> (B, L, E)."""
        rules = step.rules
        u, conv = convolved(self.conv1d, x, state.conv, step)  # LRP-0 or gamma, identity rule
        A_log, D, bias = self._parameters()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not rules.ssm):
            step_size, B, C = self._selected(u, rules)
        p, ssm = gated_scan(  # constants, LRP-0 for the skip, half rule
            u, step_size, z, A_log, B, C, D, bias, state.ssm, rules=rules, backend=step.backend
        )
        return p, SelectiveState(conv, ssm)

    def mixing(self, x: Tensor, z: Tensor, out: Callable[[Tensor], Tensor], step: Step) -> SelectiveMixing:
        """The scan as a linear map of its input, everything that multiplies it constant."""
        x, c, u, taps, conv_bias = convolution(self.conv1d, x, step)
        A_log, D, bias = (parameter.to(u.dtype) for parameter in self._parameters())
        A = -torch.exp(A_log)
        step_size, B, C = self._selected(u, step.rules)
        return SelectiveMixing(x, c, u, D, taps, conv_bias, F.silu(z), out, F.softplus(step_size() + bias), A, B, C)

    def _parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        """A_log (E, N), D (E,) and the bias of dt (E,)."""
        m, dt_proj = self.module, self.dt_proj
        with loaded(m):
            A_log, D = constant(getattr(m, self._A_log)), constant(getattr(m, self._D))
        with loaded(dt_proj):
            return A_log, D, constant(dt_proj.bias)

    def _selected(self, u: Tensor, rules: Rules) -> tuple[Callable[[], Tensor], Tensor, Tensor]:
        """delta = W_dt dt_low as a function, B and C from the scan's own input: (B, L, E), (B, L, N) each."""
        m, states, dtype = self.module, self.sizes[1], u.dtype
        projected = linear(self.x_proj, u)
        low, B, C = projected.split_with_sizes([projected.shape[-1] - 2 * states, states, states], -1)
        if self.parameter_norms is not None:
            low, B, C = (one.to(wide(dtype)) for one in (low, B, C))
            low, B, C = (one.to(dtype) for one in self.parameter_norms(m, low, B, C, rules))
        dt_proj = self.dt_proj

        def step_size() -> Tensor:  # kept until the backward, and u need not be
            with loaded(dt_proj):
                return F.linear(low, constant(dt_proj.weight, dtype))

        return step_size, B, C


class Selective:
    """Mamba-1's mixer: ``in_proj`` D -> 2 E (content x, gate z), the :class:`Scan`, ``out_proj`` E -> D."""

    kind = mixes = "ssm"
    backends = tuple(BACKENDS)
    causal, appends, recordable = True, False, True

    def __init__(self, module: Any, parameter_norms: ParameterNorms | None = None) -> None:
        self.scan = Scan(module, parameter_norms)
        self.module = reads(module, "in_proj", "out_proj")
        self.state, self.kept = self.scan.state, self.scan.kept

    def __call__(self, x: Tensor, state: SelectiveState, step: Step) -> tuple[Tensor, SelectiveState]:
        """Mix the normed stream over positions; padding is masked before in_proj and after the convolution."""
        content, z = content_and_gate(self.module, self.scan, x, step)
        with projected_again(self.module.in_proj, x, [content, z], step):
            p, state = self.scan(content, z, state, step)
        return linear(self.module.out_proj, p, step.ledger, step.rules.gamma_of("linear")), state

    def mixing(self, x: Tensor, step: Step) -> SelectiveMixing:
        """The mixer as a linear map of the convolution's input, everything that multiplies it constant."""
        with torch.no_grad():
            x, z = content_and_gate(self.module, self.scan, x, step)
            return self.scan.mixing(x, z, linear_without_bias(self.module.out_proj), step)


def gamma_keeps(rules: Rules) -> int:
    """Tensors of E that LRP-gamma keeps: input and output of the convolution, those of both projections."""
    return (2 if rules.gamma_of("conv1d") else 0) + (5 if rules.gamma_of("linear") else 0)


def content_and_gate(mixer: Any, scan: Scan, x: Tensor, step: Step) -> list[Tensor]:
    """What ``in_proj`` makes of the normed stream for a scan, zero on padding: (B, L, E) each."""
    sizes, gamma = [scan.sizes[0], scan.sizes[0]], step.rules.gamma_of("linear")
    return linear_parts(mixer.in_proj, masked(x, step.mask), sizes, step.ledger, gamma)
