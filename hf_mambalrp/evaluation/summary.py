"""From measured examples to the numbers of the report."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch

from hf_mambalrp.evaluation.ceiling import SEARCHED
from hf_mambalrp.evaluation.perturbation import CURVES, GRID, METRICS
from hf_mambalrp.evaluation.settings import Settings
from hf_mambalrp.evaluation.statistics import bootstrap, interval, mean_of, rank_agreement, with_ends

Record = dict[str, Any]


def summarise(records: Sequence[Record], settings: Settings) -> dict[str, Any]:
    """Means with intervals, mean curves, conservation, differences to the first method and rank agreement."""
    methods = list(settings.methods)
    found: dict[str, dict[str, Any]] = {name: {} for name in methods}
    differences: dict[str, dict[str, Any]] = {}
    for metric in METRICS:
        values = torch.tensor(
            [[record["methods"][name][metric] for name in methods] for record in records], dtype=torch.float64
        )
        means, ends = bootstrap(values, settings.confidence, settings.resamples, settings.seed)
        for name, stat, column in zip(methods, with_ends(values.mean(0), ends), values.T, strict=True):
            found[name][metric] = {**stat, "values": column.tolist()}
        gaps = interval(means[:, :1] - means, settings.confidence)
        stats = with_ends((values[:, :1] - values).mean(0), gaps)
        differences[metric] = dict(list(zip(methods, stats, strict=True))[1:])
    for name in methods:
        rows = [record["methods"][name] for record in records]
        found[name]["curves"] = {
            "fractions": list(GRID),
            **{curve: mean_of([row["curves"][curve] for row in rows]) for curve in CURVES},
        }
        found[name]["conservation"] = _conservation(records, name)
    relevances = [
        torch.tensor([record["methods"][name]["relevance"] for name in methods], dtype=torch.float64)
        for record in records
    ]
    spearman = [[None if math.isnan(x) else x for x in row] for row in rank_agreement(relevances).tolist()]
    return {
        "examples": [
            {key: record[key] for key in ("id", "tokens", "target", "score", "probability")} for record in records
        ],
        "methods": found,
        "differences": differences,
        "agreement": {"methods": methods, "spearman": spearman},
        **_ceiling(records, settings),
    }


def _ceiling(records: Sequence[Record], settings: Settings) -> dict[str, Any]:
    """What the best orders reach, and every method's mean on the same examples as a share of it; where any is known."""
    searched = [record for record in records if "ceiling" in record]
    if not searched:
        return {}
    best = torch.tensor(
        [[record["ceiling"][metric] for metric in SEARCHED] for record in searched], dtype=torch.float64
    )
    about = {"examples": len(searched), "mean": dict(zip(SEARCHED, best.mean(0).tolist(), strict=True))}
    shares: dict[str, Any] = {}
    for name in settings.methods:
        own = torch.tensor(
            [[record["methods"][name][metric] for metric in SEARCHED] for record in searched], dtype=torch.float64
        )
        both = torch.cat([own, best], 1)
        means, _ = bootstrap(both, settings.confidence, settings.resamples, settings.seed)
        ends = interval(means[:, : len(SEARCHED)] / means[:, len(SEARCHED) :], settings.confidence)
        ratio = own.mean(0) / best.mean(0)
        shares[name] = dict(zip(SEARCHED, with_ends(ratio, ends), strict=True))
    return {"ceiling": {**about, "shares": shares}}


def _conservation(records: Sequence[Record], name: str) -> dict[str, Any]:
    """What the sum of relevance is to the score; the ratio is undefined where the score is 0."""
    score = [record["score"] for record in records]
    relevance = [record["methods"][name]["sum"] for record in records]
    ratios = [r / s for r, s in zip(relevance, score, strict=True) if s]
    rows = [record["methods"][name] for record in records]
    return {
        "score": score,
        "relevance": relevance,
        **{what: [row[what] for row in rows] for what in ("biases", "softmax") if all(what in row for row in rows)},
        "median_ratio": median(ratios) if ratios else None,
    }
