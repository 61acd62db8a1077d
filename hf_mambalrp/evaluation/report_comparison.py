"""Which method is best, by how much, and what can be told apart: the chapters that compare methods."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hf_mambalrp.evaluation import plots
from hf_mambalrp.evaluation.report_parts import (
    Chapter,
    Findings,
    Metric,
    Plot,
    Plots,
    decimals_for,
    with_interval,
)
from hf_mambalrp.evaluation.statistics import bootstrap, interval
from hf_mambalrp.viz.document import Cell, Grid
from hf_mambalrp.viz.method_names import method_name
from hf_mambalrp.viz.wording import shorten

Results = Mapping[str, Any]


METRICS = {
    "delta_flip": Metric("ΔA^F", "ΔA by flipping", True),
    "delta_insert": Metric("ΔA^I", "ΔA by insertion", True),
    "comprehensiveness": Metric("Comprehensiveness", "loss of probability", True),
    "sufficiency": Metric("Sufficiency", "loss of probability", False),
}
BEST, TIED = "best", "≈ best"
Metrics = Mapping[str, Metric]
READING = (
    "ΔA^F replaces tokens in the order of their relevance and ΔA^I adds them; both are the area between the curve "
    "that starts with the most and the one that starts with the least relevant token. Comprehensiveness is the "
    "probability lost without the most relevant tokens, sufficiency the probability lost with only these."
)


def overview(
    results: Results, metrics: Metrics = METRICS, title: str = "Summary", reading: str = READING, unit: str = "example"
) -> Chapter:
    """Return the table of methods and metrics, with what can be concluded from it; ``unit`` is what is counted."""
    names, count, confidence = list(results["methods"]), len(results["examples"]), _confidence(results)
    standings = {key: _standing(results, key, metric) for key, metric in metrics.items()}
    columns = [_column(results, key, *standings[key]) for key in metrics]
    rows = [(method_name(name), *cells) for name, *cells in zip(names, *columns, strict=True)]
    spread = f"In brackets: {confidence} bootstrap interval of the mean over {count} {unit}s."
    apart = f"the paired {confidence} interval of the difference includes 0. One comparison at a time, uncorrected"
    if count == 1:
        spread = f"One {unit} has no spread: the intervals are points, and no method is told from another."
        apart = f"one {unit} tells no methods apart"
    low = [metric.symbol for metric in metrics.values() if not metric.higher]
    lowest = f", or the lowest for {_enumerated(low)}".lower() if low else ""
    note = f"{BEST}: the highest mean{lowest}. {TIED}: not distinguishable from it, {apart}."
    found: list[Findings | Grid | Plots] = []
    if len(names) > 1 and count > 1:
        found.append(Findings([_finding(results, key, metrics[key], *standings[key]) for key in metrics]))
    found.append(Grid("Methods and metrics", _head("Method", metrics), rows, note if len(names) > 1 else ""))
    panels = [_panel(results, key, metric) for key, metric in metrics.items()]
    found.append(Plots("Means and their intervals", panels))
    return Chapter(title, f"{reading} {spread}", found)


def differences(results: Results, metrics: Metrics = METRICS, about: str = "", unit: str = "example") -> Chapter:
    """Return the table of what the first method has over each other one; ``about`` ends the chapter's title."""
    first, *others = results["methods"]
    found, name, claim = results["differences"], method_name(first), len(results["examples"]) > 1
    columns = []
    for key, metric in metrics.items():
        decimals = decimals_for(list(found[key].values()))
        columns.append([_difference(found[key].get(other), decimals, metric.higher, claim) for other in others])
    rows = [(method_name(other), *cells) for other, *cells in zip(others, *columns, strict=True)]
    reading = (
        f"{name} minus the other method, {unit} by {unit}, so that what makes {_a(unit)} hard for both cancels out. "
        f"With each difference stand its {_confidence(results)} interval and what it says about {name}; "
        f"no claim is made where the interval includes 0, or of one {unit}."
    )
    table = Grid(f"{name} minus each other method", _head("Compared with", metrics), rows)
    return Chapter(f"{name} against each other method{about}", reading, [table])


