"""``audit`` of images: screen regions by relevance, confirm by replacing the patches that they touch."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hf_mambalrp.audit.confirming import tested
from hf_mambalrp.audit.effects import Changed
from hf_mambalrp.audit.grouping import groups_of
from hf_mambalrp.audit.reading import called
from hf_mambalrp.audit.regions import Regions
from hf_mambalrp.audit.scores import Scored, log_odds
from hf_mambalrp.audit.words import WordRow
from hf_mambalrp.calls.explain import model_id, versions
from hf_mambalrp.calls.image_inputs import WITHOUT_CONTENT
from hf_mambalrp.calls.inputs import TokenizerSource
from hf_mambalrp.calls.labels import ColumnLabels
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.calls.targets import Outputs
from hf_mambalrp.evaluation.dataset import drawn
from hf_mambalrp.evaluation.images.perturbation import ImageOutput, without_patches
from hf_mambalrp.models.beside import reader_beside
from hf_mambalrp.models.fingerprint import fingerprint
from hf_mambalrp.results.audit import Audit
from hf_mambalrp.results.audit_parts import Group
from hf_mambalrp.runs.checks import one_of
from hf_mambalrp.runs.progress import progress_bar
from hf_mambalrp.runs.rows import class_names

AT_ONCE = 20
"""Forms of one image in a forward."""


class ImageScores:
    """The model's own answer to images: log-odds of every class."""

    def __init__(self, model: nn.Module) -> None:
        subject = subject_of(model)
        self.outputs = Outputs(subject.network(), TokenizerSource(None, subject.place()))
        self.output = ImageOutput(subject, AT_ONCE)

    @property
    def names(self) -> list[str]:
        """Of the classes."""
        return [self.outputs.text_of((number,)) for number in range(self.outputs.size)]

    def __call__(self, batch: Any, forms: Sequence[Any]) -> Tensor:
        """Log-odds of an image in several forms, (n, V); with independent classes their logits."""
        found = self.output(batch, forms)
        logits = torch.stack([found[form] for form in forms])
        return logits if self.output.independent else log_odds(logits)


def audit_images(
    model: Any,
    data: Any,
    *,
    masks: Any,
    replacement: str,
    image_column: str,
    processor: Any,
    label: str | None,
    groups: str | None,
    min_effect: float,
    candidates: int,
    min_texts: int,
    max_texts: int,
    confidence: float,
    seed: int,
    progress: bool,
) -> Audit:
    """Say on which regions of its images a model relies; :func:`hf_mambalrp.audit.audit` documents the arguments."""
    one_of("replacement", replacement, WITHOUT_CONTENT)
    subject, process = subject_of(model), processor if processor is not None else reader_beside(model)()
    network, scores = subject.network(), ImageScores(model)
    images = Regions(data, masks, image_column, network, process, subject.place())
    count, config = len(images), network.config
    whole = "black", bytes(config.image_size**2)
    answers, method = [], ""
    having: dict[str, list[int]] = {name: [] for name in images.masks}
    shares, sums = dict.fromkeys(having, 0.0), dict.fromkeys(having, 0.0)
    for row in progress_bar(range(count), shown=progress, desc="images", unit="image"):
        seen = images.seen(row)
        found = model.explain(pixel_values=seen.batch.pixel_values, processor=process)
        relevance, method = found.relevance[0].double(), found.method
        total = relevance.abs().sum().item()
        for name, part in seen.regions.items():
            having[name].append(row)
            sums[name] += (relevance * part).sum().item()
            shares[name] += (relevance.abs() * part).sum().item() / total if total else 0.0
        answers.append(scores(seen.batch, [whole]))
    every = torch.cat(answers)
    classes = every.argmax(1).tolist() if label is None else _labels(images, label, data, scores.outputs)
    inputs = Scored([str(row) for row in range(count)], every, classes, own=True)
    rows = [
        WordRow(name, len(own), sums[name] / len(own), sums[name], shares[name] / count)
        for name, own in having.items()
        if len(own) >= min_texts
    ]
    rows.sort(key=lambda row: (-row.share / row.texts**0.5, row.pattern))
    screened = rows[:candidates]
    taken = {str(row.pattern): {*drawn(having[str(row.pattern)], max_texts, seed)} for row in screened}
    after: dict[str, dict[int, Tensor]] = {name: {} for name in taken}
    needed = sorted({row for own in taken.values() for row in own})
    for row in progress_bar(needed, shown=progress, desc="without regions", unit="image"):
        seen = images.seen(row)
        touched = {
            name: seen.regions[name].flatten().nonzero().flatten().tolist() for name in taken if row in taken[name]
        }
        kept = {name: patches for name, patches in touched.items() if len(patches) < config.grid_size**2}
        forms = [
            without_patches(patches, config.grid_size, config.image_size, config.patch_size, config.stride, replacement)
            for patches in kept.values()
        ]
        if forms:
            for name, values in zip(kept, scores(seen.batch, forms), strict=True):
                after[name][row] = values
    changes = [Changed(name, dict.fromkeys(own, ""), dict.fromkeys(own, 1.0)) for name, own in after.items()]
    nothing = torch.empty(0, every.shape[1], dtype=torch.float64)
    changed = [torch.stack([*own.values()]) if own else nothing for own in after.values()]
    done = tested(scores, inputs, screened, changes, changed, confidence, min_effect)
    split: tuple[Group, ...] = ()
    small: tuple[str, ...] = ()
    if groups is not None:
        values = [str(images.column(groups, row)) for row in range(count)]
        split, small = groups_of(scores, inputs, values, label is not None, done.relied, confidence, min_texts)
    wrong = sum(own != decided for own, decided in zip(classes, inputs.decisions.tolist(), strict=True))
    return Audit(
        model=model_id(network),
        weights=fingerprint(model),
        versions=versions(),
        method=method,
        settings={
            "label": label,
            "groups": groups,
            "regions": list(images.masks),
            "replacement": replacement,
            "min_effect": min_effect,
            "candidates": candidates,
            "min_texts": min_texts,
            "max_texts": max_texts,
            "confidence": confidence,
            "seed": seed,
        },
        data=called(data),
        texts=count,
        skipped=0,
        classes=dict(sorted(Counter(scores.names[number] for number in classes).items())),
        errors=None if label is None else wrong,
        candidates=done.candidates,
        untested=(*done.untested, *(name for name, own in having.items() if len(own) < min_texts)),
        positions=None,
        changed=None,
        swaps=None,
        unswapped=(),
        groups=split,
        small_groups=small,
    )


def _labels(images: Regions, label: str, data: Any, outputs: Outputs) -> list[int]:
    """The true class of every image. InputError: a row without one. TargetError: one that the model has not."""
    read = ColumnLabels(label, class_names(data, label), outputs)
    return [outputs.ids_of(read(images.column(label, row)), label, row)[0] for row in range(len(images))]
