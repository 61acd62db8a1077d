"""Weights that bitsandbytes stores in 8 or 4 bits, as the numbers they stand for."""

from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

QUANTISED = {"Int8Params", "Params4bit"}
"""bitsandbytes' classes of weights, by name: the package is optional."""


def is_quantised(module: nn.Module) -> bool:
    """Whether it is a linear layer of bitsandbytes."""
    return type(getattr(module, "weight", None)).__name__ in QUANTISED


def dequantised(module: nn.Module, dtype: torch.dtype) -> Tensor:
    """The weight (F_out, F_in) that the layer stands for, made anew.

    4 bits: bitsandbytes' blocks of codes and scales. 8 bits: W_ij = codes_ij scale_i / 127 (Dettmers et al. 2022,
    section 2); the layer's own forward quantises its input too, which is rounding and is not explained.
    """
    weight: Any = module.weight
    if type(weight).__name__ == "Params4bit":
        return _four_bits(weight.data, weight.quant_state).to(dtype)
    scale: Any = getattr(weight, "SCB", None)
    if scale is None:  # after the layer's first forward bitsandbytes keeps it elsewhere
        scale = module.state.SCB  # type: ignore[union-attr]
    found: Tensor = weight.data.to(dtype) * (scale.to(dtype) / 127)[:, None]
    return found


def _four_bits(codes: Tensor, state: Any) -> Tensor:
    from bitsandbytes import functional

    if getattr(state, "packing_format_for_cpu", False):
        # What its forward on some CPUs turns the weight into, for good, with scales rounded to bfloat16. The way back
        # writes into the state, so it gets a copy, and it leaves scales that are not quantised transposed.
        codes, state = functional._convert_weight_packed_for_cpu_inverse(codes, copy(state))
        if not state.nested:
            state.absmax = state.absmax.T.reshape(-1).float()
    found: Tensor = functional.dequantize_4bit(codes, state)
    return found
