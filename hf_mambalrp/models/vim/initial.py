"""Weights of a new Vision Mamba, as the released code draws them.

Deviation: it leaves the step sizes of the backward direction at softplus(0), where most of a state is gone after one
position; here both directions begin alike.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hf_mambalrp.models.vim.configuration import VimConfig
from hf_mambalrp.models.vim.parts import VimMixer, VimRMSNorm

STEP_SIZES, SMALLEST_STEP = (1e-3, 0.1), 1e-4
"""Step sizes of a new model lie between the two, evenly in their logarithm, and never below the last."""
CUT_AT_TWO = 0.87962566103423978
"""Standard deviation of a normal distribution that is cut at twice its own."""


def fill(parameter: Tensor | None, draw: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Draw the values of a parameter, unless they were loaded."""
    if parameter is not None and not getattr(parameter, "_is_hf_initialized", False):
        draw(parameter, *args, **options)


def init_part(module: nn.Module, config: VimConfig) -> None:
    """Draw the weights of a module of the model; transformers calls a mixer after the modules in it."""
    if isinstance(module, VimMixer):
        _init_mixer(module, config)
    elif isinstance(module, VimRMSNorm):
        fill(module.weight, nn.init.ones_)
    elif isinstance(module, nn.Conv2d):  # LeCun's
        fill(module.weight, nn.init.trunc_normal_, std=module.weight[0].numel() ** -0.5 / CUT_AT_TWO)
        fill(module.bias, nn.init.zeros_)
    elif isinstance(module, nn.Linear):
        fill(module.weight, nn.init.trunc_normal_, std=config.initializer_range)
        fill(module.bias, nn.init.zeros_)


def _init_mixer(mixer: VimMixer, config: VimConfig) -> None:
    """Linear maps as torch draws them, out_proj smaller by sqrt(layers); A = -1 ... -N, D = 1; step sizes as above."""
    D, E, R = config.hidden_size, config.intermediate_size, config.time_step_rank
    _uniform(mixer.in_proj.weight, D)
    _uniform(mixer.out_proj.weight, E * config.num_hidden_layers)
    for direction in ("", "_b"):
        _uniform(mixer.get_parameter(f"conv1d{direction}.weight"), config.conv_kernel)
        _uniform(mixer.get_parameter(f"conv1d{direction}.bias"), config.conv_kernel)
        _uniform(mixer.get_parameter(f"x_proj{direction}.weight"), E)
        _uniform(mixer.get_parameter(f"dt_proj{direction}.weight"), R)
        fill(mixer.get_parameter(f"dt_proj{direction}.bias"), _step_sizes)
        fill(mixer.get_parameter(f"A{direction}_log"), _decay_rates)
        fill(mixer.get_parameter(f"D{direction}"), nn.init.ones_)


def _uniform(parameter: Tensor, inputs: int) -> None:
    """As torch draws the weights of a map from so many inputs."""
    fill(parameter, nn.init.uniform_, -(inputs**-0.5), inputs**-0.5)


def _step_sizes(bias: Tensor) -> None:
    low, high = map(math.log, STEP_SIZES)
    dt = torch.exp(torch.empty_like(bias, dtype=torch.float32).uniform_(low, high)).clamp(min=SMALLEST_STEP)
    bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus of it is dt


def _decay_rates(A_log: Tensor) -> None:
    A_log.copy_(torch.arange(1, A_log.shape[1] + 1, device=A_log.device).log())
