"""A module seen in evaluation mode, while the module itself stays in the mode that its owner and other threads see.

Setting ``training`` and setting it back would be seen by every thread in between, so the same weights and hooks are put
behind module objects of their own.
"""

from functools import partial, update_wrapper
from types import MethodType
from typing import Any

from torch import nn

OWN_TABLES = (
    "_parameters",
    "_buffers",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)
"""Tables of a module that its forward may write into: a release that records hidden states hooks the blocks for it, and
accelerate fills in offloaded weights."""


def is_hooked(module: nn.Module) -> bool:
    """Whether it has hooks of torch's own."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def in_evaluation(module: nn.Module) -> nn.Module:
    """The module, or a twin of it where a part of it is in training mode (dropout, statistics of a batch)."""
    return evaluation_twin(module) if any(part.training for part in module.modules()) else module


def evaluation_twin(module: nn.Module) -> nn.Module:
    """The same module in evaluation mode: parameters, buffers and hooks are shared, module objects are not.

    A method that was set on the instance is bound to the twin. A forward that accelerate wrapped in autocast is the one
    under it, because the explanation has no autocast either; ``torch.compile``'s wrappers are left out.
    """
    twins: dict[int, nn.Module] = {}

    def twin_of(wrapped: nn.Module) -> nn.Module:
        original = uncompiled(wrapped)
        if id(original) in twins:
            return twins[id(original)]
        twin: nn.Module = object.__new__(type(original))
        twins[id(original)] = twin
        state = vars(original)
        contents = {
            name: _bound(value, original, twin) if isinstance(value, (MethodType, partial)) else value
            for name, value in state.items()
        }
        contents.update((name, state[name].copy()) for name in OWN_TABLES if name in state)
        if "_original_forward" in state:
            contents["forward"] = contents["_original_forward"]
        children = {name: None if child is None else twin_of(child) for name, child in state["_modules"].items()}
        vars(twin).update(contents, training=False, _compiled_call_impl=None, _modules=children)
        return twin

    return twin_of(module)


def uncompiled(model: Any) -> Any:
    """The model that ``torch.compile`` wrapped, or ``model`` itself."""
    return getattr(model, "_orig_mod", model)


def _bound(value: "MethodType | partial[Any]", original: nn.Module, twin: nn.Module) -> Any:
    """A method of ``original``, or a partial of a function and it, as one of ``twin``; of others as it is."""
    if isinstance(value, MethodType) and value.__self__ is original:
        return MethodType(value.__func__, twin)
    if isinstance(value, partial) and value.args and value.args[0] is original:
        return update_wrapper(partial(value.func, twin, *value.args[1:], **value.keywords), value)
    return value
