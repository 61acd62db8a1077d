"""The mixer of Mamba-2 (Dao and Gu 2024, section 7), line by line, under the rules.

Glossary: B batch, L length, D hidden, H heads, P width of a head, E = H P inner, G groups, N state, K width of the
convolution.
"""

from typing import NamedTuple, Protocol

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn
from torch.nn import functional as F

from hf_mambalrp.rules import LRP_LN, NO_RULES, Rules
from hf_mambalrp.rules.activation import silu
from hf_mambalrp.rules.adapters import effective
from hf_mambalrp.rules.biases import BiasLedger
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.linear import causal_convolution, linear, linear_parts
from hf_mambalrp.rules.mixer import Signals, convolution_of, masked
from hf_mambalrp.rules.norm import RMSNorm, gated_rms_norm
from hf_mambalrp.rules.ssm import ssd_ssm


class SSDMixer(Protocol):
    """The parts of a mixer, as transformers names them in every release."""

    in_proj: nn.Linear
    """D -> E + (E + 2 G N) + H: the gate z, then the content x, B and C, then dt before its bias."""
    conv1d: nn.Conv1d
    """Depthwise over x, B and C, width K."""
    dt_bias: Tensor
    """(H,)."""
    A_log: Tensor
    """(H,): A = -exp(A_log), one decay rate per head."""
    D: Tensor
    """(H,): the skip."""
    norm: RMSNorm
    """Gated RMSNorm with weight (E,)."""
    out_proj: nn.Linear
    """E -> D."""
    n_groups: int
    """G."""
    time_step_limit: tuple[float, float]
    """Bounds of dt."""


class Sizes(NamedTuple):
    """Widths of a mixer's signals."""

    inner: int
    """E."""
    heads: int
    """H."""
    parameters: int
    """2 G N."""


def sizes_of(mixer: SSDMixer) -> Sizes:
    """Read off the shapes of the weights, which offloaded modules keep."""
    inner = mixer.norm.weight.shape[0]
    return Sizes(inner, mixer.A_log.shape[0], mixer.conv1d.weight.shape[0] - inner)


class SSDMixerState(NamedTuple):
    """What a mixer hands from one chunk of positions to the next."""

    conv_x: Tensor
    """(B, K - 1, E) inputs of the convolution before the chunk: content."""
    conv_bc: Tensor
    """(B, K - 1, 2 G N) the same of B and C."""
    ssm: Tensor
    """(B, H, P, N) state of the scan before the chunk."""


