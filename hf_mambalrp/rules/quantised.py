"""Linear layers whose weights are stored in few bits, as the numbers that they stand for."""

from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from hf_mambalrp.rules.constant import constant, is_coded

BITSANDBYTES = {"Int8Params", "Params4bit"}
"""Its classes of weights, by name: the package is optional."""


def is_quantised(module: nn.Module) -> bool:
    """Whether it is a linear layer of bitsandbytes, of torchao or of ``torch.ao.quantization.quantize_dynamic``."""
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor):
        return type(weight).__name__ in BITSANDBYTES or (isinstance(module, nn.Linear) and is_coded(weight))
    return callable(weight) and hasattr(module, "_packed_params")


def dequantised(module: Any, dtype: torch.dtype) -> Tensor:
    """The weight (F_out, F_in) that the layer stands for, made anew.

    bitsandbytes, 4 bits: its blocks of codes and scales; 8 bits: W_ij = codes_ij scale_i / 127 (Dettmers et al. 2022,
    section 2). A layer that rounds its input too rounds in its own forward; that is not explained.
    """
    weight = module.weight
    if not isinstance(weight, Tensor):  # of quantize_dynamic, where it is a method
        return constant(weight(), dtype)
    if type(weight).__name__ == "Params4bit":
        return _four_bits(weight.data, module.weight.quant_state).to(dtype)
    if type(weight).__name__ != "Int8Params":
        return constant(weight, dtype)
    scale: Any = getattr(weight, "SCB", None)
    if scale is None:  # after the layer's first forward bitsandbytes keeps it elsewhere
        scale = module.state.SCB
    found: Tensor = weight.data.to(dtype) * (scale.to(dtype) / 127)[:, None]
    return found


def bias_of(module: nn.Module) -> Tensor | None:
    """The bias of a plain or quantised linear layer."""
    bias: Any = module.bias
    found: Tensor | None = bias() if callable(bias) and not isinstance(bias, Tensor) else bias
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
