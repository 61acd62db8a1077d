"""Models of the package mamba_ssm: its checkpoints, as ``state-spaces/mamba-130m`` on the Hub, and its live objects.

Both become transformers' classes, which compute the same logits; what these classes cannot express is an error. Of
mamba_ssm's weights only the embedding is named otherwise in transformers, and all have the same layout.
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Mamba2Config, Mamba2ForCausalLM, Mamba2Model, MambaForCausalLM
from transformers.utils.hub import cached_file

from hf_mambalrp.errors import CheckpointError, UnknownArchitectureError
from hf_mambalrp.models.weight_files import check_fit, checked_weights, hub_options, read_file

OTHER_MODELS = "A config of another model, LayerNorm, or adapters that are not merged make such a difference."
"""Why weights may not fit."""

LANGUAGE_MODELS: dict[str, Any] = {"Mamba1": MambaForCausalLM, "Mamba2": Mamba2ForCausalLM}
"""transformers' class by ``ssm_cfg["layer"]``."""

BOTH_MIXERS = {
    "d_conv": ("conv_kernel", 4),
    "expand": ("expand", 2),
    "conv_bias": ("use_conv_bias", True),
    "bias": ("use_bias", False),
}
MIXERS: dict[str, dict[str, tuple[str, Any]]] = {
    "Mamba1": {**BOTH_MIXERS, "d_state": ("state_size", 16), "dt_rank": ("time_step_rank", "auto")},
    "Mamba2": {
        **BOTH_MIXERS,
        "d_state": ("state_size", 128),
        "headdim": ("head_dim", 64),
        "ngroups": ("n_groups", 1),
        "dt_limit": ("time_step_limit", (0.0, float("inf"))),
        "chunk_size": ("chunk_size", 256),
    },
}
"""By layer: what a setting in ``ssm_cfg`` is called in transformers, and mamba_ssm's default."""

ONLY = {
    "rms_norm": (True, "its blocks have RMSNorm, not LayerNorm"),
    "d_intermediate": (0, "its blocks have no MLP"),
    "attn_layer_idx": ([], "it has no attention layers"),
    "D_has_hdim": (False, "it has one D for each head"),
    "rmsnorm": (True, "its mixers have a gated norm"),
    "norm_before_gate": (False, "its norm comes after the gate"),
}
"""Settings with one value that transformers can express, and what it has."""