def initial_state(mixer: SSDMixer, batch_size: int, like: Tensor) -> SSDMixerState:
    """State before the first token: zero, in the dtype and on the device of ``like``."""
    inner, heads, parameters = sizes_of(mixer)
    before = mixer.conv1d.weight.shape[-1] - 1
    return SSDMixerState(
        like.new_zeros(batch_size, before, inner),
        like.new_zeros(batch_size, before, parameters),
        like.new_zeros(batch_size, heads, inner // heads, parameters // (2 * mixer.n_groups)),
    )


def kept_per_position(mixer: SSDMixer, rules: Rules) -> int:
    """Numbers a block keeps for its backward, per row and position.

    Under all rules three tensors of E, the sigmoid after the convolution and two factors of the gate, and B, C and dt.
    Without the SSM rule also what the gradients of dt, B and C need: the matrices of every chunk.
    """
    inner, heads, parameters = sizes_of(mixer)
    return 3 * inner + parameters + heads if rules.ssm else 10 * inner + 5 * parameters + 300 * heads


def ssd_mixer(
    mixer: SSDMixer,
    hidden: Tensor,
    mask: Tensor | None,
    state: SSDMixerState,
    rules: Rules,
    ledger: BiasLedger,
    backend: str,
) -> tuple[Tensor, SSDMixerState]:
    """Mix the normed residual stream over positions; arguments as in :func:`rules.mixer.selective_mixer`."""
    x, c, u, z, dt, A, B, C, D, conv_x, conv_bc = scan_inputs(mixer, hidden, mask, state, rules, ledger)
    del x, c  # memory: the scan does not read them
    y, ssm = ssd_ssm(u.unflatten(-1, (len(A), -1)), dt, A, B, C, state.ssm, rules, backend)  # constants
    y = torch.addcmul(y.flatten(-2), u, D)  # LRP-0 for the skip
    norm = effective(mixer.norm)
    with align_module_device(norm):
        p = gated_rms_norm(norm, y, z, rules)  # half rule, then the normaliser constant
    return linear(mixer.out_proj, p, ledger), SSDMixerState(conv_x, conv_bc, ssm)  # LRP-0


class ScanInputs(NamedTuple):
    """What a mixer computes before its scan."""

    x: Tensor
    """(B, L, E) input of the convolution: content."""
    c: Tensor
    """(B, L, E) its output."""
    u: Tensor
    """(B, L, E) input of the scan, silu(c); zero on padding."""
    z: Tensor
    """(B, L, E) the gate before its SiLU."""
    dt: Tensor
    """(B, L, H)."""
    A: Tensor
    """(H,)."""
    B: Tensor
    """(B, L, G, N)."""
    C: Tensor
    """(B, L, G, N)."""
    D: Tensor
    """(E,)."""
    conv_x: Tensor
    """(B, K - 1, E) the last inputs of the convolution: content."""
    conv_bc: Tensor
    """(B, K - 1, 2 G N) the same of B and C."""


def scan_inputs(
    mixer: SSDMixer, hidden: Tensor, mask: Tensor | None, state: SSDMixerState, rules: Rules, ledger: BiasLedger
) -> ScanInputs:
    """Everything up to the scan."""
    inner, heads, parameters = sizes_of(mixer)
    sizes = [inner, inner, parameters, heads]
    z, x, BC, dt = linear_parts(mixer.in_proj, masked(hidden, mask), sizes, ledger)  # LRP-0
    with align_module_device(mixer.conv1d):
        c, conv_x = causal_convolution(mixer.conv1d, x, state.conv_x, ledger, slice(inner))  # LRP-0
        with torch.set_grad_enabled(torch.is_grad_enabled() and not rules.ssm):
            BC, conv_bc = causal_convolution(mixer.conv1d, BC, state.conv_bc, ledger, slice(inner, None))
    u = masked(silu(c, rules), mask)  # identity rule
    with align_module_device(mixer):
        A = -torch.exp(constant(mixer.A_log, u.dtype))  # (H,)
        D, dt_bias = constant(mixer.D, u.dtype), constant(mixer.dt_bias, u.dtype)
    with torch.set_grad_enabled(torch.is_grad_enabled() and not rules.ssm):
        B, C = masked(silu(BC, rules), mask).unflatten(-1, (2, mixer.n_groups, -1)).unbind(2)  # (B, L, G, N) each
        dt = F.softplus(dt + dt_bias).clamp(*mixer.time_step_limit)  # (B, L, H)
    return ScanInputs(x, c, u, z, dt, A, B, C, D.repeat_interleave(inner // heads), conv_x, conv_bc)


def ssd_signals(mixer: SSDMixer, hidden: Tensor, mask: Tensor | None) -> Signals:
    """The signals of a text from its first position on, without a graph; arguments as in :func:`ssd_mixer`."""
    state = initial_state(mixer, len(hidden), hidden)
    with torch.no_grad():
        s = scan_inputs(mixer, hidden, mask, state, NO_RULES, BiasLedger(len(hidden)))
        y, _ = ssd_ssm(s.u.unflatten(-1, (len(s.A), -1)), s.dt, s.A, s.B, s.C, state.ssm, NO_RULES, "auto")
        y = torch.addcmul(y.flatten(-2), s.u, s.D)
        taps, bias = convolution_of(mixer.conv1d, slice(s.x.shape[-1]), hidden.dtype)
    y.requires_grad_()
    norm = effective(mixer.norm)
    with torch.enable_grad(), align_module_device(norm):
        normed = gated_rms_norm(norm, y, s.z, LRP_LN)  # with the normaliser constant, y times the factor
        (scale,) = torch.autograd.grad(normed.sum(), y)
    return Signals(s.x, s.c, s.u, s.dt, s.A, s.B, s.C, s.D, taps, bias, scale)
