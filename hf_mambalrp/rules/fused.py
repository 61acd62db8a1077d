"""The mixers for a GPU under all of MambaLRP's rules: what ``mixer`` and ``ssd_mixer`` spell out, in fused kernels.

Line by line the same as their readable twins, with convolution and SiLU in one pass, and scan and gate in another.
Signals between the matrix products have the dtype of ``hidden``; states and sums are float32.
"""

import torch
from accelerate.utils import align_module_device
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp.ops.gated_scan import gated_scan
from hf_mambalrp.ops.ssd_scan import ssd_scan
from hf_mambalrp.rules import MAMBALRP
from hf_mambalrp.rules.adapters import effective
from hf_mambalrp.rules.biases import BiasLedger
from hf_mambalrp.rules.constant import constant
from hf_mambalrp.rules.linear import linear, linear_parts
from hf_mambalrp.rules.mixer import MixerState, ParameterNorm, SelectiveMixer, masked
from hf_mambalrp.rules.norm import RMSNorm
from hf_mambalrp.rules.ssd_mixer import SSDMixer, SSDMixerState, sizes_of
from hf_mambalrp.rules.ssm import computed_again


def fused_norm(module: RMSNorm, x: Tensor, dtype: torch.dtype) -> Tensor:
    """:func:`hf_mambalrp.rules.norm.rms_norm` of a float32 stream, in the dtype of the next matrix product."""
    from hf_mambalrp.ops.fused.triton import norm_triton

    return norm_triton(x, constant(module.weight, torch.float32), module.variance_epsilon, dtype)


def fused_selective_mixer(
    mixer: SelectiveMixer,
    hidden: Tensor,
    mask: Tensor | None,
    state: MixerState,
    ledger: BiasLedger,
    backend: str,
    parameter_norm: ParameterNorm | None = None,
) -> tuple[Tensor, MixerState]:
    """:func:`hf_mambalrp.rules.mixer.selective_mixer` under all rules; its arguments."""
    inner, state_size = mixer.A_log.shape
    x, z = linear_parts(mixer.in_proj, masked(hidden, mask), [inner, inner], ledger)  # LRP-0
    with align_module_device(mixer.conv1d):
        u, conv_state = _conv_silu(mixer.conv1d, x, state.conv, mask, ledger, slice(None))  # LRP-0, identity rule
    with align_module_device(mixer):
        A, D = -torch.exp(constant(mixer.A_log, torch.float32)), constant(mixer.D, torch.float32)
    with torch.no_grad():
        projected = linear(mixer.x_proj, u, BiasLedger(u.shape[0]))
        dt_low, B, C = torch.split(projected, [projected.shape[-1] - 2 * state_size, state_size, state_size], -1)
        if parameter_norm is not None:
            dt_low, B, C = (parameter_norm(mixer, p.float(), MAMBALRP).to(u.dtype) for p in (dt_low, B, C))
        with align_module_device(mixer.dt_proj):
            bias = constant(mixer.dt_proj.bias, torch.float32)

        def projected_dt() -> Tensor:
            with align_module_device(mixer.dt_proj):
                return F.linear(dt_low, constant(mixer.dt_proj.weight, dt_low.dtype))

        delta = projected_dt()
    with computed_again(delta, projected_dt):
        p, ssm_state = gated_scan(u, delta, z, A, B, C, D, bias, state.ssm, backend=backend)  # constants, half rule
    return linear(mixer.out_proj, p, ledger), MixerState(conv_state, ssm_state)  # LRP-0


def fused_ssd_mixer(
    mixer: SSDMixer,
    hidden: Tensor,
    mask: Tensor | None,
    state: SSDMixerState,
    ledger: BiasLedger,
    backend: str,
) -> tuple[Tensor, SSDMixerState]:
    """:func:`hf_mambalrp.rules.ssd_mixer.ssd_mixer` under all rules; its arguments."""
    from hf_mambalrp.ops.fused.triton import gated_norm_triton

    inner, heads, parameters = sizes_of(mixer)
    z, x, BC, dt = linear_parts(mixer.in_proj, masked(hidden, mask), [inner, inner, parameters, heads], ledger)  # LRP-0
    with align_module_device(mixer.conv1d):
        u, conv_x = _conv_silu(mixer.conv1d, x, state.conv_x, mask, ledger, slice(inner))  # LRP-0, identity rule
        with torch.no_grad():
            BC, conv_bc = _conv_silu(mixer.conv1d, BC, state.conv_bc, mask, ledger, slice(inner, None))
    with align_module_device(mixer):
        A = -torch.exp(constant(mixer.A_log, torch.float32))
        D, dt_bias = constant(mixer.D, torch.float32), constant(mixer.dt_bias, torch.float32)
    with torch.no_grad():
        B, C = BC.unflatten(-1, (2, mixer.n_groups, -1)).unbind(2)
        dt = F.softplus(dt.float() + dt_bias).clamp(*mixer.time_step_limit)
    y, ssm = ssd_scan(u.unflatten(-1, (heads, -1)), dt, A, B, C, state.ssm, backend=backend)  # constants
    norm = effective(mixer.norm)
    with align_module_device(norm):
        weight = constant(norm.weight, torch.float32)
    group_size = getattr(norm, "group_size", None) or inner
    p = gated_norm_triton(y.flatten(-2), z, weight, norm.variance_epsilon, group_size, (u, D))  # half, norm rule
    return linear(mixer.out_proj, p, ledger), SSDMixerState(conv_x, conv_bc, ssm)  # LRP-0


def _conv_silu(
    module: torch.nn.Conv1d, x: Tensor, earlier: Tensor, mask: Tensor | None, ledger: BiasLedger, channels: slice
) -> tuple[Tensor, Tensor]:
    """silu of the convolution with the identity rule, zero on padding, and the last K - 1 inputs."""
    from hf_mambalrp.ops.fused.triton import conv_silu_triton

    weight = constant(module.weight, torch.float32)[channels, 0]
    bias = None if module.bias is None else ledger.enter(module.bias[channels], torch.float32)
    u = conv_silu_triton(x, weight, bias, earlier, mask)
    kept = weight.shape[-1] - 1
    return u, torch.cat([earlier, x[:, -kept:]], 1)[:, -kept:] if kept else earlier
