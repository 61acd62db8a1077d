"""What every op shares: a table of backends, what each declines, and the choice among them."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.errors import BackendError
from hf_mambalrp.ops.gpu import triton_declines
from hf_mambalrp.rules import Rules

Arguments = tuple[Any, ...]


def never(arguments: Arguments) -> None:
    """For a backend that declines nothing."""


def kernels_decline(device: torch.device, dtype: torch.dtype, rules: Rules) -> str | None:
    """Why Triton kernels, which have MambaLRP's rules built in, cannot run here; None where they can.

    Rules change the backward alone, so without a graph they serve all of them.
    """
    if not rules.conserve and torch.is_grad_enabled():
        return "its kernels are method='mambalrp'; other methods need backend='chunked'"
    return triton_declines(device, dtype)


def triton_of(arguments: Arguments) -> str | None:
    """:func:`kernels_decline` for the arguments of an op, the signal first and the rules last."""
    signal, *_, rules = arguments
    return kernels_decline(signal.device, signal.dtype, rules)


def mamba_ssm_of(arguments: Arguments) -> str | None:
    """Why kernels of the package mamba_ssm, with ours around them, cannot run on these arguments."""
    device = arguments[0].device
    if find_spec("mamba_ssm") is None:
        return "mamba_ssm is not installed: pip install 'hf_mambalrp[cuda]'"
    if device.type != "cuda":
        return f"its kernels need a CUDA GPU and the model is on {device}: use backend='auto'"
    return triton_of(arguments)


def numba_declines(signal: Tensor) -> str | None:
    """Why what numba compiles cannot run on this signal; None where it can."""
    if find_spec("numba") is None:
        return "numba is not installed: pip install numba"
    if signal.device.type != "cpu" or signal.dtype != torch.float32:
        return f"it computes in float32 on the CPU, and this is {signal.dtype} on {signal.device}: use 'chunked'"
    return None


@dataclass(frozen=True)
class Backend:
    """One implementation of an op; its module is imported when first used."""

    module: str
    """Full name."""
    function: str
    declines: Callable[[Arguments], str | None] = never
    """Says why it cannot run on these arguments; None where it can."""

    @property
    def call(self) -> Callable[..., Any]:
        """The implementation."""
        module = sys.modules.get(self.module) or import_module(self.module)
        found: Callable[..., Any] = getattr(module, self.function)
        return found


def chosen(backends: Mapping[str, Backend], name: str, arguments: Arguments) -> Callable[..., Any]:
    """The backend called ``name``.

    Raises:
        BackendError: it is not in the op's table, or cannot run on these arguments.
    """
    if name not in backends:
        raise BackendError(f"This model's scan has no backend {name!r}. Choose 'auto' or one of {sorted(backends)}.")
    reason = backends[name].declines(arguments)
    if reason is not None:
        raise BackendError(f"backend={name!r} cannot run here: {reason}.")
    return backends[name].call


def elementwise(op: str, name: str = "") -> dict[str, Backend]:
    """The table of an op that has one implementation beside its reference and its Triton kernel.

    Its names are those of all scans, so that one name chooses every op of a part. ``name`` is that of an op in the
    folder of another, ``op``.
    """
    module, name = f"hf_mambalrp.ops.{op}", name or op
    torch_backend = Backend(f"{module}.chunked", f"{name}_chunked")
    return {
        "reference": Backend(f"{module}.reference", f"{name}_reference"),
        **dict.fromkeys(("auto", "chunked", "compiled"), torch_backend),
        "triton": Backend(f"{module}.triton", f"{name}_triton", triton_of),
        "mamba_ssm": Backend(f"{module}.triton", f"{name}_triton", mamba_ssm_of),
    }
