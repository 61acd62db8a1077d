"""The report of an evaluation on pictures: its chapters as HTML or Markdown, its curves as a figure."""

from collections.abc import Mapping
from statistics import median
from typing import TYPE_CHECKING

from hf_mambalrp.errors import InputError
from hf_mambalrp.evaluation import plots, report_html, report_markdown
from hf_mambalrp.evaluation.images.summary import OBJECTS, PERTURBATION, SEVERAL, ImageMetric
from hf_mambalrp.evaluation.report import counted, curves, setting
from hf_mambalrp.evaluation.report_comparison import Results, differences, overview
from hf_mambalrp.evaluation.report_parts import Chapter, Plots, number, readable
from hf_mambalrp.viz.document import Facts
from hf_mambalrp.viz.wording import shorten, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNIT = "picture"
QUESTIONS: tuple[tuple[str, str, Mapping[str, ImageMetric]], ...] = (
    (
        "Perturbation",
        "ΔA^F replaces patches in the order of their relevance: it is the area between the curve of the output that "
        "starts with the least and the one that starts with the most relevant patch. Positive and negative are how "
        "often the class stays the most probable one while the 10 to 90% most, or least, relevant pixels are black, "
        "the mean of nine steps.",
        PERTURBATION,
    ),
    (
        "The object's mask",
        "How well the map finds the object that the explained class names: ROC AUC of its pixels (chance is 0.5), "
        "whether the most relevant pixel lies on it, and the share of positive relevance that does. Pixel accuracy and "
        "mIoU are of the foreground above the map's mean, from the totals of all pictures; mAP is the mean average "
        "precision of both classes. A map can be right about a model that looks elsewhere, and is wrong here.",
        OBJECTS,
    ),
    (
        "Several objects",
        "Every object of a picture is explained in turn: how often the target's own object has more positive "
        "relevance than every other one. A map that does not depend on the target is right for one and wrong for the "
        "other, 0.5 of two. With a contrast, each is explained against the other; methods that cannot have none.",
        SEVERAL,
    ),
)
"""What is asked, how to read the answer, and its metrics."""
CURVES = (
    "The model's output while patches are replaced, averaged over the pictures. A faithful method has a large blue "
    "area: the output falls fast when its most relevant patches go."
)


def to_html(results: Results) -> str:
    """Return the report as one self-contained HTML document; equal results give equal bytes."""
    return report_html.page(_title(results), chapters(results))


def to_markdown(results: Results) -> str:
    """Return the facts, findings and tables of :func:`to_html` as GitHub Markdown; equal results give equal bytes."""
    return report_markdown.page(_title(results), chapters(results))


def plot(results: Results) -> "Figure":
    """Return a matplotlib figure of the perturbation curves, a panel a method.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: perturbation was left out.
    """
    if not results["settings"]["perturbation"]:
        raise InputError("There are no curves: perturbation=False left them out. Evaluate with perturbation=True.")
    return plots.figure_of([_curves(results)])


def chapters(results: Results) -> list[Chapter]:
    """Return the chapters of the report in reading order; those about optional parts only where there are any."""
    found = []
    for title, reading, metrics in QUESTIONS:
        shown = {key: metric.shown for key, metric in metrics.items() if key in results["standings"]}
        if not shown:
            continue
        found.append(overview(results, shown, title, reading, UNIT))
        compared = {key: metric for key, metric in shown.items() if results["differences"].get(key)}
        if compared:
            found.append(differences(results, compared, f": {title.lower()}", UNIT))
        if metrics is PERTURBATION:
            found.append(Chapter("Perturbation curves", CURVES, [_curves(results)]))
    return [*found, _evaluated(results)]


def _title(results: Results) -> str:
    return f"Explanations of pictures by {shorten(visible(results['model'] or 'a model without a name'), 80)}"


def _evaluated(results: Results) -> Chapter:
    examples, settings = results["examples"], results["settings"]
    covered = [share for example in examples for share in example["evidence"]]
    right = sum(example["predicted"] in example["targets"] for example in examples)
    pairs = [
        ("Model", visible(results["model"] or "a model without a name")),
        ("Pictures", str(len(examples))),
        ("Explained classes", counted((name for example in examples for name in example["targets"]), 12)),
        ("Predicted class is explained", f"{right} of {len(examples)}"),
        ("Median score", number(float(median(score for example in examples for score in example["scores"])))),
        ("Median probability", f"{median(p for example in examples for p in example['probabilities']):.1%}"),
        *([("Median share of a mask", f"{median(covered):.1%} of the pixels")] if covered else []),
        *((readable(name), setting(name, value)) for name, value in settings.items()),
        *((name, str(version)) for name, version in results["versions"].items()),
    ]
    reading = (
        "Every number above holds for this model, these pictures and these settings; another replacement, step or "
        "measure gives other numbers."
    )
    return Chapter("What was evaluated", reading, [Facts(tuple(pairs))])


def _curves(results: Results) -> Plots:
    title = "Flipping: patches are replaced one after the other"
    return curves(results, "flip", "ΔA^F", title, "patches replaced", "patch")
