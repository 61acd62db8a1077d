"""``audit`` of images: screen regions by relevance, confirm by replacing the patches that they touch."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hf_mambalrp.audit.asked import Asked, folder_for
from hf_mambalrp.audit.confirming import tested
from hf_mambalrp.audit.effects import Changed
from hf_mambalrp.audit.reading import called
from hf_mambalrp.audit.regions import CALL, Regions
from hf_mambalrp.audit.scores import Scored, log_odds
from hf_mambalrp.audit.words import WordRow
from hf_mambalrp.calls.image_inputs import WITHOUT_CONTENT
from hf_mambalrp.calls.inputs import TokenizerSource
from hf_mambalrp.calls.labels import ColumnLabels
from hf_mambalrp.calls.origin import model_id, versions
from hf_mambalrp.calls.subject import subject_of
from hf_mambalrp.calls.targets import Outputs
from hf_mambalrp.datasets.kept import Record, RowsFolder, Todo, kept_rows
from hf_mambalrp.evaluation.dataset import drawn
from hf_mambalrp.evaluation.images.perturbation import ImageOutput, without_patches
from hf_mambalrp.evaluation.outputs import check_has_classes
from hf_mambalrp.models.beside import reader_beside
from hf_mambalrp.models.fingerprint import fingerprint
from hf_mambalrp.results.audit import Audit
from hf_mambalrp.runs.checks import one_of
from hf_mambalrp.runs.rows import class_names

AT_ONCE = 20
"""Forms of one image in a forward."""
METHOD = "mambalrp"


class ImagesFolder(RowsFolder):
    """A folder of an audit of images."""

    call = CALL


class ImageScores:
    """The model's own answer to images: log-odds of every class.

    UnknownArchitectureError: a regression.
    """

    def __init__(self, model: nn.Module) -> None:
        subject = subject_of(model)
        check_has_classes(subject)
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

    def kept(self, values: Tensor, own: int) -> Record:
        """Of the log-odds (V,) of an image those that are asked for: of its own class, and of what is now predicted."""
        return {str(number): values[number].item() for number in sorted({own, int(values.argmax())})}

    def read(self, kept: Sequence[Mapping[str, float]]) -> Tensor:
        """Log-odds (n, V) with what was kept of them, and minus infinity elsewhere."""
        found = torch.full((len(kept), self.outputs.size), -torch.inf, dtype=torch.float64)
        for row, values in enumerate(kept):
            for number, value in values.items():
                found[row, int(number)] = value
        return found


class Screened(NamedTuple):
    """What the explanations say of the regions."""

    rows: list[WordRow]
    """Those of enough images, the first candidate first."""
    having: dict[str, list[int]]
    """The images that have each region."""


def audit_images(
    model: Any,
    data: Any,
    output_dir: str | Path | None,
    asked: Asked,
    *,
    masks: Any,
    replacement: str,
    image_column: str,
    processor: Any,
    restart: bool,
    progress: bool,
) -> Audit:
    """Say on which regions of its images a model relies; :func:`hf_mambalrp.audit.audit` documents the arguments."""
    one_of("replacement", replacement, WITHOUT_CONTENT)
    subject, process = subject_of(model), processor if processor is not None else reader_beside(model)()
    network, scores, weights = subject.network(), ImageScores(model), fingerprint(model)
    images = Regions(data, masks, image_column, network, process, subject.place())
    every = range(len(images))
    classes = None if asked.label is None else _labels(images, asked.label, data, scores.outputs)
    groups = None if asked.groups is None else [str(images.column(asked.groups, row)) for row in every]
    settings = {"model": model_id(network), "weights": weights, "versions": versions()}
    with folder_for(output_dir) as folder:
        explained = kept_rows(
            ImagesFolder(folder / "explained", restart=restart),
            {**settings, "method": METHOD},
            every,
            partial(_to_explain, model, process, images, scores),
            progress=progress,
            desc="images",
            unit="image",
        )
        found = scores.read([explained[row]["log_odds"] for row in every])
        inputs = Scored([*map(str, every)], found, found.argmax(1).tolist() if classes is None else classes, own=True)
        rows, having = _screened([explained[row]["regions"] for row in every], images.masks, asked.min_texts)
        screened = rows[: asked.candidates]
        taken = {str(row.pattern): {*drawn(having[str(row.pattern)], asked.max_texts, asked.seed)} for row in screened}
        without = kept_rows(
            ImagesFolder(folder / "without", restart=restart),
            settings,
            sorted({row for own in taken.values() for row in own}),
            partial(_to_replace, network.config, images, scores, taken, inputs.decisions.tolist(), replacement),
            progress=progress,
            desc="without regions",
            unit="image",
        )
    after = {name: {row: kept[name] for row, kept in without.items() if name in kept} for name in taken}
    changes = [Changed(name, dict.fromkeys(own, ""), dict.fromkeys(own, 1.0)) for name, own in after.items()]
    changed = [scores.read([*own.values()]) for own in after.values()]
    done = tested(scores, inputs, screened, changes, changed, asked.confidence, asked.min_effect)
    rare = (name for name, own in having.items() if len(own) < asked.min_texts)
    return asked.result(
        scores,
        inputs,
        done._replace(untested=(*done.untested, *rare)),
        groups,
        model=model_id(network),
        weights=weights,
        method=METHOD,
        settings=asked.of_images([*images.masks], replacement),
        data=called(data),
        skipped=0,
        positions=None,
        changed=None,
        swaps=None,
        unswapped=(),
    )


def _to_explain(model: Any, process: Any, images: Regions, scores: ImageScores, row: int) -> Todo:
    """What an image is asked first: relevance and its share by region, and what the model says."""
    seen = images.seen(row)

    def make() -> Record:
        relevance = model.explain(pixel_values=seen.batch.pixel_values, processor=process, method=METHOD).relevance[0]
        relevance = relevance.cpu().double()
        total = relevance.abs().sum().item()
        regions = {
            name: {
                "relevance": (relevance * part).sum().item(),
                "share": (relevance.abs() * part).sum().item() / total if total else 0.0,
            }
            for name, part in seen.regions.items()
        }
        (values,) = scores(seen.batch, [("black", bytes(seen.batch.pixel_values[0, 0].numel()))])
        return {"regions": regions, "log_odds": scores.kept(values, int(values.argmax()))}

    return Todo(seen.key(), make)


def _screened(regions: Sequence[Record], names: Mapping[str, Any], min_texts: int) -> Screened:
    """The regions by their share times the root of the number of images that have them, as words are."""
    having = {name: [row for row, own in enumerate(regions) if name in own] for name in names}
    rows = []
    for name, own in having.items():
        if len(own) >= min_texts:
            total, share = (sum(regions[row][name][what] for row in own) for what in ("relevance", "share"))
            rows.append(WordRow(name, len(own), total / len(own), total, share / len(regions)))
    rows.sort(key=lambda row: (-row.share / row.texts**0.5, row.pattern))
    return Screened(rows, having)


def _to_replace(
    config: Any,
    images: Regions,
    scores: ImageScores,
    taken: Mapping[str, set[int]],
    decisions: Sequence[int],
    replacement: str,
    row: int,
) -> Todo:
    """What an image is asked then: what the model says without each region, unless nothing else would be left."""
    seen = images.seen(row)
    names = [name for name in taken if row in taken[name]]

    def make() -> Record:
        touched = {name: seen.patches(name) for name in names}
        forms = {
            name: without_patches(
                patches, config.grid_size, config.image_size, config.patch_size, config.stride, replacement
            )
            for name, patches in touched.items()
            if len(patches) < config.grid_size**2
        }
        found: Sequence[Tensor] | Tensor = scores(seen.batch, [*forms.values()]) if forms else []
        return {name: scores.kept(values, decisions[row]) for name, values in zip(forms, found, strict=True)}

    return Todo(seen.key(replacement, *sorted(names)), make)


def _labels(images: Regions, label: str, data: Any, outputs: Outputs) -> list[int]:
    """The true class of every image. InputError: a row without one. TargetError: one that the model has not."""
    read = ColumnLabels(label, class_names(data, label), outputs)
    return [outputs.ids_of(read(images.column(label, row)), label, row)[0] for row in range(len(images))]
