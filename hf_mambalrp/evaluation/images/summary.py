"""From measured pictures to the numbers of the report: every metric with its interval, and who leads by how much."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hf_mambalrp.evaluation.images.maps import segmentation
from hf_mambalrp.evaluation.images.settings import ImageSettings
from hf_mambalrp.evaluation.perturbation import GRID
from hf_mambalrp.evaluation.report_parts import Metric
from hf_mambalrp.evaluation.statistics import bootstrap, interval, mean_of, with_ends

Record = dict[str, Any]


class ImageMetric(NamedTuple):
    """A metric: how it is shown, where in a record it is, and what means of it become."""

    shown: Metric
    source: str
    of_means: Callable[[Tensor], Tensor] | None = None
    """(..., c) -> (...), for what is no mean over pictures but of totals."""


PERTURBATION = {
    "delta_flip": ImageMetric(Metric("ΔA^F", "ΔA by flipping", True), "delta_flip"),
    "positive_accuracy": ImageMetric(Metric("Positive", "top-1 accuracy", False), "positive_accuracy"),
    "negative_accuracy": ImageMetric(Metric("Negative", "top-1 accuracy", True), "negative_accuracy"),
}
OBJECTS = {
    "roc_auc": ImageMetric(Metric("ROC AUC", "ROC AUC", True), "roc_auc"),
    "pointing": ImageMetric(Metric("Pointing", "share of pictures", True), "pointing"),
    "positive_inside": ImageMetric(Metric("R⁺ inside", "share of positive relevance", True), "positive_inside"),
    "pixel_accuracy": ImageMetric(
        Metric("Pixel accuracy", "share of pixels", True),
        "confusion",
        lambda means: segmentation(means)["pixel_accuracy"],
    ),
    "map": ImageMetric(Metric("mAP", "average precision", True), "average_precision"),
    "miou": ImageMetric(Metric("mIoU", "mean IoU", True), "confusion", lambda means: segmentation(means)["miou"]),
}
SEVERAL = {
    "named": ImageMetric(Metric("Own object", "share of targets", True), "named"),
    "named_contrast": ImageMetric(Metric("Own object, contrast", "share of targets", True), "named_contrast"),
}
METRICS = {**PERTURBATION, **OBJECTS, **SEVERAL}
"""In the order of the report."""


def summarise(records: Sequence[Record], settings: ImageSettings) -> dict[str, Any]:
    """Means with intervals, mean curves, differences to the first method, and who is best.

    A picture counts once: of its targets the mean is taken first. The bootstrap draws pictures, the same ones for every
    method and metric, so that differences are paired.
    """
    names = list(settings.methods)
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    differences: dict[str, dict[str, Any]] = {}
    standings: dict[str, dict[str, Any]] = {}
    for key, metric in METRICS.items():
        have = [name for name in names if metric.source in records[0]["methods"][name][0]]
        if not have:
            continue
        values = torch.stack([_per_picture(records, name, metric.source) for name in have], 1)
        points, draws = _resampled(values, metric, settings.confidence, settings.resamples, settings.seed)
        ends = interval(draws, settings.confidence)
        for name, stat in zip(have, with_ends(points, ends), strict=True):
            found[name][key] = stat
        for name, column in zip(have, values.unbind(1), strict=True):
            place, kept = (found[name], metric.source) if metric.of_means else (found[name][key], "values")
            place[kept] = column.tolist() if metric.of_means else column[:, 0].tolist()
        if have[0] == names[0]:
            gaps = with_ends(points[0] - points, interval(draws[:, :1] - draws, settings.confidence))
            differences[key] = dict(list(zip(have, gaps, strict=True))[1:])
        standings[key] = _standing(have, points, draws, metric.shown.higher, settings.confidence, len(records))
    if settings.perturbation:
        for name in names:
            parts = [part["curves"] for record in records for part in record["methods"][name]]
            curves = {order: mean_of([part[order] for part in parts]) for order in parts[0]}
            found[name]["curves"] = {"fractions": list(GRID), **curves}
    return {
        "examples": [{key: value for key, value in record.items() if key != "methods"} for record in records],
        "methods": found,
        "differences": differences,
        "standings": standings,
    }


def compare(results: Mapping[str, Any], first: str, second: str) -> dict[str, dict[str, float]]:
    """The paired difference, first minus second, in every metric that both have, with its interval."""
    methods, settings = results["methods"], results["settings"]
    found = {}
    for key, metric in METRICS.items():
        if key not in methods[first] or key not in methods[second]:
            continue
        both = [
            methods[name][metric.source] if metric.of_means else methods[name][key]["values"]
            for name in (first, second)
        ]
        values = torch.tensor(both, dtype=torch.float64).transpose(0, 1)
        points, draws = _resampled(
            values if metric.of_means else values[..., None],
            metric,
            settings["confidence"],
            settings["resamples"],
            settings["seed"],
        )
        ends = interval(draws[:, :1] - draws[:, 1:], settings["confidence"])
        (found[key],) = with_ends(points[:1] - points[1:], ends)
    return found


def _resampled(
    values: Tensor, metric: ImageMetric, confidence: float, resamples: int, seed: int
) -> tuple[Tensor, Tensor]:
    """A metric of m methods, and of the same with pictures drawn. Shape: (n, m, c) -> (m,), (resamples, m)."""
    drawn, _ = bootstrap(values.flatten(1), confidence, resamples, seed)
    means = drawn.unflatten(1, values.shape[1:])
    if metric.of_means is None:
        return values.mean(0)[..., 0], means[..., 0]
    return metric.of_means(values.mean(0)), metric.of_means(means)


def _per_picture(records: Sequence[Record], name: str, source: str) -> Tensor:
    """What a method has on every picture, the mean over its targets. Shape: (n, c), float64."""
    rows = [
        torch.tensor([part[source] for part in record["methods"][name]], dtype=torch.float64).mean(0)
        for record in records
    ]
    return torch.stack(rows).view(len(rows), -1)


def _standing(
    names: list[str], points: Tensor, draws: Tensor, higher: bool, confidence: float, pictures: int
) -> dict[str, Any]:
    """The best method, and those whose paired difference to it has an interval that includes 0."""
    best = int(points.argmax() if higher else points.argmin())
    others = [name for name in names if name != names[best]]
    if pictures == 1:
        return {"best": names[best], "tied": others}
    low, high = interval(draws - draws[:, best, None], confidence)
    tied = [name for name, a, b in zip(names, low.tolist(), high.tolist(), strict=True) if a <= 0 <= b]
    return {"best": names[best], "tied": [name for name in tied if name in others]}
