"""One entry for the gated selective scan: the table of backends and the choice among them."""

from importlib.util import find_spec
from typing import Any

from torch import Tensor

from hf_mambalrp.ops.backend import Backend, chosen
from hf_mambalrp.ops.gpu import triton_declines


def _triton_declines(arguments: tuple[Any, ...]) -> str | None:
    return triton_declines(arguments[0].device, arguments[0].dtype)


def _mamba_ssm_declines(arguments: tuple[Any, ...]) -> str | None:
    u, initial_state = arguments[0], arguments[-1]
    if find_spec("mamba_ssm") is None:
        return "mamba_ssm is not installed: pip install 'hf_mambalrp[cuda]'"
    if u.device.type != "cuda":
        return f"its kernels need a CUDA GPU and the model is on {u.device}: use backend='auto'"
    if initial_state is not None and bool(initial_state.any()):
        return "its kernel starts from zero, so it cannot go on from an earlier chunk: use backend='triton'"
    return _triton_declines(arguments)


_HERE = "hf_mambalrp.ops.gated_scan"
BACKENDS: dict[str, Backend] = {
    "reference": Backend(f"{_HERE}.reference", "gated_scan_reference"),
    "triton": Backend(f"{_HERE}.triton", "gated_scan_triton", _triton_declines),
    "mamba_ssm": Backend(f"{_HERE}.mamba_ssm", "gated_scan_mamba_ssm", _mamba_ssm_declines),
}


def gated_scan(
    u: Tensor,
    delta: Tensor,
    z: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    bias: Tensor,
    initial_state: Tensor | None = None,
    *,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Formula, shapes and gradients of :func:`hf_mambalrp.ops.gated_scan.reference.gated_scan_reference`.

    Args:
        u, delta, z, A, B, C, D, bias, initial_state: see there.
        backend: "reference" (a loop under autograd), "triton" (a GPU), or "mamba_ssm" (that package's forward kernel,
            from a state of zero, with our transposed scan).

    Raises:
        BackendError: an unknown backend, or one that cannot run on these arguments.
    """
    arguments = (u, delta, z, A, B, C, D, bias, initial_state)
    return chosen(BACKENDS, backend, arguments)(*arguments)
