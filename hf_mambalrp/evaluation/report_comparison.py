"""Which method is best, by how much, and what can be told apart: the chapters that compare methods."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from hf_mambalrp.evaluation import plots
from hf_mambalrp.evaluation.report_parts import (
    Cell,
    Chapter,
    Findings,
    Grid,
    Plot,
    Plots,
    decimals_for,
    with_interval,
)
from hf_mambalrp.evaluation.statistics import bootstrap, interval
from hf_mambalrp.viz.method_names import method_name
from hf_mambalrp.viz.wording import shorten

Results = Mapping[str, Any]


class Metric(NamedTuple):
    """A metric's name in the report, on an axis, and whether higher is better."""

    symbol: str
    axis: str
    higher: bool

    @property
    def direction(self) -> str:
        """Which end is good, in words."""
        return f"{'higher' if self.higher else 'lower'} is better"


METRICS = {
    "delta_flip": Metric("ΔA^F", "ΔA by flipping", True),
    "delta_insert": Metric("ΔA^I", "ΔA by insertion", True),
    "comprehensiveness": Metric("Comprehensiveness", "loss of probability", True),
    "sufficiency": Metric("Sufficiency", "loss of probability", False),
}
BEST, TIED = "best", "≈ best"
READING = (
    "ΔA^F replaces tokens in the order of their relevance and ΔA^I adds them; both are the area between the curve "
    "that starts with the most and the one that starts with the least relevant token. Comprehensiveness is the "
    "probability lost without the most relevant tokens, sufficiency the probability lost with only these."
)


def overview(results: Results) -> Chapter:
    """Return the table of methods and metrics, with what can be concluded from it."""
    names, count, confidence = list(results["methods"]), len(results["examples"]), _confidence(results)
    standings = {metric: _standing(results, metric) for metric in METRICS}
    columns = [_column(results, metric, *standings[metric]) for metric in METRICS]
    rows = [(Cell(method_name(name)), *cells) for name, *cells in zip(names, *columns, strict=True)]
    spread = f"In brackets: {confidence} bootstrap interval of the mean over {count} examples."
    apart = f"the paired {confidence} interval of the difference includes 0. One comparison at a time, uncorrected"
    if count == 1:
        spread = "One example has no spread: the intervals are points, and no method is told from another."
        apart = "one example tells no methods apart"
    note = f"{BEST}: the highest mean, or the lowest for sufficiency. {TIED}: not distinguishable from it, {apart}."
    found: list[Findings | Grid | Plots] = []
    if len(names) > 1 and count > 1:
        found.append(Findings([_finding(results, metric, *standings[metric]) for metric in METRICS]))
    found.append(Grid("Methods and metrics", _head("Method"), rows, note if len(names) > 1 else ""))
    found.append(Plots("Means and their intervals", [_panel(results, metric) for metric in METRICS]))
    return Chapter("Summary", f"{READING} {spread}", found)


def differences(results: Results) -> Chapter:
    """Return the table of what the first method has over each other one."""
    first, *others = results["methods"]
    found, name, claim = results["differences"], method_name(first), len(results["examples"]) > 1
    columns = []
    for key, metric in METRICS.items():
        decimals = decimals_for(list(found[key].values()))
        columns.append([_difference(found[key][other], decimals, metric.higher, claim) for other in others])
    rows = [(Cell(method_name(other)), *cells) for other, *cells in zip(others, *columns, strict=True)]
    reading = (
        f"{name} minus the other method, example by example, so that what makes an example hard for both cancels out. "
        f"With each difference stand its {_confidence(results)} interval and what it says about {name}; "
        "no claim is made where the interval includes 0, or of one example."
    )
    table = Grid(f"{name} minus each other method", _head("Compared with"), rows)
    return Chapter(f"{name} against each other method", reading, [table])


def _standing(results: Results, metric: str) -> tuple[str, list[str]]:
    """The best of several methods, and those whose paired difference to it has an interval that includes 0."""
    methods, settings = results["methods"], results["settings"]
    names = list(methods)
    if len(names) == 1:
        return "", []
    sign = 1 if METRICS[metric].higher else -1
    means = [sign * methods[name][metric]["mean"] for name in names]
    best = means.index(max(means))
    others = [name for name in names if name != names[best]]
    if len(results["examples"]) == 1:
        return names[best], others
    values = torch.tensor([methods[name][metric]["values"] for name in names], dtype=torch.float64).T
    # The draws are those of every other interval in the results: the same seed, the same number of examples.
    draws, _ = bootstrap(values, settings["confidence"], settings["resamples"], settings["seed"])
    ends = interval(draws - draws[:, best, None], settings["confidence"]).T.tolist()
    tied = [name for name, (low, high) in zip(names, ends, strict=True) if low <= 0 <= high]
    return names[best], [name for name in tied if name in others]


def _column(results: Results, metric: str, best: str, tied: Sequence[str]) -> list[Cell]:
    stats = {name: found[metric] for name, found in results["methods"].items()}
    decimals = decimals_for(list(stats.values()))
    marks = {**dict.fromkeys(tied, TIED), best: BEST}
    return [
        Cell(with_interval(stat, decimals, "\n"), marks.get(name, ""), name == best) for name, stat in stats.items()
    ]


def _panel(results: Results, key: str) -> Plot:
    metric = METRICS[key]
    names = [shorten(method_name(name), 22) for name in results["methods"]]
    stats = [found[key] for found in results["methods"].values()]
    return Plot(metric.symbol, metric.direction, metric.axis, "", plots.intervals(names, stats))


def _finding(results: Results, key: str, best: str, tied: Sequence[str]) -> str:
    metric, stats = METRICS[key], [found[key] for found in results["methods"].values()]
    value = with_interval(results["methods"][best][key], decimals_for(stats))
    text = f"{metric.symbol}: {method_name(best)} has the {'highest' if metric.higher else 'lowest'} mean, {value}"
    if tied:
        return f"{text}, but is not distinguishable from {_enumerated([method_name(name) for name in tied])}."
    return f"{text}, and is better than every other method with {_confidence(results)} confidence."


def _difference(stat: Mapping[str, Any], decimals: int, higher: bool, claim: bool) -> Cell:
    text = with_interval(stat, decimals, "\n")
    if not claim or stat["low"] <= 0 <= stat["high"]:
        return Cell(text, "no difference shown")
    return Cell(text, "better" if (stat["mean"] > 0) == higher else "worse", strong=True)


def _head(first: str) -> tuple[str, ...]:
    return (first, *(f"{metric.symbol}\n{metric.direction}" for metric in METRICS.values()))


def _confidence(results: Results) -> str:
    return f"{100 * results['settings']['confidence']:g}%"


def _enumerated(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
