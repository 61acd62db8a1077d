"""Modules behind adapters of PEFT, where a rule reads weights instead of calling the module that holds them."""

from typing import Any

from torch import Tensor, nn

from hf_mambalrp.rules.constant import constant


def effective(module: Any) -> Any:
    """What computes in the place of ``module``: itself, or what its active adapter puts there.

    ``modules_to_save`` and LNTuning have a whole module of their own; LoRA of a parameter (``target_parameters``) adds
    to it, W + sum over active adapters of scaling B A, which is put into a copy of the module beside its other weights.
    """
    while type(module).__module__.startswith("peft."):
        if hasattr(module, "modules_to_save"):
            module = _chosen(module, module.original_module, module.modules_to_save)
        elif hasattr(module, "ln_tuning_layers"):
            module = _chosen(module, module.base_layer, module.ln_tuning_layers)
        elif hasattr(module, "base_layer") and hasattr(module, "parameter_name"):
            return _with_parameters(module)
        else:
            break
    return module


def innermost(module: Any) -> Any:
    """The module that was there before any adapter; its weights have the shapes and dtypes that all of them share."""
    while type(module).__module__.startswith("peft."):
        module = module.base_layer if hasattr(module, "base_layer") else module.original_module
    return module


def _chosen(module: Any, original: Any, adapters: Any) -> Any:
    active = [name for name in module.active_adapters if name in adapters]
    off = module.disable_adapters or getattr(module, "merged", False) or not active
    return original if off else adapters[active[0]]


def _with_parameters(wrapper: Any) -> nn.Module:
    """A copy of the wrapped module, sharing all but the adapted parameters."""
    base = wrapper.get_base_layer()
    changed: dict[str, Tensor] = {}
    while wrapper is not base:
        name = wrapper.parameter_name
        for adapter in wrapper.active_adapters:
            if adapter in wrapper.lora_A and not (wrapper.disable_adapters or wrapper.merged):
                before = changed.get(name, constant(getattr(base, name), getattr(base, name).dtype))
                changed[name] = before + wrapper.get_delta_weight(adapter).detach()
        wrapper = wrapper.base_layer
    if not changed:
        found: nn.Module = base
        return found
    copy: nn.Module = object.__new__(type(base))
    vars(copy).update(vars(base), _parameters={**base._parameters, **changed})
    return copy
