"""The report of an evaluation: one list of chapters, written as HTML or as Markdown, and its curves as a figure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from hf_mambalrp.evaluation import plots, report_html, report_markdown
from hf_mambalrp.evaluation.report_comparison import Results, ceiling, differences, overview
from hf_mambalrp.evaluation.report_parts import (
    Chapter,
    Plot,
    Plots,
    decimals_for,
    fixed,
    number,
    readable,
    tables_of,
    with_interval,
)
from hf_mambalrp.runs.bad_rows import reasons
from hf_mambalrp.viz.document import Cell, Facts, Grid
from hf_mambalrp.viz.method_names import method_name
from hf_mambalrp.viz.wording import shorten, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXTRA = {
    "sanity": (
        "Sanity checks",
        "An explanation should change when the weights it explains are made random (a rank correlation near 0 is "
        "good), should not depend on how the same function is written, and should be the same twice.",
    ),
    "localisation": (
        "Localisation",
        "On tasks whose evidence is known, the share of relevance that falls on it: 1 is perfect. "
        "For ROC AUC chance is 0.5.",
    ),
    "plausibility": (
        "Plausibility",
        "Agreement with how people rate words: 1 is full agreement, 0 none. It says whether an explanation looks right "
        "to people, not whether it is right about the model.",
    ),
}


def to_html(results: Results) -> str:
    """Return the report as one self-contained HTML document; equal results give equal bytes.

    ``results`` is what ``evaluate_faithfulness`` returns as a dict. Without matplotlib the document has the tables and
    says what to install for the plots.
    """
    return report_html.page(_title(results), chapters(results))


def to_markdown(results: Results) -> str:
    """Return the facts, findings and tables of :func:`to_html` as GitHub Markdown; equal results give equal bytes."""
    return report_markdown.page(_title(results), chapters(results))


def plot(results: Results) -> "Figure":
    """Return a matplotlib figure of the perturbation curves: flipping, then insertion, one panel per method.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    return plots.figure_of(_curves(results))


def chapters(results: Results) -> list[Chapter]:
    """Return the chapters of the report in reading order; those about optional parts only where there are any."""
    found = [overview(results)]
    if len(results["methods"]) > 1:
        found.append(differences(results))
    if "ceiling" in results:
        found.append(ceiling(results))
    found += [_perturbation(results), _conservation(results)]
    if len(results["agreement"]["methods"]) > 1:
        found.append(_agreement(results))
    for key, (title, reading) in EXTRA.items():
        if results.get(key):
            found.append(Chapter(title, reading, tables_of(results[key])))
    return [*found, _evaluated(results)]


def _title(results: Results) -> str:
    return f"Faithfulness of explanations of {shorten(_model(results), 80)}"


def _model(results: Results) -> str:
    return visible(results["model"] or "a model without a name")


def _evaluated(results: Results) -> Chapter:
    examples, settings = results["examples"], results["settings"]
    tokens = [example["tokens"] for example in examples]
    pairs = [
        ("Model", _model(results)),
        ("Examples", str(len(examples))),
        *(("Skipped", str(reason)) for reason in reasons(results.get("skipped", ()))),
        ("Tokens per example", f"{min(tokens)} to {max(tokens)}, median {median(tokens):g}"),
        ("Explained classes", counted([str(example["target"]) for example in examples], 6)),
        ("Median score", number(float(median(example["score"] for example in examples)))),
        ("Median probability", f"{median(example['probability'] for example in examples):.1%}"),
        *((readable(name), setting(name, value)) for name, value in settings.items()),
        *((name, str(version)) for name, version in results["versions"].items()),
    ]
    reading = (
        "Every number above holds for this model, these examples and these settings; "
        "another replacement, step or measure gives other numbers."
    )
    return Chapter("What was evaluated", reading, [Facts(tuple(pairs))])


def counted(names: Iterable[str], most: int) -> str:
    """Return the names with how often each stands there, the most frequent first; more than ``most`` are a number."""
    counts = Counter(shorten(visible(name), 24) for name in names)
    listed = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if len(counts) > most:
        return f"{len(counts)} different ones"
    return ", ".join(f"{name} ({count})" for name, count in listed)


def setting(name: str, value: Any) -> str:
    """Return a setting as a person reads it."""
    if value is None or isinstance(value, bool):
        unset = "the predicted class" if name == "target" else "not set"
        return {None: unset, True: "yes", False: "no"}[value]
    if name == "confidence":
        return f"{100 * value:g}%"
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {setting(key, inner)}" for key, inner in value.items()) or "defaults"
    if isinstance(value, list):
        if name == "target":
            return "one for each example"
        return ", ".join(map(str, value))
    return str(value)


