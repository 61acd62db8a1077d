"""The selective state-space mixer of Mamba-1, line by line as in figure 3 of the Mamba paper, under the rules.

Glossary: B batch, L length, D hidden, E inner, N state, R rank of dt, K width of the convolution.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn
from torch.nn import functional as F

from hf_mambalrp.rules import NO_RULES, Rules
from hf_mambalrp.rules.activation import silu
from hf_mambalrp.rules.biases import BiasLedger
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.gate import gate
from hf_mambalrp.rules.linear import causal_convolution, linear, linear_parts
from hf_mambalrp.rules.ssm import computed_again, selective_ssm


class SelectiveMixer(Protocol):
    """The parts of a mixer, as transformers names them in every release."""

    in_proj: nn.Linear
    """D -> 2 E: the content x, then the gate z."""
    conv1d: nn.Conv1d
    """Depthwise, width K."""
    x_proj: nn.Linear
    """E -> R + 2 N: dt before its own projection, B, C."""
    dt_proj: nn.Linear
    """R -> E, with a bias."""
    A_log: Tensor
    """(E, N): A = -exp(A_log)."""
    D: Tensor
    """(E,): the skip."""
    out_proj: nn.Linear
    """E -> D."""


ParameterNorm = Callable[[Any, Tensor, Rules], Tensor]
"""Of the mixer and one of dt, B and C."""


class MixerState(NamedTuple):
    """What a mixer hands from one chunk of positions to the next."""

    conv: Tensor
    """(B, K - 1, E) inputs of the convolution before the chunk."""
    ssm: Tensor
    """(B, E, N) state of the scan before the chunk."""


def initial_state(mixer: SelectiveMixer, batch_size: int, like: Tensor) -> MixerState:
    """State before the first token: zero, in the dtype and on the device of ``like``."""
    inner, state_size = mixer.A_log.shape
    width = mixer.conv1d.weight.shape[-1]
    return MixerState(like.new_zeros(batch_size, width - 1, inner), like.new_zeros(batch_size, inner, state_size))


def kept_per_position(mixer: SelectiveMixer, rules: Rules) -> int:
    """Numbers a block keeps for its backward, per row and position.

    Under all rules three tensors of E: the sigmoid after the convolution and two factors of the gate. Without the SSM
    rule also what the gradients of dt, B and C need, about ten in all.
    """
    return (3 if rules.ssm else 10) * mixer.A_log.shape[0]


def selective_mixer(
    mixer: SelectiveMixer,
    hidden: Tensor,
    mask: Tensor | None,
    state: MixerState,
    rules: Rules,
    ledger: BiasLedger,
    backend: str,
    parameter_norm: ParameterNorm | None = None,
) -> tuple[Tensor, MixerState]:
    """Mix the normed residual stream over positions. Shape: (B, L, D) -> (B, L, D).

    Args:
        mixer: the module.
        hidden: (B, L, D).
        mask: (B, L, 1), zero on padding, or None; applied before in_proj and after the convolution, as in transformers.
        state: state before the first position of ``hidden``.
        rules: the rules that apply.
        ledger: where biases on the content path are recorded.
        backend: backend of the scan.
        parameter_norm: the family's norm of dt (before its projection), B and C, if it has one.

    Returns:
        The mixed stream and the state after its last position.
    """
    x, c, u, z, dt, dt_again, A, B, C, D, conv_state = scan_inputs(
        mixer, hidden, mask, state.conv, rules, ledger, parameter_norm
    )
    del x, c  # memory: the scan does not read them
    # (B, L, E) from (B, L, R): as a constant, dt is cheaper to compute again than to keep.
    with computed_again(dt, dt_again) if rules.ssm else nullcontext():
        y, ssm_state = selective_ssm(u, dt, A, B, C, state.ssm, rules, backend)  # constants
    p = gate(torch.addcmul(y, u, D), z, rules)  # LRP-0 for the skip, then the half rule
    return linear(mixer.out_proj, p, ledger), MixerState(conv_state, ssm_state)  # LRP-0


class ScanInputs(NamedTuple):
    """What a mixer computes before its scan."""

    x: Tensor
    """(B, L, E) input of the convolution."""
    c: Tensor
    """(B, L, E) its output."""
    u: Tensor
    """(B, L, E) input of the scan, silu(c); zero on padding."""
    z: Tensor
    """(B, L, E) the gate before its SiLU."""
    dt: Tensor
    """(B, L, E)."""
    dt_again: Callable[[], Tensor]
    """Computes dt anew."""
    A: Tensor
    """(E, N)."""
    B: Tensor
    """(B, L, N)."""
    C: Tensor
    """(B, L, N)."""
    D: Tensor
    """(E,)."""
    conv_state: Tensor
    """(B, K - 1, E) the last inputs of the convolution."""


def scan_inputs(
    mixer: SelectiveMixer,
    hidden: Tensor,
    mask: Tensor | None,
    earlier: Tensor,
    rules: Rules,
    ledger: BiasLedger,
    parameter_norm: ParameterNorm | None,
) -> ScanInputs:
    """Everything up to the scan; ``earlier`` (B, K - 1, E) are the convolution's inputs before ``hidden``."""
    inner = mixer.A_log.shape[0]
    x, z = linear_parts(mixer.in_proj, masked(hidden, mask), [inner, inner], ledger)  # LRP-0: (B, L, E) each
    with align_module_device(mixer.conv1d):
        c, conv_state = causal_convolution(mixer.conv1d, x, earlier, ledger)  # LRP-0
    u = masked(silu(c, rules), mask)  # identity rule
    with align_module_device(mixer):
        A = -torch.exp(constant(mixer.A_log, u.dtype))  # (E, N)
        D = constant(mixer.D, u.dtype)  # (E,)
    with torch.set_grad_enabled(torch.is_grad_enabled() and not rules.ssm):
        step_size, B, C = scan_parameters(mixer, u, rules, parameter_norm)
        dt = step_size()
    return ScanInputs(x, c, u, z, dt, step_size, A, B, C, D, conv_state)


