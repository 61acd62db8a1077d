"""Where in the texts the relevance is."""

from collections import Counter
from itertools import accumulate

from hf_mambalrp.audit.corpus import TextWords
from hf_mambalrp.results.audit_parts import Positions
from hf_mambalrp.results.sentences import share_of_the_end

TOP, PART = 10, 0.05


class Places:
    """Sums over texts: shares of the end, and how far the ten most relevant tokens are from what is read."""

    def __init__(self) -> None:
        self._texts, self._last_word, self._last_words = 0, 0.0, 0.0
        self._distances: Counter[int] = Counter()

    def add(self, text: TextWords) -> None:
        """Add a text."""
        explanation = text.explanation
        self._texts += 1
        self._last_word += share_of_the_end(text.every, 0.0)
        self._last_words += share_of_the_end(text.every, PART)
        relevance = explanation.relevance[0][explanation.attention_mask[0] != 0]
        read = len(relevance) - 1 if explanation.position is None else int(explanation.position[0])
        top = relevance[: read + 1].topk(min(TOP, read + 1)).indices
        self._distances.update((read - top).tolist())

    def positions(self) -> Positions:
        """Return the means, and the quartiles of the distances."""
        return Positions(
            self._last_word / self._texts,
            self._last_words / self._texts,
            (self._quantile(0.25), self._quantile(0.5), self._quantile(0.75)),
        )

    def _quantile(self, part: float) -> int:
        """The smallest distance that at least this part of the tokens do not exceed."""
        ordered = sorted(self._distances)
        reached = accumulate(self._distances[distance] for distance in ordered)
        total = self._distances.total()
        return next(distance for distance, count in zip(ordered, reached, strict=True) if count >= part * total)
