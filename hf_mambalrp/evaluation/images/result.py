"""The result of ``evaluate_image_explanations``: numbers, and how to show and store them."""

from typing import TYPE_CHECKING, Any, ClassVar

from rich.table import Table
from rich.text import Text

from hf_mambalrp.evaluation.images.summary import OBJECTS, PERTURBATION, SEVERAL, compare
from hf_mambalrp.evaluation.result import Evaluation
from hf_mambalrp.results.shown import written
from hf_mambalrp.runs.checks import one_of
from hf_mambalrp.viz.wording import visible

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure
    from rich.console import RenderResult


class ImageEvaluation(Evaluation):
    """How right several methods are about the pictures of one model; prints as tables.

    ``results`` are plain JSON types: "model", "weights", "versions", "settings"; "examples" with targets, scores,
    probabilities, number of patches, and "evidence", the shares of the pixels that the masks cover; "methods" with a
    mean and an interval of every metric, its values by picture, or, of what is of totals, the "confusion" (true and
    false positive, false and true negative pixels) by picture, and mean curves; "differences" of the first method to
    each other; "standings", the best method of every metric and those not told apart from it.

    ``save``, ``load``, ``write_report`` and ``to_dict`` are those of :class:`hf_mambalrp.Evaluation`.
    """

    _needed: ClassVar[frozenset[str]] = Evaluation._needed | {"standings"}

    def compare(self, first: str, second: str) -> dict[str, dict[str, float]]:
        """Return the paired difference of two methods, first minus second, with its interval, for every metric.

        Raises:
            OptionError: a name that was not evaluated.

        Example:
            >>> from hf_mambalrp import DEMO_VISION_MODEL, VimLRPForImageClassification
            >>> from hf_mambalrp.evaluation import evaluate_image_explanations
            >>> model = VimLRPForImageClassification.from_pretrained(DEMO_VISION_MODEL)
            >>> pictures, names = [f"{DEMO_VISION_MODEL}/scenes/pictures/bag.png"], ["mambalrp", "random"]
            >>> evaluation = evaluate_image_explanations(model, pictures, methods=names, step=0.5, progress=False)
            >>> evaluation.compare("random", "mambalrp")["delta_flip"]["mean"] < 0
            True
        """
        for name in (first, second):
            one_of("method", name, self.results["methods"])
        return compare(self.results, first, second)

    def to_html(self, path: "str | Path | None" = None) -> str:
        """Return the report as a complete HTML document, and write it to ``path`` if one is given."""
        from hf_mambalrp.evaluation.images.report import to_html

        return written(to_html(self.results), path)

    def to_markdown(self, path: "str | Path | None" = None) -> str:
        """Return the report's tables in Markdown, and write them to ``path`` if one is given."""
        from hf_mambalrp.evaluation.images.report import to_markdown

        return written(to_markdown(self.results), path)

    def plot(self) -> "Figure":
        """Draw the perturbation curves. MissingExtraError: no matplotlib; InputError: perturbation was left out."""
        from hf_mambalrp.evaluation.images.report import plot

        figure: Figure = plot(self.results)
        return figure

    def _table(self) -> "RenderResult":
        """Yield what was evaluated, a row a method, and what the arrows and brackets mean."""
        settings: dict[str, Any] = self.results["settings"]
        pictures = len(self.results["examples"])
        said = [f"{name} {settings[name]}" for name in ("measure", "replacement", "step") if settings["perturbation"]]
        yield Text(visible(", ".join([f"Explanations of {self.results['model']} on {pictures} pictures", *said])))
        for metrics in (PERTURBATION, OBJECTS, SEVERAL):
            shown = {key: metric.shown for key, metric in metrics.items() if key in self.results["standings"]}
            if not shown:
                continue
            table = Table(box=None, padding=(0, 2, 0, 0))
            table.add_column("method")
            for metric in shown.values():
                table.add_column(f"{metric.symbol} {'↑' if metric.higher else '↓'}", justify="right")
            for name, found in self.results["methods"].items():
                table.add_row(Text(visible(name)), *(_cell(found.get(key)) for key in shown))
            yield table
        yield Text(f"↑ higher is better, ↓ lower; [{settings['confidence']:.0%} bootstrap interval over pictures]")


def _cell(stat: dict[str, float] | None) -> Text:
    return Text("–" if stat is None else "{mean:.3f}\n[{low:.3f}, {high:.3f}]".format(**stat))
