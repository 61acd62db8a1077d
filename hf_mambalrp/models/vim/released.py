"""Checkpoints of the papers' own code: Vim (``hustvl/Vim-tiny-midclstok``), Mamba-R, and VideoMamba's for images.

They are files of ``torch.save``: a dictionary with the weights in ``model``, for Vim their moving average in
``model_ema``, and the settings of the training in ``args``. Sizes are read off the weights, which keep their names.
What weights cannot say comes from ``args``, from the file's name or from the caller, and is never guessed: where the
class token stands and whether both directions are halved, which are all that tells Vim from VideoMamba, and the stride.
"""

import re
from argparse import Namespace
from collections.abc import Callable, Mapping
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils.hub import cached_file

from hf_mambalrp.errors import CheckpointError, OptionError, UnknownArchitectureError
from hf_mambalrp.models.vim.configuration import VimConfig
from hf_mambalrp.models.vim.positions import among_patches, apart, resized
from hf_mambalrp.models.weight_files import check_fit, checked_weights, hub_options, read_file

SUFFIXES = (".pth", ".pt")
NEEDED = (
    *("cls_token", "pos_embed", "patch_embed.proj.weight", "layers.0.mixer.A_log", "layers.0.mixer.A_b_log"),
    *("layers.0.mixer.conv1d.weight", "layers.0.mixer.dt_proj.weight"),
)
"""Weights whose shapes are the sizes of the model."""

OTHER_MODELS = (
    "Layer scale, LayerNorm, two class tokens, other scans or adapters make such a difference; so does a size that was "
    "given and is not the checkpoint's."
)
"""Why weights may not fit."""


def find(source: Any, options: Mapping[str, Any]) -> str | None:
    """Return the released file that ``source`` is or holds; None where it is in transformers' format.

    ``source`` is a file (``.pth``, ``.pt``), a folder with one and without ``config.json``, or a file of a repository,
    as ``hustvl/Vim-tiny-midclstok/vim_t_midclstok_76p1acc.pth``. ``options`` are those of ``from_pretrained``.

    Raises:
        CheckpointError: several such files in the folder, or none of that name.
    """
    if source is None:
        return None
    path = Path(source)
    if path.suffix in SUFFIXES:
        return str(path) if path.is_file() else _from_the_hub(str(source), options)
    found = sorted(file for suffix in SUFFIXES for file in path.glob(f"*{suffix}")) if path.is_dir() else []
    if not found or (path / "config.json").exists():
        return None
    if len(found) > 1:
        raise CheckpointError(f"{source} has several checkpoints, {[file.name for file in found]}. Name the file.")
    return str(found[0])


def _from_the_hub(source: str, options: Mapping[str, Any]) -> str:
    owner, _, rest = source.partition("/")
    name, _, file = rest.partition("/")
    try:
        return str(cached_file(f"{owner}/{name}", file, **hub_options(options)))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{source} is no file here, and none on the Hub that can be reached, where it is written "
            f"owner/name/file.pth: {error}"
        ) from error


def read(path: str, which: str) -> tuple[dict[str, Tensor], Namespace]:
    """Return the weights of a released file and the settings of its training, which may be empty.

    Args:
        path: of the file; a bare dictionary of weights is read as well.
        which: "model", or "model_ema" for their moving average.

    Raises:
        CheckpointError: a damaged file, or one that holds more than weights and settings.
        OptionError: the file has no such weights.
    """
    content = read_file(path, also=[Namespace])
    settings = Namespace()
    if isinstance(content, dict) and not all(isinstance(value, Tensor) for value in content.values()):
        if content.get(which) is None:
            there = [name for name in ("model", "model_ema") if content.get(name) is not None]
            raise OptionError(f"{path} has no weights={which!r}. It has {there or sorted(map(str, content))}.")
        settings, content = content.get("args") or settings, content[which]
    elif which != "model":
        raise OptionError(f"{path} has one copy of the weights, and no weights={which!r}. Leave the option out.")
    return checked_weights(content, path), settings if isinstance(settings, Namespace) else Namespace()


