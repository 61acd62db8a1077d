"""The figure of an audit: effects of its candidates and swaps."""

from typing import TYPE_CHECKING

from hf_mambalrp.viz.effects_plot import Point, effects
from hf_mambalrp.viz.wording import label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hf_mambalrp.results.audit import Audit


def audit_figure(found: "Audit") -> "Figure":
    """Draw the candidates in their order, and the swaps behind them."""
    points = [
        Point(_named(one.found.name, one.found.target), one.found.effect, one.found.low, one.found.high, one.confirmed)
        for one in found.candidates
    ]
    points += [
        Point(
            _named(f"swap {one.found.name}", one.found.target),
            one.found.effect,
            one.found.low,
            one.found.high,
            one.confirmed,
            [value for _, value in one.controls],
        )
        for one in found.swaps or ()
    ]
    return effects(
        points,
        title="What does the model rely on?",
        lines=[f"{label(found.model or 'a model')}, {found.texts} texts; filled: confirmed"]
        + ["grey strokes: swaps of other words"] * bool(found.swaps),
        smallest=found.settings["min_effect"],
        across=f"effect, in standard deviations of the score, with its {found.settings['confidence']:.0%} interval",
    )


def _named(words: str, target: str) -> str:
    return f"{words} · {target}"
