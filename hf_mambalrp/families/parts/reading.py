"""What parts share: the check of a module's attributes, layers in turn, padding."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from hf_mambalrp.families.base import Step
from hf_mambalrp.rules import activation as activations
from hf_mambalrp.rules.adapters import effective
from hf_mambalrp.rules.linear import linear

SLOWEST = 1e-20
"""The least -log of a decay where this is divided by: exp of it is 1 in any dtype."""


class UnreadableModule(Exception):  # noqa: N818 - becomes an error where the module's name is known
    """A module in the place of a part that lacks what the part reads."""

    def __init__(self, module: Any, missing: list[str]) -> None:
        super().__init__()
        self.module, self.missing = module, missing


class UnknownActivation(Exception):  # noqa: N818 - becomes an error where the module's name is known
    """A module with an activation that has no rule there."""

    def __init__(self, module: Any, name: str, known: list[str]) -> None:
        super().__init__()
        self.module, self.name, self.known = module, name, known


def reads(module: Any, *names: str) -> Any:
    """What computes in the place of the module, behind adapters, with the attributes of these ``names``.

    Raises:
        UnreadableModule: it lacks some.
    """
    found = effective(module)
    missing = [name for name in names if not hasattr(found, name)]
    if missing:
        raise UnreadableModule(found, missing)
    return found


def named(module: Any, *names: str) -> Any:
    """What the module has under the first of these ``names`` that it has, which differ between models.

    Raises:
        UnreadableModule: it has none.
    """
    for name in names:
        if hasattr(module, name):
            return getattr(module, name)
    raise UnreadableModule(module, [names[0]])


def factor_of(module: Any) -> activations.Factor:
    """factor(x) of the activation x factor(x) that the module has as ``act_fn`` or ``activation``.

    Raises:
        UnknownActivation: one that no rule is known of.
    """
    found = getattr(module, "act_fn", None) or module.activation
    factor = activations.factor_of(found)
    if factor is None:
        raise UnknownActivation(module, type(found).__name__, sorted(activations.FACTORS))
    return factor


def with_silu(mixer: Any) -> Any:
    """The mixer, whose kernels have SiLU built in.

    Raises:
        UnknownActivation: it has another activation.
    """
    name = getattr(mixer, "activation", "silu")
    if name not in ("silu", "swish"):
        raise UnknownActivation(mixer, name, ["silu"])
    return mixer


def in_turn(layers: Iterable[nn.Module], x: Tensor, step: Step) -> Tensor:
    """What linear layers make of x, one behind the other."""
    for layer in layers:
        x = linear(layer, x, step.ledger)
    return x


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zero on padding; of the dtype of ``x``, which a mask of another would change for all that follows."""
    return x if mask is None else x * mask.to(x.dtype)


def scaled(x: Tensor, factor: float) -> Tensor:
    """x times a factor that is 1 in most models, where nothing is computed."""
    return x if factor == 1 else x * factor


def wide(dtype: torch.dtype) -> torch.dtype:
    """What parameters beside matrices are held in, for signals of ``dtype``: float32 at least."""
    return torch.promote_types(dtype, torch.float32)