def vim_config(
    weights: Mapping[str, Tensor], settings: Namespace, source: Any, given: Mapping[str, Any] | None = None
) -> VimConfig:
    """Read the configuration off released weights.

    Args:
        weights: by their released names.
        settings: of the training; ``model``, the name of the model, and ``input_size`` are read where they are.
        source: where the weights come from; its file name is read too.
        given: ``stride``, ``class_token`` or ``divide_out``, where nothing else says them.

    Raises:
        UnknownArchitectureError: a network that :class:`VimModel` is not; says what does not fit.
        OptionError: what the weights cannot say is said nowhere.
    """
    given = given or {}
    rotary = sorted(name for name in weights if name.startswith("rope.") or ".rope." in name or "freqs_" in name)
    if rotary:
        raise UnknownArchitectureError(
            f"{source} has rotary positions, {rotary[:3]}, as Vim's first release; VimModel has none. Load one of the "
            "checkpoints with a class token in the middle, such as hustvl/Vim-tiny-midclstok."
        )
    lacking = [name for name in NEEDED if name not in weights]
    if lacking:
        raise UnknownArchitectureError(
            f"{source} is no Vision Mamba of two directions with a class token: it lacks {lacking}, and has such as "
            f"{sorted(weights)[:5]}."
        )
    projection = weights["patch_embed.proj.weight"]
    if projection.ndim != 4 or projection.shape[2] != projection.shape[3]:
        raise UnknownArchitectureError(
            f"{source} cuts patches of {tuple(projection.shape[2:])}, as a model of videos does; VimModel takes "
            "images and square patches."
        )
    hidden, channels, patch, _ = projection.shape
    inner, state = weights["layers.0.mixer.A_log"].shape
    spread, neck, head = "pos_embed_cls" in weights, weights.get("neck.weight"), weights.get("head.bias")
    stride, image_size = _grid(weights["pos_embed"].shape[1] - (not spread), patch, spread, settings, source, given)
    class_token, divide_out = ("spread", True) if spread else _layout(settings, source, given)
    return VimConfig(
        image_size=image_size,
        patch_size=patch,
        stride=stride,
        num_channels=channels,
        hidden_size=hidden,
        num_hidden_layers=len({name.split(".")[1] for name in weights if name.startswith("layers.")}),
        state_size=state,
        conv_kernel=weights["layers.0.mixer.conv1d.weight"].shape[-1],
        expand=inner // hidden,
        time_step_rank=weights["layers.0.mixer.dt_proj.weight"].shape[1],
        class_token=class_token,
        num_class_tokens=weights["cls_token"].shape[1],
        neck_reduction=1 if neck is None else hidden // len(neck),
        divide_out=divide_out,
        **({} if head is None else {"num_labels": len(head)}),
    )


