"""What is asked of the modules of a model, whatever its family: where they compute, and what was put around them."""

from typing import Any

import torch
from torch import Tensor, nn

from hf_mambalrp.rules.linear import is_plain
from hf_mambalrp.rules.quantised import is_quantised
from hf_mambalrp.rules.twin import uncompiled


def walk(model: nn.Module) -> list[nn.Module]:
    """Every module of the model once; many times faster than ``modules()``, which names them."""
    found: dict[int, nn.Module] = {}
    left = [model]
    while left:
        module = left.pop()
        if id(module) not in found:
            found[id(module)] = module
            left += [child for child in module._modules.values() if child is not None]
    return list(found.values())


def base_model(model: nn.Module) -> nn.Module:
    """The transformers model inside wrappers of PEFT, whose adapters sit in its own layers, and of torch.compile."""
    unwrap = getattr(model, "get_base_model", None)
    inner: nn.Module = uncompiled(unwrap() if callable(unwrap) else model)
    return inner


def execution_device(module: nn.Module) -> torch.device:
    """Where the module computes: its hook's device under offload, else that of its parameters.

    Layers without parameters hold packed codes, as those of ``quantize_dynamic``, which compute on the CPU.
    """
    device = _of_hook(module)
    parameter = _first_parameter(module)
    if device is None and parameter is not None and parameter.is_meta:  # the hooks are those of what holds weights
        device = next((found for part in module.modules() if (found := _of_hook(part)) is not None), None)
    if device is not None:
        return torch.device(device)
    return torch.device("cpu") if parameter is None else parameter.device


def _first_parameter(module: nn.Module) -> Tensor | None:
    """The first of ``module.parameters()``, which takes ten times as long: it names them."""
    for parameter in module._parameters.values():
        if parameter is not None:
            return parameter
    inside = (_first_parameter(child) for child in module._modules.values() if child is not None)
    return next((parameter for parameter in inside if parameter is not None), None)


def _of_hook(module: nn.Module) -> Any:
    return getattr(vars(module).get("_hf_hook"), "execution_device", None)


def is_recordable(model: nn.Module) -> bool:
    """Whether its layers are nothing but weights: no hooks, adapters, quantised or offloaded layers."""
    linear = (module for module in walk(model) if isinstance(module, nn.Linear))
    return not hasattr(model, "_hf_hook") and all(
        is_plain(module) and not is_quantised(module) and not hasattr(module, "_hf_hook") for module in linear
    )