NO_EFFECT = {"dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "conv_init", "A_init_range"}
NO_EFFECT |= {"use_fast_path", "use_mem_eff_path", "process_group", "sequence_parallel", "fused_add_norm", "attn_cfg"}
"""Settings that initialise weights or choose kernels: a trained model's logits do not depend on them."""

RENAMED = {"backbone.embedding.weight": "backbone.embeddings.weight"}


def transformers_config(config: Mapping[str, Any]) -> Any:
    """Translate the content of mamba_ssm's ``config.json``; what it leaves out has mamba_ssm's default.

    Args:
        config: ``d_model``, ``n_layer``, ``vocab_size``, and any of ``ssm_cfg``, ``rms_norm``, ``residual_in_fp32``,
            ``fused_add_norm``, ``pad_vocab_size_multiple``, ``tie_embeddings``, ``d_intermediate``,
            ``attn_layer_idx``, ``attn_cfg``.

    Returns:
        ``MambaConfig`` or ``Mamba2Config``. ``vocab_size`` is rounded up to ``pad_vocab_size_multiple``. Begin, end and
        padding are token 0, as in the vocabulary of GPT-NeoX that state-spaces trains with.

    Raises:
        UnknownArchitectureError: a setting that transformers' class cannot express; says which, and its value.
    """
    mixer = config.get("ssm_cfg") or {}
    if not isinstance(mixer, Mapping):
        raise _unsupported("ssm_cfg", mixer, "it is not a mapping")
    rest = {name: value for name, value in {**config, **mixer}.items() if name not in {"ssm_cfg", *NO_EFFECT}}
    layer = rest.pop("layer", "Mamba1")
    if layer not in list(LANGUAGE_MODELS):
        raise _unsupported("layer", layer, f"known are {list(LANGUAGE_MODELS)}")
    for name, (only, why) in ONLY.items():
        if (value := rest.pop(name, None)) is not None and bool(value) != bool(only):
            raise _unsupported(name, value, why)
    try:
        multiple = rest.pop("pad_vocab_size_multiple", 8)
        settings = {
            "hidden_size": int(rest.pop("d_model")),
            "num_hidden_layers": int(rest.pop("n_layer")),
            "vocab_size": -(-rest.pop("vocab_size") // multiple) * multiple,
            "residual_in_fp32": rest.pop("residual_in_fp32", True),
            "tie_word_embeddings": rest.pop("tie_embeddings", True),
            "layer_norm_epsilon": 1e-5,
            **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0),
            **{theirs: rest.pop(name, default) for name, (theirs, default) in MIXERS[layer].items()},
        }
        if layer == "Mamba2":
            inner = int(settings["expand"] * settings["hidden_size"])
            settings["num_heads"] = inner // settings["head_dim"]
            if rest.get("d_ssm") in (None, inner):
                rest.pop("d_ssm", None)  # otherwise a gated MLP stands beside the state space, and it is left over
        translated = LANGUAGE_MODELS[layer].config_class(**settings)
    except Exception as error:  # newer releases of transformers validate with an error class of their own
        raise UnknownArchitectureError(f"mamba_ssm's config {dict(config)} describes no model: {error!r}.") from error
    for name, value in rest.items():
        raise _unsupported(name, value, f"no such setting of {layer} is known")
    if layer == "Mamba2" and translated.n_groups > 1 and not _norm_is_grouped():
        raise _unsupported("ngroups", translated.n_groups, "upgrade transformers; in 5.23 each group has its own norm")
    return translated


def transformers_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name mamba_ssm's weights as transformers does; the tensors are the same objects in the same layout."""
    return {RENAMED.get(name, name): value for name, value in state_dict.items()}


def find_config(source: Any, options: Mapping[str, Any]) -> Any | None:
    """Return the translated configuration of a folder or Hub id in mamba_ssm's format; None where it is in another.

    The format is a ``config.json`` with ``d_model`` and ``n_layer`` and without ``model_type``. ``options`` are those
    of ``from_pretrained``.

    Raises:
        UnknownArchitectureError: as :func:`transformers_config`.
    """
    try:
        with open(cached_file(source, "config.json", **hub_options(options)), encoding="utf-8") as file:
            config = json.load(file)
    except (OSError, ValueError, TypeError):
        return None  # transformers meets the same and says so in its own words
    if not isinstance(config, dict) or "model_type" in config or not {"d_model", "n_layer"} <= config.keys():
        return None
    return transformers_config(config)


def load(loader: Callable[..., Any], model_class: Any, source: Any, *args: Any, **options: Any) -> Any | None:
    """Load what ``source`` holds in mamba_ssm's format with ``loader``, transformers' ``model_class.from_pretrained``.

    Options are those of ``loader``, which is asked for its loading info. mamba_ssm keeps ``A_log`` and ``D`` in float32
    beside half-precision weights, while a model of transformers has one dtype: ``dtype=torch.float32`` loses nothing.

    Returns:
        Model and loading info, or None where ``source`` is in another format.

    Raises:
        UnknownArchitectureError: settings or weights that transformers' class cannot hold, or not ``model_class``'s.
        CheckpointError: no file of weights, a damaged one, or one that holds more than weights.
    """
    config = find_config(source, options) if source is not None and options.get("state_dict") is None else None
    if config is None:
        return None
    if not issubclass(model_class.config_class, type(config)):
        right = type(config).__name__.replace("Config", "LRPForCausalLM")
        raise UnknownArchitectureError(
            f"{source} is a {config.model_type!r} checkpoint, {model_class.__name__} is for "
            f"{model_class.config_class.model_type!r}. Load it with {right} or AutoMambaLRPForCausalLM."
        )
    weights = transformers_state_dict(_read_weights(source, options))
    embedding = weights.get("backbone.embeddings.weight")
    if embedding is not None:
        config.vocab_size = len(embedding)
        if config.tie_word_embeddings and not torch.equal(embedding, weights.setdefault("lm_head.weight", embedding)):
            raise _unsupported("tie_embeddings", True, "lm_head.weight in the file differs from the embedding")
    if options.get("config") is None:  # settings of the configuration among the options, as transformers takes them
        for name in [name for name in options if hasattr(config, name) and name not in ("dtype", "torch_dtype")]:
            setattr(config, name, options.pop(name))
        options["config"] = config
    empty = _empty(config)
    check_fit(empty, weights, source, OTHER_MODELS)
    if config.tie_word_embeddings and not empty._tied_weights_keys:  # transformers 4 cannot save a tied Mamba-2
        config.tie_word_embeddings, weights["lm_head.weight"] = False, weights["lm_head.weight"].clone()
    model, info = loader(None, *args, **options, state_dict=weights, output_loading_info=True)
    model.config.name_or_path = model.name_or_path = str(source)
    return model, info


def is_live(model: Any) -> bool:
    """Whether ``model`` is a ``MambaLMHeadModel`` of mamba_ssm, which is not imported for the answer."""
    return type(model).__name__ == "MambaLMHeadModel" and type(model).__module__.split(".")[0] == "mamba_ssm"


def twin(live: Any) -> Any:
    """Build the transformers model whose parameters are those of a live ``MambaLMHeadModel``: the same objects.

    So training in place or ``live.to(...)`` is seen by both, and no memory is needed. After parameters of ``live`` were
    replaced by others, :func:`share` again.

    Raises:
        UnknownArchitectureError: settings or weights that transformers' class cannot hold.
    """
    config = getattr(live, "config", None)
    if config is None:
        raise UnknownArchitectureError("This MambaLMHeadModel has no config; mamba_ssm's models have one from 1.1 on.")
    translated = transformers_config(config if isinstance(config, Mapping) else vars(config))
    translated.vocab_size = live.backbone.embedding.num_embeddings
    model = _empty(translated).eval()
    share(live, model)
    return model


def share(live: nn.Module, model: nn.Module) -> None:
    """Give ``model``, its twin, the parameters that ``live`` has now.

    Raises:
        UnknownArchitectureError: ``live`` has parameters of other names or shapes, as those of adapters.
    """
    parameters = transformers_state_dict(dict(live.named_parameters(remove_duplicate=False)))
    check_fit(model, parameters, type(live).__name__, OTHER_MODELS)
    for name, parameter in parameters.items():
        module, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(module), leaf, parameter)