def _grid(
    patches: int, patch: int, spread: bool, settings: Namespace, source: Any, given: Mapping[str, Any]
) -> tuple[int, int]:
    """Stride and image size. G patches a side with that stride cover (G - 1) stride + P pixels."""
    side = isqrt(patches)
    if side**2 != patches:
        raise UnknownArchitectureError(
            f"{source} has positions of {patches} patches, which are no square; VimModel was trained on square images."
        )
    trained, stride = getattr(settings, "input_size", None), given.get("stride")
    if stride is None and spread:
        stride = patch  # Mamba-R's patches never overlap
    if stride is None and trained is not None:
        fitting = [s for s in range(patch, 0, -1) if (trained - patch) // s + 1 == side]
        stride = next((s for s in fitting if (trained - patch) % s == 0), fitting[0] if fitting else None)
    if stride is None:
        raise OptionError(
            f"The stride of {source} is said nowhere: {side} x {side} patches of {patch} pixels are an image of "
            f"{side * patch} pixels at stride {patch}, and smaller with a smaller stride. Pass stride=..., for Vim 16, "
            "or 8 where it was fine-tuned on finer patches."
        )
    covered = (side - 1) * stride + patch
    if trained is None or (trained - patch) // stride + 1 == side:
        return stride, covered if trained is None else trained
    if "stride" in given:
        raise OptionError(
            f"stride={stride} does not fit {source}, which was trained on {trained} pixels and has {side} x {side} "
            "positions. Leave stride out."
        )
    return stride, covered


def _layout(settings: Namespace, source: Any, given: Mapping[str, Any]) -> tuple[str, bool]:
    """Where the class token stands, and whether both directions are halved."""
    model, file = str(getattr(settings, "model", "")).lower(), Path(source).stem.lower()
    class_token, divide_out = None, None
    if "videomamba" in model or "videomamba" in file:
        class_token, divide_out = "first", False
    elif "midclstok" in model or "middle_cls_token" in model:
        class_token, divide_out = "middle", "div2" in model
    elif re.match(r"vim_[tsb]_midclstok", file):
        class_token, divide_out = "middle", True
    class_token, divide_out = given.get("class_token", class_token), given.get("divide_out", divide_out)
    if class_token is None or divide_out is None:
        raise OptionError(
            f"Where the class token of {source} stands, and whether both directions are halved, is said nowhere, and "
            "Vim's and VideoMamba's weights look alike. Pass class_token='middle', divide_out=True for Vim; "
            "class_token='first', divide_out=False for VideoMamba."
        )
    return class_token, divide_out


def for_image_size(weights: Mapping[str, Tensor], config: VimConfig, image_size: int) -> dict[str, Tensor]:
    """Interpolate the positions of patches for another image size; class tokens keep theirs.

    ``config.image_size`` becomes the new one. Deviation: Vim's own code takes the first position for the class
    token's, which stands in the middle.
    """
    old, places, tokens = config.grid(config.image_size, config.image_size), config.class_token_positions, None
    of_patches = weights["pos_embed"]
    if config.class_token != "spread":
        of_patches, tokens = apart(of_patches, places)
    config.image_size = image_size
    config.check()
    of_patches = resized(of_patches, old, config.grid(image_size, image_size))
    if tokens is not None:
        of_patches = among_patches(of_patches, tokens, config.class_token_positions)
    return {**weights, "pos_embed": of_patches}


def load(loader: Callable[..., Any], model_class: Any, source: Any, *args: Any, **options: Any) -> Any | None:
    """Load a released checkpoint with ``loader``, transformers' ``model_class.from_pretrained``.

    Options are those of ``loader``, which is asked for its loading info, settings of :class:`VimConfig`, and
    ``weights``, "model" or "model_ema". With another ``image_size`` than the trained one, positions are interpolated.

    Returns:
        Model and loading info, or None where ``source`` is in transformers' format.

    Raises:
        UnknownArchitectureError: weights that ``model_class`` cannot hold.
        OptionError: what the weights cannot say is said nowhere, or contradicts them.
        CheckpointError: no such file, a damaged one, or one that holds more than weights and settings.
    """
    path = find(source, options) if options.get("state_dict") is None else None
    if path is None:
        return None
    weights, settings = read(path, options.pop("weights", "model"))
    config = options.get("config")
    if config is None:
        config = vim_config(weights, settings, path, options)
        if "image_size" in options:
            weights = for_image_size(weights, config, options.pop("image_size"))
        for name in [name for name in options if hasattr(config, name) and name not in ("dtype", "torch_dtype")]:
            setattr(config, name, options.pop(name))
        options["config"] = config
    with torch.device("meta"):
        empty = model_class(config)
    headed = any(name.startswith("vim.") for name, _ in empty.named_parameters())
    named = {
        f"vim.{name}" if headed and not name.startswith("head.") else name: value
        for name, value in weights.items()
        if headed or not name.startswith("head.")
    }
    check_fit(empty, named, source, OTHER_MODELS)
    model, info = loader(None, *args, **options, state_dict=named, output_loading_info=True)
    model.config.name_or_path = model.name_or_path = str(source)
    return model, info
