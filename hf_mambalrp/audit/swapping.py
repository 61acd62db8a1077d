"""Which texts have some words; swaps of words, and other swaps beside them as controls."""

import math
from collections.abc import Mapping, Sequence

from hf_mambalrp.audit.effects import Changed, Sides, both_sides, effect_of, scores_of, swapped
from hf_mambalrp.audit.scores import Scored, Scores
from hf_mambalrp.audit.statistics import MAX_Q, false_discovery_rates
from hf_mambalrp.audit.wording import places
from hf_mambalrp.audit.words import WordRow
from hf_mambalrp.evaluation.dataset import drawn
from hf_mambalrp.results.audit_parts import Effect, Swap

CONTROLS = 10
"""Swaps of other words beside each swap."""


class Having:
    """Which texts have a word, drawn where they are many."""

    def __init__(self, texts: Sequence[str], max_texts: int, seed: int) -> None:
        self._words = [{place.word for place in places(text)} for text in texts]
        self._max_texts, self._seed = max_texts, seed

    def words(self, row: WordRow) -> list[int]:
        """Return texts that have all words of a row."""
        parts = [row.pattern] if isinstance(row.pattern, str) else row.pattern
        wanted = {word for part in parts for word in part.split(" ")}
        return self._drawn([i for i, words in enumerate(self._words) if wanted <= words])

    def one_side(self, forth: Mapping[str, str], back: Mapping[str, str]) -> list[int]:
        """Return texts that have words of one side of a swap."""
        return self._drawn(
            [i for i, words in enumerate(self._words) if words.isdisjoint(forth) != words.isdisjoint(back)]
        )

    def _drawn(self, found: list[int]) -> list[int]:
        return drawn(found, self._max_texts, self._seed)


class Swapping:
    """Swaps, and the control swaps beside them: of words that are neither candidates nor of a swap."""

    def __init__(
        self,
        scores: Scores,
        texts: Scored,
        having: Having,
        rows: Sequence[WordRow],
        known: set[str],
        confidence: float,
    ) -> None:
        self._scores, self._texts, self._having, self._confidence = scores, texts, having, confidence
        self._words = {
            row.pattern: row.texts
            for row in rows
            if isinstance(row.pattern, str) and row.pattern.isalpha() and row.pattern not in known
        }

    def all(self, sides: Mapping[str, Sides], min_effect: float) -> tuple[tuple[Swap, ...], tuple[str, ...]]:
        """Return the swaps that were done, and the names of those that too few texts have the words of."""
        changes = [self._swapped(pair) for pair in sides.values()]
        found = dict(zip(sides, self._effects(changes), strict=True))
        done = {name: effect for name, effect in found.items() if effect is not None}
        q_values = false_discovery_rates([effect.p for effect in done.values()])
        swaps = []
        for effect, q in zip(done.values(), q_values, strict=True):
            taken = {word for forth, back in sides.values() for word in (*forth, *back)}
            controls = self._controls(effect.texts / 2, taken)
            largest = max((abs(value) for _, value in controls), default=0.0)
            passes = q < MAX_Q and abs(effect.effect) >= min_effect and bool(controls) and abs(effect.effect) > largest
            swaps.append(Swap(effect, q, controls, passes))
        return tuple(swaps), tuple(name for name in sides if name not in done)

    def _swapped(self, sides: Sides) -> Changed:
        return swapped(self._texts.texts, sides, self._having.one_side(*sides))

    def _effects(self, changes: Sequence[Changed]) -> list[Effect | None]:
        parts = zip(changes, scores_of(self._scores, changes), strict=True)
        return [effect_of(self._scores, self._texts, *part, None, self._confidence) for part in parts]

    def _controls(self, wanted: float, taken: set[str]) -> tuple[tuple[str, float], ...]:
        """Swaps of words each of which about ``wanted`` texts have, nearest first."""
        free = [word for word in self._words if word not in taken]
        free.sort(key=lambda word: (abs(math.log(self._words[word] / wanted)), word))
        pairs = zip(free[: 2 * CONTROLS : 2], free[1 : 2 * CONTROLS : 2], strict=False)
        effects = self._effects([self._swapped(both_sides([pair])) for pair in pairs])
        return tuple((effect.name, effect.effect) for effect in effects if effect is not None)
