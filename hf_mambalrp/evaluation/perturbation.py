"""Perturbed inputs of one example under one order of its tokens, and the faithfulness measures of what they give.

Glossary: n perturbable tokens, of which the first k of an order are perturbed; MoRF most relevant first, LeRF its
reverse; A the area under the model's output over k/n in [0, 1].
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Ids = tuple[int, ...]
"""Token ids of one input; :data:`ZERO` stands for a zero embedding."""

ZERO = -1
POINTS = 20
"""Steps of a curve unless the caller says otherwise."""
BINS = (1, 5, 10, 20, 50)
"""Percentages of the tokens that comprehensiveness and sufficiency average over (DeYoung et al. 2020, section 4.2)."""
GRID = tuple(i / 20 for i in range(21))
"""Fractions k/n on which the curves of several examples are averaged."""
CURVES = ("flip_morf", "flip_lerf", "insert_morf", "insert_lerf")
METRICS = ("delta_flip", "delta_insert", "comprehensiveness", "sufficiency")


def order_of(relevance: Sequence[float], positions: Iterable[int]) -> tuple[int, ...]:
    """Positions, most relevant first by sign and size; of equal ones the earlier position first."""
    return tuple(sorted(positions, key=lambda position: -relevance[position]))


def counts_of(n: int, step: int | float | str) -> tuple[int, ...]:
    """Numbers k of perturbed tokens: from 0 to n in steps of tokens, or of a fraction of n; "auto" is n / 20."""
    if isinstance(step, float):
        step = max(1, round(step * n))
    size = -(-n // POINTS) if isinstance(step, str) else step
    return (*range(0, n, size), n)


def area(counts: Sequence[int], values: Sequence[float]) -> float:
    """Area under ``values`` over k / n by the trapezoid rule."""
    pieces = zip(counts, counts[1:], values, values[1:], strict=False)
    return sum((after - before) * (low + high) / 2 for before, after, low, high in pieces) / counts[-1]


def on_grid(counts: Sequence[int], values: Sequence[float]) -> list[float]:
    """A curve read at :data:`GRID`, straight between its points."""
    found = []
    for fraction in GRID:
        k = fraction * counts[-1]
        right = min(bisect_right(counts, k), len(counts) - 1)
        part = (k - counts[right - 1]) / (counts[right] - counts[right - 1])
        found.append(values[right - 1] * (1 - part) + values[right] * part)
    return found


@dataclass(frozen=True)
class Perturbation:
    """One example under one order.

    Flipping replaces tokens. Insertion begins with none of them and adds them in their places: with "remove" absent
    tokens are not there at all, so inputs are shorter; where that leaves nothing, one replaced token stands for the
    empty input. With "replace" absent tokens are replaced as in flipping; then the insertion curve of an order is the
    flipping curve of its reverse read backwards, and the difference of areas is the same number for both.
    """

    ids: Ids
    order: tuple[int, ...]
    """The n perturbable positions, most relevant first; other positions are never touched."""
    counts: tuple[int, ...]
    replacement: int
    insertion: str

    def replaced(self, positions: Iterable[int]) -> Ids:
        """The input with these positions replaced."""
        gone = set(positions)
        return tuple(self.replacement if place in gone else token for place, token in enumerate(self.ids))

    def removed(self, positions: Iterable[int]) -> Ids:
        """The input without these positions; one replaced token where none is left."""
        gone = set(positions)
        return tuple(token for place, token in enumerate(self.ids) if place not in gone) or (self.replacement,)

    def left(self, positions: Iterable[int]) -> Ids:
        """The input without these positions as the insertion curves have it."""
        return self.removed(positions) if self.insertion == "remove" else self.replaced(positions)

    def rows(self) -> dict[str, list[Ids]]:
        """Every perturbed input, by the curve or the measure that it belongs to."""
        morf, lerf = self.order, self.order[::-1]
        tops = [-(-len(morf) * percent // 100) for percent in BINS]
        return {
            "flip_morf": [self.replaced(morf[:k]) for k in self.counts],
            "flip_lerf": [self.replaced(lerf[:k]) for k in self.counts],
            "insert_morf": [self.left(morf[k:]) for k in self.counts],
            "insert_lerf": [self.left(lerf[k:]) for k in self.counts],
            "comprehensiveness": [self.replaced(morf[:k]) for k in tops],
            "sufficiency": [self.replaced(morf[k:]) for k in tops],
        }

    def areas(self, output: Mapping[Ids, float]) -> dict[str, Any]:
        """Both differences of areas, and the curves on :data:`GRID`, from what the model gives for :meth:`rows`."""
        rows = self.rows()
        curves = {name: [output[row] for row in rows[name]] for name in CURVES}
        areas = {name: area(self.counts, values) for name, values in curves.items()}
        return {
            "delta_flip": areas["flip_lerf"] - areas["flip_morf"],
            "delta_insert": areas["insert_morf"] - areas["insert_lerf"],
            "curves": {name: on_grid(self.counts, values) for name, values in curves.items()},
        }

    def measures(self, output: Mapping[Ids, float], probability: Mapping[Ids, float]) -> dict[str, Any]:
        """The four metrics and the curves, from what the model gives for :meth:`rows`."""
        rows, whole = self.rows(), probability[self.ids]
        drops = {
            name: sum(whole - probability[row] for row in rows[name]) / len(BINS)
            for name in ("comprehensiveness", "sufficiency")
        }
        return {**self.areas(output), **drops}
