"""What stands before the first layer: the embedding of token ids, the patches of an image."""

from typing import Any

import torch
from torch import Tensor, nn

from hf_mambalrp.families.parts.reading import reads, wide
from hf_mambalrp.rules.adapters import innermost
from hf_mambalrp.rules.offload import loaded
from hf_mambalrp.rules.twin import in_evaluation

TOKENS = 16
"""Length of the sample."""


class Tokens:
    """Token ids (B, L) to ``scale`` times their embedding.

    ``scales_given`` says whether the model multiplies embeddings that it is given too.
    """

    def __init__(self, module: nn.Module, scale: float = 1.0, *, scales_given: bool = False) -> None:
        self.module, self.scale, self.scales_given = module, scale, scales_given
        self.weight: Tensor = innermost(module).weight
        self.vocabulary_size: int = self.weight.shape[0]
        self.hidden_size: int = self.weight.shape[1]

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, L) -> (B, L, D)."""
        return self._scaled(self._looked_up(inputs))

    def entered(self, embeddings: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        return self._scaled(embeddings) if self.scales_given else embeddings

    def given(self, inputs: Tensor) -> Tensor:
        """What a caller gives the model as embeddings in the place of these ids, in its dtype. (B, L) -> (B, L, D)."""
        embedded = self._looked_up(inputs)
        return embedded if self.scales_given else self._scaled(embedded).to(embedded.dtype)

    def _looked_up(self, inputs: Tensor) -> Tensor:
        with loaded(self.module):
            embedded: Tensor = in_evaluation(self.module)(inputs)
        return embedded

    def _scaled(self, embedded: Tensor) -> Tensor:
        return embedded if self.scale == 1 else embedded.to(wide(embedded.dtype)) * self.scale

    def sample(self) -> dict[str, Tensor]:
        """Ids from all over the vocabulary."""
        ids = torch.linspace(0, self.vocabulary_size - 1, TOKENS).long()[None]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class Patches:
    """Pixels (B, C, height, width) to patches and class tokens with their positions, by the model's own ``embed``."""

    def __init__(self, module: Any) -> None:
        self.module = reads(module, "patch_embed", "embed", "config")
        self.projection: nn.Conv2d = self.module.patch_embed.proj
        self.weight: Tensor = self.projection.weight
        self.hidden_size: int = self.weight.shape[0]

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, C, height, width) -> (B, L, D)."""
        with loaded(self.module):
            module: Any = in_evaluation(self.module)
            embedded: Tensor = module.embed(inputs)
        return embedded

    def entered(self, embeddings: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        return embeddings

    def sample(self) -> dict[str, Tensor]:
        """One picture of waves."""
        channels, size = self.weight.shape[1], self.module.config.image_size
        pixels = torch.arange(channels * size * size, dtype=torch.float32).sin().view(1, channels, size, size)
        return {"pixel_values": pixels}