def ceiling(results: Results) -> Chapter:
    """Return the table of what share of the best order's metric each method reaches."""
    found = results["ceiling"]
    metrics = {key: METRICS[key] for key in found["mean"]}
    rows = [
        (method_name(name), *(with_interval(share[key], 2, "\n") for key in metrics))
        for name, share in found["shares"].items()
    ]
    best = " and ".join(f"{found['mean'][key]:.3g} in {metric.symbol}" for key, metric in metrics.items())
    reading = (
        f"For the first {found['examples']} examples a greedy search on the model itself looked for the best order of "
        f"the tokens, one for each metric, without any explanation: {best} at the mean. A method's share is its mean "
        "on the same examples over that. A wider search may find more, so 1 does not mean that nothing is left."
    )
    head = ("Method", *(metric.symbol for metric in metrics.values()))
    return Chapter("Share of what a search finds", reading, [Grid("Share of the best order", head, rows)])


def _standing(results: Results, key: str, metric: Metric) -> tuple[str, list[str]]:
    """The best of several methods, and those whose paired difference to it has an interval that includes 0."""
    methods, settings = results["methods"], results["settings"]
    names = list(methods)
    if len(names) == 1:
        return "", []
    if "standings" in results:  # where a metric is no mean of values
        return results["standings"][key]["best"], results["standings"][key]["tied"]
    sign = 1 if metric.higher else -1
    means = [sign * methods[name][key]["mean"] for name in names]
    best = means.index(max(means))
    others = [name for name in names if name != names[best]]
    if len(results["examples"]) == 1:
        return names[best], others
    values = torch.tensor([methods[name][key]["values"] for name in names], dtype=torch.float64).T
    # The draws are those of every other interval in the results: the same seed, the same number of examples.
    draws, _ = bootstrap(values, settings["confidence"], settings["resamples"], settings["seed"])
    ends = interval(draws - draws[:, best, None], settings["confidence"]).T.tolist()
    tied = [name for name, (low, high) in zip(names, ends, strict=True) if low <= 0 <= high]
    return names[best], [name for name in tied if name in others]


def _column(results: Results, key: str, best: str, tied: Sequence[str]) -> list[Cell]:
    stats = _stats(results, key)
    decimals = decimals_for(list(stats.values()))
    marks = {**dict.fromkeys(tied, TIED), best: BEST}
    return [
        Cell(with_interval(stats[name], decimals, "\n"), marks.get(name, ""), name == best)
        if name in stats
        else Cell("–")
        for name in results["methods"]
    ]


def _stats(results: Results, key: str) -> dict[str, Any]:
    """What each method that has this metric has of it."""
    return {name: found[key] for name, found in results["methods"].items() if key in found}


def _panel(results: Results, key: str, metric: Metric) -> Plot:
    stats = _stats(results, key)
    names = [shorten(method_name(name), 22) for name in stats]
    return Plot(metric.symbol, metric.direction, metric.axis, "", plots.intervals(names, list(stats.values())))


def _finding(results: Results, key: str, metric: Metric, best: str, tied: Sequence[str]) -> str:
    stats = _stats(results, key)
    value = with_interval(stats[best], decimals_for(list(stats.values())))
    text = f"{metric.symbol}: {method_name(best)} has the {'highest' if metric.higher else 'lowest'} mean, {value}"
    if tied:
        return f"{text}, but is not distinguishable from {_enumerated([method_name(name) for name in tied])}."
    return f"{text}, and is better than every other method with {_confidence(results)} confidence."


def _difference(stat: Mapping[str, Any] | None, decimals: int, higher: bool, claim: bool) -> Cell:
    if stat is None:
        return Cell("–")
    text = with_interval(stat, decimals, "\n")
    if not claim or stat["low"] <= 0 <= stat["high"]:
        return Cell(text, "no difference shown")
    return Cell(text, "better" if (stat["mean"] > 0) == higher else "worse", strong=True)


def _head(first: str, metrics: Metrics) -> tuple[str, ...]:
    return (first, *(f"{metric.symbol}\n{metric.direction}" for metric in metrics.values()))


def _a(unit: str) -> str:
    return f"{'an' if unit[0] in 'aeiou' else 'a'} {unit}"


def _confidence(results: Results) -> str:
    return f"{100 * results['settings']['confidence']:g}%"


def _enumerated(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