def _perturbation(results: Results) -> Chapter:
    reading = (
        "The model's output while tokens are replaced or added, averaged over the examples. A faithful method has a "
        "large blue area: the output falls fast when its most relevant tokens go, and rises fast when they come."
    )
    return Chapter("Perturbation curves", reading, _curves(results))


def _curves(results: Results) -> list[Plots]:
    flipping = "Flipping: tokens are replaced one after the other"
    insertion = "Insertion: tokens are added one after the other"
    return [
        curves(results, "flip", "ΔA^F", flipping, "tokens replaced", "token"),
        curves(results, "insert", "ΔA^I", insertion, "tokens present", "token"),
    ]


def curves(results: Results, kind: Literal["flip", "insert"], symbol: str, title: str, x: str, unit: str) -> Plots:
    """Return the curves of every method, as ``unit`` after unit is replaced or added."""
    methods, measure = results["methods"], visible(str(results["settings"]["measure"]))
    good, bad = ("lerf", "morf") if kind == "flip" else ("morf", "lerf")
    found = [values["curves"] for values in methods.values()]
    both = [[curve[f"{kind}_{order}"] for order in (good, bad)] for curve in found]
    limits = plots.padded([y for pair in both for curve in pair for y in curve])
    stats = [values[f"delta_{kind}"] for values in methods.values()]
    decimals = decimals_for(stats)
    panels = [
        Plot(
            method_name(name),
            f"{symbol} {with_interval(stats[i], decimals)}",
            x,
            measure,
            plots.perturbation(
                found[i]["fractions"],
                upper=both[i][0],
                lower=both[i][1],
                upper_is_morf=good == "morf",
                others=[curve for j, pair in enumerate(both) if j != i for curve in pair],
                limits=limits,
            ),
        )
        for i, name in enumerate(methods)
    ]
    key = [
        ("solid", f"most relevant {unit} first (MoRF)"),
        ("dashed", f"least relevant {unit} first (LeRF)"),
        ("blue", f"counts for the method: {'LeRF above MoRF' if good == 'lerf' else 'MoRF above LeRF'}"),
        ("red hatched", "counts against it"),
        *([("thin", "the other methods")] if len(methods) > 1 else []),
    ]
    return Plots(title, panels, key)


def _conservation(results: Results) -> Chapter:
    methods = results["methods"]
    limits = plots.padded([score for values in methods.values() for score in values["conservation"]["score"]])
    rows, panels, takers = [], [], ["biases"]
    for name, values in methods.items():
        kept = values["conservation"]
        if "softmax" in kept:
            takers = ["biases", "softmax"]
        absorbed = [sum(each) for each in zip(*(kept[taker] for taker in takers if taker in kept), strict=True)]
        sums = [relevance + taken for relevance, taken in zip(kept["relevance"], absorbed, strict=True)]
        gaps = [abs(score - total) for score, total in zip(kept["score"], sums, strict=True)]
        gap = number(float(median(gaps)))
        ratio = "–" if kept["median_ratio"] is None else number(float(kept["median_ratio"]))
        taken = number(float(median(map(abs, absorbed))))
        rows.append((method_name(name), gap, number(float(max(gaps))), ratio, taken))
        panels.append(
            Plot(method_name(name), f"median gap {gap}", "score", "sum", plots.scatter(kept["score"], sums, limits))
        )
    by = " and ".join(takers)
    head = ("Method", "Median gap", "Largest gap", "Median ratio\nrelevance to score", f"Median amount\nof the {by}")
    reading = (
        f"One point per example: the sum of the relevance and of what the {by} took, against the score. A method that "
        "conserves the score lies on the dashed diagonal; the gap is the distance from it, in units of the score."
    )
    return Chapter(
        "Conservation",
        reading,
        [
            Grid(f"Sum of {' and '.join(['relevance', *takers])} against the score", head, rows),
            Plots("Sum against score", panels),
        ],
    )


def _agreement(results: Results) -> Chapter:
    names, values = results["agreement"]["methods"], results["agreement"]["spearman"]
    rows: list[tuple[str | Cell, ...]] = [
        (f"{i + 1} {method_name(name)}", *(_correlation(value) for value in values[i])) for i, name in enumerate(names)
    ]
    reading = (
        "Spearman correlation of two methods' relevance over the tokens of an example, mean over the examples: 1 means "
        "the same order of tokens, 0 no relation, below 0 the opposite. Agreement does not say which one is right."
    )
    head = ("Method", *(str(i + 1) for i in range(len(names))))
    return Chapter("Rank agreement", reading, [Grid("Mean Spearman correlation", head, rows)])


def _correlation(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(fixed(value, 2), shade=value)
