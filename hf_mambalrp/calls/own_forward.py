"""The model's own answer to token ids: transformers' forward, not this package's."""

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from hf_mambalrp.calls.forward_check import without_cache
from hf_mambalrp.families import Network
from hf_mambalrp.families.modules import execution_device
from hf_mambalrp.rules.twin import evaluation_twin


class OwnForward:
    """The forward of a model as it is now, in evaluation mode, of images or of inputs without padding."""

    def __init__(self, model: nn.Module, network: Network) -> None:
        self.device = execution_device(network.embeddings)
        self._model = evaluation_twin(model)
        self._reads_the_end = network.is_language_model
        last_only = "logits_to_keep" in signature(network.model.forward).parameters
        self._options: dict[str, Any] = {**({"logits_to_keep": 1} if last_only else {}), **without_cache(network)}

    @torch.no_grad()
    def __call__(self, **inputs: Tensor) -> Tensor:
        """Logits of the classes, or of the next token, float64.

        Shape: ids (B, L), embeddings (B, L, D) or pixel values (B, C, S, S) -> (B, V).
        """
        if "pixel_values" not in inputs:
            (given,) = inputs.values()
            inputs["attention_mask"] = torch.ones(given.shape[:2], dtype=torch.int64, device=self.device)
        logits: Tensor = self._model(**inputs, **self._options).logits
        return (logits[:, -1] if self._reads_the_end else logits).double().cpu()
