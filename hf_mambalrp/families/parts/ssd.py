"""The mixer of Mamba-2 (Dao and Gu 2024, section 7), line by line, under the rules.

Glossary: B batch, L length, D hidden, H heads, P width of a head, E = H P inner, G groups, N state, K width of the
convolution.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp.attention import SSDMixing
from hf_mambalrp.families.base import Step
from hf_mambalrp.families.parts.convolution import convolution, convolved
from hf_mambalrp.families.parts.gated import gated
from hf_mambalrp.families.parts.narrow import projected_again
from hf_mambalrp.families.parts.reading import masked, reads, scaled, wide, with_silu
from hf_mambalrp.ops.ssd_scan import ssd_scan
from hf_mambalrp.ops.ssd_scan.dispatch import BACKENDS
from hf_mambalrp.rules import LRP_LN, Rules
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.linear import linear, linear_parts, linear_without_bias
from hf_mambalrp.rules.offload import loaded


class SSDState(NamedTuple):
    """What the mixer hands from one chunk of positions to the next."""

    conv_x: Tensor
    """(B, K - 1, E) inputs of the convolution before the chunk: content."""
    conv_bc: Tensor
    """(B, K - 1, 2 G N) the same of B and C."""
    ssm: Tensor
    """(B, H, P, N) state of the scan before the chunk."""


class SSD:
    """Mamba-2's mixer: ``in_proj`` D -> E + (E + 2 G N) + H (gate z, then content x, B and C, then dt), ``conv1d`` over
    x, B and C, ``dt_bias`` and ``A_log`` (H,) with A = -exp(A_log), the skip ``D`` (H,), gated ``norm`` (E,),
    ``out_proj`` E -> D; ``head_dim`` P, ``n_groups`` G and ``time_step_limit``, the bounds of dt.

    Of Falcon-H1, where the module has them: ``ssm_in_multiplier`` before in_proj and ``mup_vector`` behind it, no norm
    or the identity, or one with ``norm_before_gate``.
    """

    kind = mixes = "ssm"
    backends = tuple(BACKENDS)
    causal, appends, recordable = True, False, True

    def __init__(self, module: Any) -> None:
        names = ("in_proj", "conv1d", "dt_bias", "A_log", "D", "out_proj", "head_dim", "n_groups")
        self.module = with_silu(reads(module, *names, "time_step_limit"))

    def _sizes(self) -> tuple[int, int, int]:
        """E, H and 2 G N, read off the shapes of the weights, which offloaded modules keep."""
        m = self.module
        heads = m.A_log.shape[0]
        inner: int = heads * m.head_dim
        return inner, heads, m.conv1d.weight.shape[0] - inner

    def state(self, batch: int, like: Tensor) -> SSDState:
        """Zeros."""
        m, (inner, heads, parameters) = self.module, self._sizes()
        before = m.conv1d.weight.shape[-1] - 1
        return SSDState(
            like.new_zeros(batch, before, inner),
            like.new_zeros(batch, before, parameters),
            like.new_zeros(batch, heads, inner // heads, parameters // (2 * m.n_groups)),
        )

    def kept(self, rules: Rules) -> int:
        """Under the SSM rule three tensors of E, the sigmoid after the convolution and two factors of the gate, half of
        that on a GPU where the stream is narrow; and B, C and dt. Without it also what their gradients need: the
        matrices of every chunk.
        """
        inner, heads, parameters = self._sizes()
        return 3 * inner + parameters + heads if rules.ssm else 10 * inner + 5 * parameters + 300 * heads

    def __call__(self, x: Tensor, state: SSDState, step: Step) -> tuple[Tensor, SSDState]:
        """Mix the normed stream over positions; padding is masked before in_proj and after the convolution."""
        m, rules, (inner, heads, _) = self.module, step.rules, self._sizes()
        gamma = rules.gamma_of("linear")
        z, content, BC, dt = self._projected(x, step)
        with projected_again(m.in_proj, x, [] if self._scaled else [z, content], step):
            u, conv_x = convolved(m.conv1d, content, state.conv_x, step, slice(inner))  # LRP-0, identity rule
            with torch.set_grad_enabled(torch.is_grad_enabled() and not rules.ssm):
                BC, conv_bc = convolved(m.conv1d, BC, state.conv_bc, step, slice(inner, None))
                dt, A, B, C, D = self._parameters(dt, BC)
            u = u.unflatten(-1, (heads, -1))
            y, ssm = ssd_scan(u, dt, A, B, C, state.ssm, D, backend=step.backend)  # constants, LRP-0 for the skip
            p = gated(m, y.flatten(-2), z, rules, step.backend)  # half rule, norm rule
        return linear(m.out_proj, p, step.ledger, gamma), SSDState(conv_x, conv_bc, ssm)

    def mixing(self, x: Tensor, step: Step) -> SSDMixing:
        """The mixer as a linear map of the convolution's input, everything that multiplies it constant."""
        m, (inner, heads, _) = self.module, self._sizes()
        with torch.no_grad():
            z, x, BC, dt = self._projected(x, step)
            x, c, u, taps, bias = convolution(m.conv1d, x, step, slice(inner))
            dt, A, B, C, D = self._parameters(dt, convolution(m.conv1d, BC, step, slice(inner, None)).u)
            y = ssd_scan(u.unflatten(-1, (heads, -1)), dt, A, B, C, D=D)[0].flatten(-2)
            D = D.to(u.dtype).repeat_interleave(inner // heads)
        y.requires_grad_()
        with torch.enable_grad():
            normed = gated(m, y, z, LRP_LN, "auto")  # with the normaliser constant, y times a factor
            (scale,) = torch.autograd.grad(normed.sum(), y)
        out = linear_without_bias(m.out_proj)
        return SSDMixing(x, c, u, D, taps, bias, scale, out, dt, A, B, C)

    @property
    def _scaled(self) -> bool:
        """Whether factors stand before in_proj or behind it, so that z and x are no products of the stream alone."""
        return hasattr(self.module, "mup_vector") or getattr(self.module, "ssm_in_multiplier", 1.0) != 1

    def _projected(self, x: Tensor, step: Step) -> list[Tensor]:
        """z, x, B and C, dt."""
        m, (inner, heads, parameters) = self.module, self._sizes()
        sizes = [inner, inner, parameters, heads]
        x = scaled(masked(x, step.mask), getattr(m, "ssm_in_multiplier", 1.0))
        found = linear_parts(m.in_proj, x, sizes, step.ledger, step.rules.gamma_of("linear"))
        if hasattr(m, "mup_vector"):
            factors = constant(m.mup_vector, x.dtype).to(x.device).split(sizes, -1)
            found = [one * factor for one, factor in zip(found, factors, strict=True)]
        return found

    def _parameters(self, dt: Tensor, BC: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What the scan multiplies with: dt (B, L, H) within its bounds, A (H,), B and C (B, L, G, N), D (H,)."""
        m, dtype = self.module, wide(dt.dtype)
        with loaded(m):
            A, D, dt_bias = -torch.exp(constant(m.A_log, dtype)), constant(m.D), constant(m.dt_bias, dtype)
        low, high = m.time_step_limit or (m.time_step_min, math.inf)
        dt = F.softplus(dt + dt_bias)
        if low > 0 or high < math.inf:  # softplus is positive by itself
            dt = dt.clamp(low, high)
        B, C = BC.unflatten(-1, (2, m.n_groups, -1)).unbind(2)
        return dt, A, B, C, D
