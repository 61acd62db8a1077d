"""The ceiling: the order of tokens that a search on the model itself finds best for a metric.

No explanation is asked. What is possible by this metric is what a method's figure can be held against: an order that
follows the relevance of single tokens cannot follow what tokens do together. Glossary as
:mod:`hf_mambalrp.evaluation.perturbation`; T is the set of the k most relevant tokens, and an order is a chain of such
sets, each one token larger.
"""

from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence

from hf_mambalrp.evaluation.perturbation import Ids, Perturbation

Chosen = tuple[int, ...]
"""Positions of T, ascending."""
Gain = Callable[[Sequence[Chosen]], Sequence[float]]
"""What each set adds to the metric where it is the first k tokens of an order."""
SEARCHED = ("delta_flip", "delta_insert")


def best_order(places: Sequence[int], gain: Gain, width: int = 1) -> tuple[int, ...]:
    """The positions in the order that a beam search finds best: the largest sum of ``gain`` over its sets T_1 .. T_n-1.

    The search begins with the most relevant token and adds one at a time; of all sets of k tokens it keeps the
    ``width`` whose sums so far are the largest, and of two ways to one set the better. 1 is the greedy search, and from
    C(n, n / 2) on nothing is left out, so that the order is the best of all.

    Args:
        places: the n positions.
        gain: of many sets of one size, together.
        width: sets that are kept.
    """
    beam: dict[Chosen, tuple[float, tuple[int, ...]]] = {(): (0.0, ())}
    for _ in range(len(places) - 1):
        grown: dict[Chosen, tuple[float, tuple[int, ...]]] = {}
        for chosen, (total, order) in beam.items():
            for place in places:
                if place not in order:
                    larger = list(chosen)
                    insort(larger, place)
                    key = tuple(larger)
                    if key not in grown or total > grown[key][0]:
                        grown[key] = total, (*order, place)
        sets = list(grown)
        sums = {key: (grown[key][0] + value, grown[key][1]) for key, value in zip(sets, gain(sets), strict=True)}
        beam = dict(sorted(sums.items(), key=lambda item: -item[1][0])[:width])
    order = max(beam.values())[1]
    return order + tuple(place for place in places if place not in order)


def best_orders(
    given: Perturbation, output: Callable[[Iterable[Ids]], Mapping[Ids, float]], width: int = 1
) -> dict[str, tuple[int, ...]]:
    """The order that :func:`best_order` finds for each of :data:`SEARCHED`.

    With v_in(T) the output where only the tokens of T are there, and v_out(T) where all others are, both metrics are
    sum_k (v_in(T_k) - v_out(T_k)) / n over T_1 .. T_n-1, read at every k; the ends cancel. "There" is what the curve
    says: the others are replaced along the flipping curves, and left out along those of insertion. So a metric takes
    n^2 forwards with width 1.

    Args:
        given: the example, with any order of its tokens.
        output: the model's output by input.
        width: of the search.
    """
    places = sorted(given.order)

    def searched(leave: Callable[[Iterable[int]], Ids]) -> tuple[int, ...]:
        def gain(sets: Sequence[Chosen]) -> list[float]:
            pairs = [(leave(place for place in places if place not in chosen), leave(chosen)) for chosen in sets]
            found = output({row for pair in pairs for row in pair})
            return [found[inside] - found[without] for inside, without in pairs]

        return best_order(places, gain, width)

    return {"delta_flip": searched(given.replaced), "delta_insert": searched(given.left)}
