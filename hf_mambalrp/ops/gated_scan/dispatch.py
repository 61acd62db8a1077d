"""One entry for the gated selective scan: the table of backends and the choice among them."""

from collections.abc import Callable

import torch
from torch import Tensor

from hf_mambalrp.ops.backend import Arguments, Backend, chosen, mamba_ssm_of, numba_declines, triton_of
from hf_mambalrp.ops.selective_scan.dispatch import WORTH_COMPILING
from hf_mambalrp.rules import Rules


def _mamba_ssm_declines(arguments: Arguments) -> str | None:
    reason, initial_state = mamba_ssm_of(arguments), arguments[-2]
    if reason is None and initial_state is not None and bool(initial_state.any()):
        return "its kernel starts from zero, so it cannot go on from an earlier chunk: use backend='triton'"
    return reason


def _compiled_declines(arguments: Arguments) -> str | None:
    u, *_, rules = arguments
    if torch.is_grad_enabled() and not (rules.silu and rules.ssm and rules.gate):
        return "it has the rules of method='mambalrp'; other methods need 'chunked'"
    return numba_declines(u)


_HERE = "hf_mambalrp.ops.gated_scan"
BACKENDS: dict[str, Backend] = {
    "reference": Backend(f"{_HERE}.reference", "gated_scan_reference"),
    "chunked": Backend(f"{_HERE}.composed", "gated_scan_chunked"),
    "compiled": Backend(f"{_HERE}.compiled", "gated_scan_compiled", _compiled_declines),
    "triton": Backend(f"{_HERE}.triton", "gated_scan_triton", triton_of),
    "mamba_ssm": Backend(f"{_HERE}.mamba_ssm", "gated_scan_mamba_ssm", _mamba_ssm_declines),
}


def gated_scan(
    u: Tensor,
    step_size: Callable[[], Tensor],
    z: Tensor,
    A_log: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    bias: Tensor,
    initial_state: Tensor | None = None,
    *,
    rules: Rules,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """p = y silu(z), y_t = C_t h_t + D u_t, h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t, dt = softplus(delta + bias).

    Differentiated under the rules (Rezaei Jafari et al. 2024, section 4): dt, B and C are constants under the SSM rule,
    silu has the identity rule z [sigmoid(z)], and the gate the half rule p / 2 + [p / 2]. A, D and bias are constants.

    A is -exp(A_log). The parameters A_log, D and bias may be of any dtype.

    Args:
        u: (B, L, E) input of the scan.
        step_size: computes delta (B, L, E), the step sizes before bias and softplus, in memory of their own, which is
            written over; called again in the backward, so that they need not be kept.
        z: (B, L, E) gate.
        A_log: (E, N) logarithms of the decay rates.
        B: (B, L, N) input projection.
        C: (B, L, N) output projection.
        D: (E,) skip.
        bias: (E,) of the step sizes.
        initial_state: (B, E, N) state before the first position; None is zero.
        rules: the rules that apply.
        backend: "reference" (a loop under autograd), "chunked" (torch), "compiled" (numba; float32 on the CPU, under
            MambaLRP's rules or without a graph), "triton" (a GPU, likewise), "mamba_ssm" (that package's forward
            kernel, from a state of zero, with our transposed scan), or "auto", the compiled one where it can and is
            worth it.

    Returns:
        p (B, L, E) in the dtype of ``u`` and the state after the last position (B, E, N), float32 at least.

    Raises:
        BackendError: an unknown backend, or one that cannot run on these arguments.
    """
    arguments = (u, step_size, z, A_log, B, C, D, bias, initial_state, rules)
    if backend == "auto":
        worth = u.numel() * A_log.shape[1] >= WORTH_COMPILING
        backend = "compiled" if worth and _compiled_declines(arguments) is None else "chunked"
    found: tuple[Tensor, Tensor] = chosen(BACKENDS, backend, arguments)(*arguments)
    return found
