"""The model's own answer to many inputs: transformers' forward, not this package's."""

from collections.abc import Iterable
from itertools import groupby

import torch
from torch import Tensor, nn

from hf_mambalrp.calls.own_forward import OwnForward
from hf_mambalrp.errors import UnknownArchitectureError
from hf_mambalrp.evaluation.perturbation import ZERO, Row
from hf_mambalrp.families import FAMILIES, Network
from hf_mambalrp.rules.twin import in_evaluation

CPU_TOKENS, GPU_TOKENS = 512, 16_384
"""Tokens of one forward. transformers' scan holds (tokens, E, N) several times over, which a CPU's caches should hold:
the packaged model takes 70 µs a token in forwards of 512 tokens and 120 µs in forwards of 2 000."""


class ModelOutput:
    """Logit and probability of a class, or of a next token, for inputs given as token ids."""

    def __init__(self, model: nn.Module, batch_size: int | None) -> None:
        self.model, self.batch_size = model, batch_size
        self.network = Network(model, FAMILIES)
        config = self.network.config
        self.independent = getattr(config, "problem_type", None) == "multi_label_classification"
        if not self.network.is_language_model and (config.num_labels == 1 or config.problem_type == "regression"):
            raise UnknownArchitectureError(
                f"{type(model).__name__} is a regression model, which has no class probabilities; faithfulness is "
                "evaluated for classifiers and language models."
            )

    @torch.no_grad()
    def __call__(self, rows: Iterable[Row], target: int) -> tuple[dict[Row, float], dict[Row, float]]:
        """Logit and probability of ``target`` by input; equal inputs are computed once, none is ever padded."""
        ordered = sorted(set(rows), key=lambda row: (len(row), row))
        logits: dict[Row, float] = {}
        probabilities: dict[Row, float] = {}
        forward = OwnForward(self.model, self.network)
        for length, group in groupby(ordered, key=len):
            same = list(group)
            size = self.batch_size or max(1, (CPU_TOKENS if forward.device.type == "cpu" else GPU_TOKENS) // length)
            for start in range(0, len(same), size):
                batch = same[start : start + size]
                found = self._logits(forward, batch)
                chances = found.sigmoid() if self.independent else found.softmax(-1)
                logits.update(zip(batch, found[:, target].tolist(), strict=True))
                probabilities.update(zip(batch, chances[:, target].tolist(), strict=True))
        return logits, probabilities

    def _logits(self, forward: OwnForward, batch: list[Row]) -> Tensor:
        """Logits of inputs of one length. Shape: (B, V), float64."""
        ids = torch.tensor(batch, device=forward.device)
        if not (ids == ZERO).any():
            return forward(input_ids=ids)
        embedded = in_evaluation(self.network.embeddings)(ids.clamp(min=0))
        return forward(inputs_embeds=embedded.masked_fill((ids == ZERO)[..., None], 0.0))
