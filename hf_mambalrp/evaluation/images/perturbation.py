"""Perturbed pictures: which pixels go, what stands in their place, and what the curves of the model's output say."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.calls.image_inputs import ImageBatch, without_content
from hf_mambalrp.calls.subject import Subject
from hf_mambalrp.evaluation.outputs import check_has_classes
from hf_mambalrp.evaluation.perturbation import area, counts_of, on_grid, order_of
from hf_mambalrp.families.modules import execution_device
from hf_mambalrp.rules.twin import evaluation_twin

Perturbed = tuple[str, bytes]
"""What stands in the place of pixels, and which pixels, a byte each."""
STEPS = tuple(percent / 100 for percent in range(10, 100, 10))
"""Shares of the pixels that go in the papers' protocol."""
PAPERS = "black"
"""What stands in their place there."""


@dataclass(frozen=True)
class Plan:
    """The perturbed pictures of one map.

    ``flip``: patches go in the order of their relevance, most relevant first (MoRF) and least relevant first (LeRF).
    ``positive`` and ``negative``: the papers' protocol, where the 10, 20 .. 90 % of the pixels of the enlarged map that
    are most, or least, relevant become black.
    """

    counts: tuple[int, ...]
    """Numbers of patches that go along ``flip``."""
    rows: Mapping[str, list[Perturbed]]

    def measures(self, logits: Mapping[Perturbed, Tensor], output: Mapping[Perturbed, Tensor], target: int) -> Any:
        """ΔA^F = A_LeRF - A_MoRF of ``output`` with its curves, and the papers' accuracies, from (V,) each."""
        curves = {name: [float(output[row][target]) for row in self.rows[name]] for name in ("flip_morf", "flip_lerf")}
        areas = {name: area(self.counts, values) for name, values in curves.items()}
        right = {
            name: sum(float(logits[row].argmax() == target) for row in self.rows[name]) / len(STEPS)
            for name in ("positive", "negative")
        }
        return {
            "delta_flip": areas["flip_lerf"] - areas["flip_morf"],
            "positive_accuracy": right["positive"],
            "negative_accuracy": right["negative"],
            "curves": {name: on_grid(self.counts, values) for name, values in curves.items()},
        }


def plan(
    relevance: Tensor, pixels: Tensor, *, patch_size: int, stride: int, step: int | float | str, replacement: str
) -> Plan:
    """The plan of a map (rows, columns), whose enlarged form is ``pixels`` (S, S)."""
    columns, n = relevance.shape[1], relevance.numel()
    counts, order = counts_of(n, step), order_of(relevance.flatten().tolist(), range(n))

    def without(patches: Iterable[int]) -> Perturbed:
        return without_patches(patches, columns, pixels.shape[0], patch_size, stride, replacement)

    def black(ordered: Tensor, share: float) -> Perturbed:
        gone = torch.zeros(pixels.numel(), dtype=torch.bool)
        gone[ordered[: int(share * len(ordered))]] = True
        return PAPERS, gone.numpy().tobytes()

    flat = pixels.flatten()
    most, least = flat.argsort(descending=True, stable=True), flat.argsort(stable=True)
    return Plan(
        counts,
        {
            "flip_morf": [without(order[:k]) for k in counts],
            "flip_lerf": [without(order[::-1][:k]) for k in counts],
            "positive": [black(most, share) for share in STEPS],
            "negative": [black(least, share) for share in STEPS],
        },
    )


def without_patches(
    patches: Iterable[int], columns: int, size: int, patch_size: int, stride: int, replacement: str
) -> Perturbed:
    """A picture (size, size) without some of its patches, which are counted row by row."""
    gone = torch.zeros((size, size), dtype=torch.bool)
    for patch in patches:
        top, left = patch // columns * stride, patch % columns * stride
        gone[top : top + patch_size, left : left + patch_size] = True
    return replacement, gone.numpy().tobytes()


class ImageOutput:
    """The model's own answer to perturbed forms of one picture: its forward, not this package's."""

    def __init__(self, subject: Subject, batch_size: int) -> None:
        network = subject.network()
        check_has_classes(subject)
        self.independent = getattr(network.config, "problem_type", None) == "multi_label_classification"
        self.batch_size, self._device = batch_size, execution_device(network.embeddings)
        self._model = evaluation_twin(subject.model)

    @torch.no_grad()
    def __call__(self, batch: ImageBatch, wanted: Iterable[Perturbed]) -> dict[Perturbed, Tensor]:
        """Logits (V,), float64, by perturbed form; equal ones are computed once."""
        ordered = sorted(set(wanted))
        whole = batch.pixel_values[0]
        fillers = {how: without_content(batch, how)[0] for how in {how for how, _ in ordered}}
        found: dict[Perturbed, Tensor] = {}
        for start in range(0, len(ordered), self.batch_size):
            some = ordered[start : start + self.batch_size]
            gone = [torch.frombuffer(bytearray(pixels), dtype=torch.bool).view(whole.shape[1:]) for _, pixels in some]
            inputs = [torch.where(mask, fillers[how], whole) for mask, (how, _) in zip(gone, some, strict=True)]
            logits = self._model(pixel_values=torch.stack(inputs).to(self._device)).logits
            found.update(zip(some, logits.double().cpu(), strict=True))
        return found

    def predicted(self, batch: ImageBatch) -> int:
        """The most probable class of the picture itself."""
        whole: Perturbed = PAPERS, bytes(batch.pixel_values[0, 0].numel())
        return int(self(batch, [whole])[whole].argmax())

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of the classes. Shape: (V,) -> (V,)."""
        return logits.sigmoid() if self.independent else logits.softmax(-1)
