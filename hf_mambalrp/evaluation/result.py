"""The result of ``evaluate_faithfulness``: numbers, and how to show and store them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rich.table import Table
from rich.text import Text
from typing_extensions import Self

from hf_mambalrp.errors import InputError
from hf_mambalrp.evaluation.perturbation import METRICS
from hf_mambalrp.results.shown import written
from hf_mambalrp.runs.bad_rows import Reason, reasons
from hf_mambalrp.runs.files import read_json, write_text
from hf_mambalrp.viz.streams import printable
from hf_mambalrp.viz.terminal import printed
from hf_mambalrp.viz.wording import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console, ConsoleOptions, RenderResult

HEADINGS = {
    "delta_flip": "ΔA flipping ↑",
    "delta_insert": "ΔA insertion ↑",
    "comprehensiveness": "comprehensiveness ↑",
    "sufficiency": "sufficiency ↓",
}


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Faithfulness of several methods on one model; prints as a table.

    Args:
        results: plain JSON types. "model", "versions", "settings"; "examples", and "skipped" rows with their reasons;
            "methods" with a mean, an interval and the values of every metric, mean curves and conservation;
            "differences" of the first method to each other; "agreement" of rankings. Further parts, such as "sanity",
            may be added before a report is written.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, evaluate_faithfulness
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> evaluation = evaluate_faithfulness(model, ["A dull film."], methods=["mambalrp"], progress=False)
        >>> print(evaluation)
        Faithfulness on demo, 1 examples: measure logit, ...
    """

    results: dict[str, Any]

    _needed: ClassVar[frozenset[str]] = frozenset({"settings", "examples", "methods"})
    """Parts without which it is none."""

    def to_dict(self) -> dict[str, Any]:
        """Return ``results``.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, evaluate_faithfulness
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> evaluation = evaluate_faithfulness(model, ["A dull film."], methods=["mambalrp"], progress=False)
            >>> [*evaluation.to_dict()["methods"]]
            ['mambalrp']
        """
        return self.results

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why rows were skipped, the most frequent first, with the first ids."""
        return reasons(self.results.get("skipped", ()))

    def save(self, path: str | Path) -> None:
        """Write ``results`` as JSON, whole or not at all.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, evaluate_faithfulness
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> evaluation = evaluate_faithfulness(model, ["A dull film."], methods=["mambalrp"], progress=False)
            >>> evaluation.save("results.json")
        """
        write_text(Path(path), json.dumps(self.results, indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote. InputError: no such file, or another file.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, evaluate_faithfulness
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> evaluation = evaluate_faithfulness(model, ["A dull film."], methods=["mambalrp"], progress=False)
            >>> evaluation.save("results.json")
            >>> evaluation.load("results.json") == evaluation
            True
        """
        results = read_json(path, "the file of an evaluation that save() or hf-mambalrp evaluate wrote, results.json")
        if not isinstance(results, dict) or not cls._needed <= set(results):
            raise InputError(f"{path} holds something else than an {cls.__name__}; give a file that save() wrote.")
        return cls(results)

    def to_html(self, path: str | Path | None = None) -> str:
        """Return the report as a complete HTML document, and write it to ``path`` if one is given.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, evaluate_faithfulness
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> evaluation = evaluate_faithfulness(model, ["A dull film."], methods=["mambalrp"], progress=False)
            >>> page = evaluation.to_html("report.html")
        """
        from hf_mambalrp.evaluation.report import to_html

        return written(to_html(self.results), path)

    def to_markdown(self, path: str | Path | None = None) -> str:
        """Return the report's tables in Markdown, and write them to ``path`` if one is given.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, evaluate_faithfulness
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> evaluation = evaluate_faithfulness(model, ["A dull film."], methods=["mambalrp"], progress=False)
            >>> print(evaluation.to_markdown())
            # Faithfulness of explanations of demo
            ...
        """
        from hf_mambalrp.evaluation.report import to_markdown

        return written(to_markdown(self.results), path)

    def plot(self) -> "Figure":
        """Draw the perturbation curves. MissingExtraError: matplotlib is not installed.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, evaluate_faithfulness
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> evaluation = evaluate_faithfulness(model, ["A dull film."], methods=["mambalrp"], progress=False)
            >>> evaluation.plot().savefig("curves.png")
        """
        from hf_mambalrp.evaluation.report import plot

        figure: Figure = plot(self.results)
        return figure

    def write_report(self, folder: str | Path) -> None:
        """Write ``results.json``, ``report.html`` and ``report.md`` into a folder.

        Example:
            >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification, evaluate_faithfulness
            >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
            >>> evaluation = evaluate_faithfulness(model, ["A dull film."], methods=["mambalrp"], progress=False)
            >>> evaluation.write_report("out/report")
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_text(Path(folder) / "report.html", self.to_html())
        write_text(Path(folder) / "report.md", self.to_markdown())
        self.save(Path(folder) / "results.json")

    def __repr__(self) -> str:
        return printed(self._table(), color=False, width=120).rstrip("\n")

    def __str__(self) -> str:
        """Return ``repr`` as standard output can take it: "?" for characters that its encoding lacks."""
        return printable(repr(self))

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        return self._table()

    def _table(self) -> "RenderResult":
        """Yield what was evaluated, a row a method, and what the arrows and brackets mean."""
        settings = self.results["settings"]
        model, count = self.results["model"], len(self.results["examples"])
        named = [f"{name} {settings[name]}" for name in ("measure", "replacement", "insertion", "step", "seed")]
        yield Text(visible(f"Faithfulness on {model}, {count} examples: {', '.join(named)}"))
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("method")
        for metric in METRICS:
            table.add_column(HEADINGS[metric], justify="right")
        for name, found in self.results["methods"].items():
            stats = [found[metric] for metric in METRICS]
            table.add_row(Text(visible(name)), *(Text("{mean:.3f} [{low:.3f}, {high:.3f}]".format(**s)) for s in stats))
        yield table
        yield from (Text(f"skipped: {reason}") for reason in self.reasons)
        yield Text(f"↑ higher is better, ↓ lower; [{settings['confidence']:.0%} bootstrap interval over examples]")
