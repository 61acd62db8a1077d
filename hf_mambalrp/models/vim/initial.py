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
from hf_mambalrp.models.vim.parts import VimMixer, VimOutProjection, VimRMSNorm, VimStepSizes

STEP_SIZES, SMALLEST_STEP = (1e-3, 0.1), 1e-4
"""Step sizes of a new model lie between the two, evenly in their logarithm, and never below the last."""
CUT_AT_TWO = 0.87962566103423978
"""Standard deviation of a normal distribution that is cut at twice its own."""


def fill(parameter: Tensor | None, draw: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Draw the values of a parameter, unless they were loaded."""
    if parameter is not None and not getattr(parameter, "_is_hf_initialized", False):
        draw(parameter, *args, **options)


def init_head(linear: nn.Module, std: float) -> None:
    """Draw the weights of a linear map that reads class tokens; its bias is 0."""
    if isinstance(linear, nn.Linear):
        fill(linear.weight, nn.init.trunc_normal_, std=std)
        fill(linear.bias, nn.init.zeros_)


def init_part(module: nn.Module, config: VimConfig) -> None:
    """Draw a module's own parameters, and none of modules in it: transformers skips modules whose own are loaded.

    Linear maps and causal convolutions are drawn as torch does, out_proj smaller by sqrt(layers); A = -1 ... -N, D = 1.
    """
    if isinstance(module, VimMixer):
        for direction in ("", "_b"):
            fill(module.get_parameter(f"A{direction}_log"), _decay_rates)
            fill(module.get_parameter(f"D{direction}"), nn.init.ones_)
    elif isinstance(module, VimRMSNorm):
        fill(module.weight, nn.init.ones_)
    elif isinstance(module, nn.Conv2d):  # LeCun's
        std = module.weight[0].numel() ** -0.5 / CUT_AT_TWO
        fill(module.weight, nn.init.trunc_normal_, std=std, a=-2 * std, b=2 * std)
        fill(module.bias, nn.init.zeros_)
    elif isinstance(module, (nn.Conv1d, nn.Linear)):
        inputs = module.weight[0].numel() * (config.num_hidden_layers if isinstance(module, VimOutProjection) else 1)
        fill(module.weight, nn.init.uniform_, -(inputs**-0.5), inputs**-0.5)
        if isinstance(module, nn.Conv1d):
            fill(module.bias, nn.init.uniform_, -(inputs**-0.5), inputs**-0.5)
        elif isinstance(module, VimStepSizes):
            fill(module.bias, _step_sizes)


def _step_sizes(bias: Tensor) -> None:
    low, high = map(math.log, STEP_SIZES)
    dt = torch.exp(torch.empty_like(bias, dtype=torch.float32).uniform_(low, high)).clamp(min=SMALLEST_STEP)
    bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus of it is dt


def _decay_rates(A_log: Tensor) -> None:
    A_log.copy_(torch.arange(1, A_log.shape[1] + 1, device=A_log.device).log())
