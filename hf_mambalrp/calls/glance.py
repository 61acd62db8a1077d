"""Whether anything was put in another place of a model since it was last looked at: asked in every call."""

from operator import eq, is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules


class Glance:
    """The classes, attributes, children, weights and hooks of a model's modules as they stood, and if they still do.

    Tables are compared as wholes, by identity first, which costs a fraction of listing what is in them. What has left a
    module since is held until the next look, and the model itself never: this stands in it, as its attribute ``owner``.
    """

    def __init__(self, model: nn.Module, modules: list[nn.Module], owner: str) -> None:
        self._owner, self._own = owner, _without(model, owner)
        self._inner = [module for module in modules if module is not model]
        self._classes = [type(model), *map(type, self._inner)]
        self._forwards = _forwards(self._classes)
        self._tables: list[dict[Any, Any]] = [
            torch_modules._global_forward_hooks,
            torch_modules._global_forward_pre_hooks,
            *map(vars, self._inner),
        ]
        for module in modules:
            self._tables += (module._modules, module._forward_hooks, module._forward_pre_hooks)
        self._copies = [dict(table) for table in self._tables]
        self._parameters = [module._parameters for module in modules]
        self._weights = self._current_weights()
        self._kinds = _kinds(self._weights)

    def holds(self, model: nn.Module) -> bool:
        """Whether all of the model stands where it stood; a False may be one too many."""
        classes, weights = [type(model), *map(type, self._inner)], self._current_weights()
        try:
            return (
                classes == self._classes
                and _forwards(classes) == self._forwards
                and len(weights) == len(self._weights)
                and all(map(is_, weights, self._weights))
                and _kinds(weights) == self._kinds
                and all(map(eq, self._tables, self._copies))
                and _without(model, self._owner) == self._own
            )
        except (RuntimeError, ValueError):  # of values that are not the same object and do not compare, such as tensors
            return False

    def _current_weights(self) -> list[Tensor]:
        return [weight for table in self._parameters for weight in table.values() if weight is not None]


def _without(model: nn.Module, name: str) -> dict[str, Any]:
    """The attributes of the model but one."""
    return {key: value for key, value in vars(model).items() if key != name}


def _forwards(classes: list[type[nn.Module]]) -> list[Any]:
    return [kind.forward for kind in dict.fromkeys(classes)]


def _kinds(weights: list[Tensor]) -> list[tuple[torch.dtype, torch.device]]:
    """What is changed in place when a model is moved or converted."""
    return [(weight.dtype, weight.device) for weight in weights]