def through_twin(method: Callable[..., Any], live: nn.Module, model: nn.Module, *args: Any, **options: Any) -> Any:
    """Call ``method`` on the twin of ``live``, with the parameters that ``live`` has now."""
    share(live, model)
    return method(model, *args, **options)


def _unsupported(name: str, value: Any, why: str) -> UnknownArchitectureError:
    return UnknownArchitectureError(
        f"transformers' classes cannot express {name}={value!r} of this mamba_ssm model: {why}. Nothing was loaded."
    )


def _empty(config: Any) -> Any:
    """The language model of ``config`` without weights."""
    (language_model,) = (found for found in LANGUAGE_MODELS.values() if found.config_class is type(config))
    with torch.device("meta"):
        return language_model(config)


def _read_weights(source: Any, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights as they are in the file; those of a ``.bin`` stay on disk until they are used."""
    path = _find_weights(source, options)
    return checked_weights(read_file(path), path)


def _find_weights(source: Any, options: Mapping[str, Any]) -> str:
    wanted = {"model.safetensors": True, "pytorch_model.bin": False}
    for name, safe in wanted.items():
        if options.get("use_safetensors") in (None, safe):
            try:
                return str(cached_file(source, name, **hub_options(options)))
            except OSError as error:
                reason = error
    raise CheckpointError(f"{source} has no weights in {list(wanted)}: {reason}") from reason


@cache
def _norm_is_grouped() -> bool:
    """Whether the installed Mamba-2 norms each group of channels by itself, as mamba_ssm does."""
    config = Mamba2Config(hidden_size=2, expand=1, num_heads=2, head_dim=1, n_groups=2, num_hidden_layers=1)
    with torch.device("meta"):
        norm = Mamba2Model(config).layers[0].mixer.norm
    norm.weight = nn.Parameter(torch.ones(2))
    with torch.no_grad():
        return bool(torch.allclose(norm(torch.tensor([[1.0, 3.0]])), torch.ones(2), atol=1e-3))
