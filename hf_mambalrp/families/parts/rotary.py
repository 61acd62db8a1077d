"""RoPE (Su et al. 2021): queries and keys turned by angles in proportion to their positions."""

from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.families.base import Step
from hf_mambalrp.rules.twin import evaluation_twin


class Rotary:
    """The model's rotary embedding, which makes cos and sin of positions; a linear map of what it turns."""

    def __init__(self, module: Any) -> None:
        self.module = evaluation_twin(module)  # some write into themselves

    def __call__(self, x: Tensor, step: Step, *heads: Tensor) -> list[Tensor]:
        """Turn heads (B, L, H, P), each as they are at the step's positions; ``x`` (B, L, D) gives device and dtype."""
        positions = torch.arange(step.start, step.start + x.shape[1], device=x.device)
        # With the last of the text, whose length sets the frequencies of some.
        positions = torch.cat([positions, torch.full_like(positions[:1], step.length - 1)])[None]
        if hasattr(self.module, "mrope_section"):  # turns by time, height and width, which are one for text
            positions = positions.expand(3, *positions.shape)
        with torch.no_grad():
            cos, sin = (one[:, :-1, None] for one in self.module(x, positions))
        return [turned(one, cos, sin) for one in heads]


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first of a head's dimensions, as many as cos has; the two of a pair are half of them apart."""
    pairs, rest = x.split([cos.shape[-1], x.shape[-1] - cos.shape[-1]], -1)
    first, second = pairs.chunk(2, -1)
    return torch.cat([pairs * cos + torch.cat([-second, first], -1) * sin, rest], -1)
