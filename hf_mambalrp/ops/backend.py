"""What every op shares: a table of backends, what each supports, and the choice among them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import Tensor

from hf_mambalrp.errors import BackendError

Scan = Callable[..., tuple[Tensor, Tensor]]


def never(arguments: tuple[Tensor, ...]) -> None:
    """For a backend that declines nothing."""


@dataclass(frozen=True)
class Backend:
    """One implementation of an op; its module is imported when first used."""

    module: str
    """Full name."""
    function: str
    declines: Callable[[tuple[Any, ...]], str | None] = never
    """Why it cannot run on these arguments, or None."""

    @property
    def scan(self) -> Scan:
        """The implementation."""
        found: Scan = getattr(import_module(self.module), self.function)
        return found


def chosen(backends: Mapping[str, Backend], name: str, arguments: tuple[Any, ...]) -> Scan:
    """The backend called ``name``.

    Raises:
        BackendError: it is not in the op's table, or cannot run on these arguments.
    """
    if name not in backends:
        raise BackendError(f"This model's scan has no backend {name!r}. Choose 'auto' or one of {sorted(backends)}.")
    reason = backends[name].declines(arguments)
    if reason is not None:
        raise BackendError(f"backend={name!r} cannot run here: {reason}.")
    return backends[name].scan
