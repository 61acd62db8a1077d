"""Which family a model is of, and what is said of one that is of none."""

from typing import Any

from torch import nn

from hf_mambalrp.errors import UnknownArchitectureError
from hf_mambalrp.families.base import Family

SHARDED = (
    "sharded over processes (FSDP, tensor parallelism), and an explanation reads them whole. Explain a copy that was "
    'loaded with device_map="auto", or the checkpoint saved from it.'
)


def family_of(model: Any, families: dict[str, Family]) -> Family:
    """The family of a model's type.

    Raises:
        UnknownArchitectureError: there is none; says what to do.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    family = families.get(model_type or "") if isinstance(model, nn.Module) else None
    if family is None:
        raise UnknownArchitectureError(_unknown(model, model_type, families))
    return family


def _unknown(model: Any, model_type: str | None, families: dict[str, Family]) -> str:
    """Why there are no rules for ``model``, and what to do."""
    name = type(model).__name__
    if not isinstance(model, nn.Module):
        holds = isinstance(getattr(model, "model", None), nn.Module)
        remedy = "Pass its .model" if holds else "Load one with AutoMambaLRPForCausalLM.from_pretrained(...)"
        return f"Only a loaded model has rules (known: {sorted(families)}), and this is a {name}. {remedy}."
    if name == "FullyShardedDataParallel":
        return f"The weights in a {name} are {SHARDED}"
    if isinstance(getattr(model, "module", None), nn.Module):
        return f"{name} wraps a model: pass its .module. (Known model types: {sorted(families)}.)"
    return (
        f"No rules for {name} (model_type {model_type!r}). Known model types with a language-model or classification "
        f"head: {sorted(families)}. Nothing was explained; a new family is a table in hf_mambalrp/families/."
    )
