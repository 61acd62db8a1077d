"""The model's own answer to many inputs: transformers' forward, not this package's."""

from collections.abc import Iterable, Iterator
from itertools import groupby

import torch
from torch import Tensor

from hf_mambalrp.calls.own_forward import OwnForward
from hf_mambalrp.calls.subject import Subject
from hf_mambalrp.errors import UnknownArchitectureError
from hf_mambalrp.evaluation.perturbation import ZERO, Ids
from hf_mambalrp.families.modules import execution_device
from hf_mambalrp.families.parts import Tokens
from hf_mambalrp.runs.plan import batches

CPU_TOKENS, GPU_TOKENS = 512, 16_384
"""Tokens of one forward. transformers' scan holds (tokens, E, N) several times over, which a CPU's caches should hold:
the packaged model takes 70 µs a token in forwards of 512 tokens and 120 µs in forwards of 2 000."""


def check_has_classes(subject: Subject) -> None:
    """Raise :class:`UnknownArchitectureError` for a regression."""
    network = subject.network()
    config = network.config
    if not network.is_language_model and (config.num_labels == 1 or config.problem_type == "regression"):
        raise UnknownArchitectureError(
            f"{type(subject.model).__name__} is a regression model, which has no class probabilities; this "
            "is done for classifiers and language models."
        )


class ModelOutput:
    """Logit and probability of a class, or of a next token, for inputs given as token ids."""

    def __init__(self, subject: Subject, batch_tokens: int | None) -> None:
        self.subject, network = subject, subject.network()
        self.independent = getattr(network.config, "problem_type", None) == "multi_label_classification"
        check_has_classes(subject)
        on_cpu = execution_device(network.embeddings).type == "cpu"
        self.batch_tokens = batch_tokens or (CPU_TOKENS if on_cpu else GPU_TOKENS)

    def __call__(self, rows: Iterable[Ids], target: int) -> tuple[dict[Ids, float], dict[Ids, float]]:
        """Logit and probability of ``target`` by input; equal inputs are computed once."""
        logits: dict[Ids, float] = {}
        probabilities: dict[Ids, float] = {}
        for batch, found in self.logits(rows):
            chances = found.sigmoid() if self.independent else found.softmax(-1)
            logits.update(zip(batch, found[:, target].tolist(), strict=True))
            probabilities.update(zip(batch, chances[:, target].tolist(), strict=True))
        return logits, probabilities

    @torch.no_grad()
    def logits(self, rows: Iterable[Ids]) -> Iterator[tuple[list[Ids], Tensor]]:
        """Batches of inputs of one length, with their logits (B, V), float64. Equal inputs are one, none is padded."""
        ordered = sorted(set(rows), key=lambda row: (len(row), row))
        forward = OwnForward(self.subject.model, self.subject.network())
        for length, group in groupby(ordered, key=len):
            same = list(group)
            for numbers in batches([length] * len(same), self.batch_tokens):
                batch = [same[number] for number in numbers]
                yield batch, self._logits(forward, batch)

    def _logits(self, forward: OwnForward, batch: list[Ids]) -> Tensor:
        """Logits of inputs of one length. Shape: (B, V), float64."""
        ids = torch.tensor(batch, device=forward.device)
        if not (ids == ZERO).any():
            return forward(input_ids=ids)
        stem = self.subject.network().stem
        assert isinstance(stem, Tokens), "a model of images has no token ids"
        embedded = stem.given(ids.clamp(min=0))
        return forward(inputs_embeds=embedded.masked_fill((ids == ZERO)[..., None], 0.0))
