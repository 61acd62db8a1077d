"""Heat maps as tables: blue and red as everywhere, a stroke through the negative, and a number in every cell."""

from hf_mambalrp.viz.colors import strength
from hf_mambalrp.viz.document import Heat
from hf_mambalrp.viz.markup import escaped
from hf_mambalrp.viz.wording import label, shorten, signed, unsigned

SHADES = 20
NUMBERED = 11
"""Up to so many columns, the cells show their numbers; a wider table has them for hovering and for screen readers."""


def heat_table(heat: Heat, down: str, across: str, *, triangle: bool = False) -> str:
    """Draw a matrix as a table that scrolls sideways; of a ``triangle`` the part above the diagonal is empty."""
    peak = max((abs(value) for row in heat.values.tolist() for value in row), default=0.0)
    wide = len(heat.columns) > NUMBERED
    head = "".join(f'<th scope="col"><span><bdi>{_name(column)}</bdi></span></th>' for column in heat.columns)
    lines = "".join(
        f'<tr><th scope="row"><bdi>{_name(name)}</bdi></th>'
        + "".join(
            "<td></td>" if triangle and j > i else _cell(value, peak, wide, reachable=i == j == 0)
            for j, value in enumerate(row)
        )
        + "</tr>"
        for i, (name, row) in enumerate(zip(heat.rows, heat.values.tolist(), strict=True))
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="Heat map, {down} down and {across} across">'
        f'<table class="heat{" dense" if wide else ""}"><thead><tr><th scope="col">{down} ↓ {across} →</th>{head}</tr>'
        f'</thead><tbody>{lines}</tbody></table></div><p class="note"><b class="read"></b></p>'
        f'<p class="note">Blue is above 0, red with a stroke below; full colour is ±{unsigned(peak)}. '
        "Hover or tap a cell for its number, or go by Tab and the arrow keys.</p>"
    )


def _cell(value: float, peak: float, wide: bool, *, reachable: bool) -> str:
    """A cell that says its number on hover and on focus; the arrow keys go on from the one reachable by Tab."""
    shade = round(SHADES * strength(value, peak))
    side = ("p" if value > 0 else "n") if shade else "z"
    shown = signed(value) if wide else f"{value:+.2f}"
    return (
        f'<td class="{side}" style="--s:{shade / SHADES:.2f}" title="{signed(value)}" tabindex="{-1 + reachable}">'
        f"<span>{shown}</span></td>"
    )


def _name(text: str) -> str:
    return escaped(shorten(label(text), 16))
