"""Where in an image relevance is, in words: for readers who do not see it, and as names of its patches."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

PLACES = (
    ("top left", "top middle", "top right"),
    ("middle left", "centre", "middle right"),
    ("bottom left", "bottom middle", "bottom right"),
)
"""Ninths of an image."""
SECOND = 0.15
"""From this share on, the second strongest place is named too."""


class Patch(NamedTuple):
    """A patch: its row and column in the grid, from 0 at the top left, its relevance, the ninth of the image it is in.

    Example:
        >>> Patch(0, 3, 0.5, "top right").text
        'row 0, column 3 (top right)'
    """

    row: int
    column: int
    relevance: float
    place: str

    @property
    def text(self) -> str:
        """Row, column and place, as they stand in a table."""
        return f"row {self.row}, column {self.column} ({self.place})"


def strongest_patches(patches: "Tensor", count: int) -> list[Patch]:
    """At most ``count`` of the patches of a grid (rows, columns), strongest first; equal ones in reading order."""
    rows, columns = patches.shape
    order = patches.abs().flatten().sort(descending=True, stable=True).indices[:count].tolist()
    return [
        Patch(at // columns, at % columns, patches[at // columns, at % columns].item(), place(at, rows, columns))
        for at in order
    ]


def place(at: int, rows: int, columns: int) -> str:
    """The ninth of an image in which the centre of a patch lies, the patches being counted row by row."""
    row, column = divmod(at, columns)
    return PLACES[(6 * row + 3) // (2 * rows)][(6 * column + 3) // (2 * columns)]


def where(patches: "Tensor", positive: str, negative: str) -> str:
    """Sentences on the places that hold most of what each sign says; ``positive`` and ``negative`` name that.

    The share behind a sign is of all |relevance|, that behind a place of its sign's.
    """
    total = patches.abs().sum().item()
    if not total:
        return "No patch of the image has relevance."
    said = []
    for sign, says in ((1, positive), (-1, negative)):
        of_sign = (sign * patches).clamp(min=0)
        size = of_sign.sum().item()
        if not size:
            said.append(f"No patch {says}.")
            continue
        (first, share), (second, its_share) = _by_place(of_sign)
        also = f" and the {second} ({its_share:.0%})" if its_share >= SECOND else ""
        said.append(
            f"What {says} ({size / total:.0%} of all |R|) is strongest in the {first} ({share:.0%} of it){also}."
        )
    return " ".join(said)


def strongest_place(patches: "Tensor") -> str:
    """The ninth of an image that holds most |relevance|."""
    return _by_place(patches.abs())[0][0]


def _by_place(sizes: "Tensor") -> list[tuple[str, float]]:
    """The two ninths with the largest sums of what is not negative, and their shares, largest first."""
    rows, columns = sizes.shape
    sums = dict.fromkeys((name for line in PLACES for name in line), 0.0)
    for at, size in enumerate(sizes.flatten().tolist()):
        sums[place(at, rows, columns)] += size
    total = sum(sums.values()) or 1.0
    return sorted(((name, size / total) for name, size in sums.items()), key=lambda found: -found[1])[:2]
