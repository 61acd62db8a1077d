"""The figure of an audit: effects of its candidates and swaps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf_mambalrp.viz.effects_plot import Point, effects
from hf_mambalrp.viz.wording import label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hf_mambalrp.results.audit import Audit
    from hf_mambalrp.results.audit_parts import Effect


def audit_figure(found: "Audit") -> "Figure":
    """Draw the candidates in their order, and the swaps behind them."""
    points = [_point(one.found.name, one.found, one.confirmed) for one in found.candidates]
    points += [
        _point(f"swap {one.found.name}", one.found, one.confirmed, [value for _, value in one.controls])
        for one in found.swaps or ()
    ]
    inputs = "images" if found.of_images else "texts"
    return effects(
        points,
        title="What does the model rely on?",
        lines=[f"{label(found.model or 'a model')}, {found.texts} {inputs}; filled: confirmed"]
        + ["grey strokes: swaps of other words"] * bool(found.swaps),
        smallest=found.settings["min_effect"],
        across=f"effect, in standard deviations of the score, with its {found.settings['confidence']:.0%} interval",
    )


def _point(name: str, effect: "Effect", confirmed: bool, beside: Sequence[float] = ()) -> Point:
    return Point(name, effect.target, effect.effect, effect.low, effect.high, confirmed, beside)
