"""One map of relevance against the mask of the object that it should lie on.

Protocol of Chefer et al. 2021 and Ali et al. 2025, who measure on ImageNet-Segmentation: the map of the patches is
enlarged bilinearly to the pixels R; foreground is R > mean(R); a picture's average precision is that of the scores
(1 - R, R) of its pixels, R scaled to [0, 1], for the two classes (background, foreground) together.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_mambalrp.evaluation.localisation import average_precision, hit, roc_auc


def enlarged(relevance: Tensor, size: int) -> Tensor:
    """The map of the patches at every pixel, bilinear. Shape: (rows, columns) -> (size, size), float64."""
    return F.interpolate(relevance.double()[None, None], size=(size, size), mode="bilinear", align_corners=False)[0, 0]


def against_mask(pixels: Tensor, mask: Tensor) -> dict[str, float]:
    """What one picture says: ROC AUC and hit of its pixels, and average precision of (1 - R, R).

    Args:
        pixels: (S, S) relevance of the pixels.
        mask: (S, S) bool, True on the object.

    Returns:
        ``roc_auc``; ``pointing``, 1 where the most relevant pixel is on the object (a share where several are most
        relevant); ``average_precision``.
    """
    flat, evidence = pixels.flatten(), mask.flatten()
    scaled = min_max(flat)
    both, truth = torch.cat([1 - scaled, scaled]), torch.cat([~evidence, evidence])
    return {
        "roc_auc": roc_auc(flat, evidence).item(),
        "pointing": hit(flat, evidence).item(),
        "average_precision": average_precision(both, truth).item(),
    }


def confusion(pixels: Tensor, mask: Tensor) -> list[int]:
    """Pixels that are true and false positives, false and true negatives, where foreground is R > mean(R)."""
    found = pixels > pixels.mean()
    return [int((a & b).sum()) for a, b in ((found, mask), (found, ~mask), (~found, mask), (~found, ~mask))]


def segmentation(counts: Tensor) -> dict[str, Tensor]:
    """Pixel accuracy and the mean IoU over {background, foreground}, of sums over a data set.

    Args:
        counts: (..., 4) sums, or means, of what :func:`confusion` returns.

    Returns:
        ``pixel_accuracy`` = (TP + TN) / all and ``miou`` = (TP / (TP + FP + FN) + TN / (TN + FP + FN)) / 2, (...).
    """
    tp, fp, fn, tn = counts.double().unbind(-1)
    return {
        "pixel_accuracy": (tp + tn) / (tp + fp + fn + tn),
        "miou": (tp / (tp + fp + fn) + tn / (tn + fp + fn)) / 2,
    }


def covered(mask: Tensor, patch_size: int, stride: int) -> Tensor:
    """The share of every patch that lies on the object. Shape: (S, S) bool -> (rows, columns) float64."""
    return F.avg_pool2d(mask.double()[None, None], patch_size, stride)[0, 0]


def positive_inside(relevance: Tensor, share: Tensor) -> float:
    """sum(R⁺ * share) / sum(R⁺) over patches; 0 where no relevance is positive. Shapes: (rows, columns) both."""
    positive = relevance.double().clamp(min=0)
    total = positive.sum()
    return float((positive * share).sum() / total) if total > 0 else 0.0


def named(relevance: Tensor, shares: Sequence[Tensor], own: int) -> float:
    """Whether the target's own object has more positive relevance than every other one: 1, or 0; half of 1 for a tie.

    Args:
        relevance: (rows, columns) for this target.
        shares: of every patch that lies on an object, (rows, columns) for each object.
        own: the number of the target's object.
    """
    sums = [float((relevance.double().clamp(min=0) * share).sum()) for share in shares]
    other = max(value for number, value in enumerate(sums) if number != own)
    return 0.5 if sums[own] == other else float(sums[own] > other)


def min_max(values: Tensor) -> Tensor:
    """The values scaled to [0, 1]; 0 where all are equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else torch.zeros_like(values)