def scan_parameters(
    mixer: SelectiveMixer, u: Tensor, rules: Rules, parameter_norm: ParameterNorm | None
) -> tuple[Callable[[], Tensor], Tensor, Tensor]:
    """dt = softplus(W_dt dt_low + b) as a function, B and C, from the scan's own input: (B, L, E), (B, L, N) each."""
    state_size = mixer.A_log.shape[1]
    projected = linear(mixer.x_proj, u, BiasLedger(u.shape[0]))  # not a content path: nothing to record
    dt_low, B, C = torch.split(projected, [projected.shape[-1] - 2 * state_size, state_size, state_size], -1)
    if parameter_norm is not None:
        dt_low, B, C = (parameter_norm(mixer, parameter, rules) for parameter in (dt_low, B, C))
    dtype = u.dtype  # the function is kept until the backward, and u need not be

    def step_size() -> Tensor:
        with align_module_device(mixer.dt_proj):
            weight, bias = constant(mixer.dt_proj.weight, dtype), constant(mixer.dt_proj.bias, dtype)
        return F.softplus(F.linear(dt_low, weight, bias))

    return step_size, B, C


class Signals(NamedTuple):
    """One mixer as a linear map of the convolution's input x, everything that multiplies x constant.

    The input of out_proj is scale * (scan(u) + D u) with u = c sigmoid(c) on tokens, 0 on padding, and c = taps * x +
    bias, the convolution. Mamba-2 has heads: E = H P, groups G of heads share B and C.
    """

    x: Tensor
    """(B, L, E) input of the convolution."""
    c: Tensor
    """(B, L, E) its output."""
    u: Tensor
    """(B, L, E) input of the scan."""
    dt: Tensor
    """(B, L, E); Mamba-2 (B, L, H)."""
    A: Tensor
    """(E, N) negative; Mamba-2 (H,)."""
    B: Tensor
    """(B, L, N); Mamba-2 (B, L, G, N)."""
    C: Tensor
    """(B, L, N); Mamba-2 (B, L, G, N)."""
    D: Tensor
    """(E,) the skip."""
    taps: Tensor
    """(E, K) of the convolution, the last for the position itself."""
    bias: Tensor
    """(E,) of the convolution; zeros where it has none."""
    scale: Tensor
    """(B, L, E) gate, and for Mamba-2 normaliser and weight of its norm."""


def selective_signals(
    mixer: SelectiveMixer, hidden: Tensor, mask: Tensor | None, parameter_norm: ParameterNorm | None = None
) -> Signals:
    """The signals of a text from its first position on, without a graph; arguments as in :func:`selective_mixer`."""
    with torch.no_grad():
        earlier = initial_state(mixer, len(hidden), hidden).conv
        s = scan_inputs(mixer, hidden, mask, earlier, NO_RULES, BiasLedger(len(hidden)), parameter_norm)
        taps, bias = convolution_of(mixer.conv1d, slice(None), hidden.dtype)
        return Signals(s.x, s.c, s.u, s.dt, s.A, s.B, s.C, s.D, taps, bias, scale=F.silu(s.z))


def convolution_of(module: nn.Conv1d, channels: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Taps (E, K) and bias (E,) of the channels."""
    with align_module_device(module):
        taps = constant(module.weight, dtype)[channels, 0]
        bias = taps.new_zeros(len(taps)) if module.bias is None else constant(module.bias, dtype)[channels]
    return taps, bias


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zero on padding."""
    return x if mask is None else x * mask
