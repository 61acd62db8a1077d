"""From candidates and the scores without them to what is confirmed."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from hf_mambalrp.audit.effects import Changed, effect_of
from hf_mambalrp.audit.scores import Named, Scored
from hf_mambalrp.audit.statistics import MAX_Q, false_discovery_rates
from hf_mambalrp.audit.words import WordRow
from hf_mambalrp.results.audit_parts import Candidate, Effect, named

Relied = tuple[Effect, Changed, Tensor]
"""An effect, what was changed, and the scores of that."""


class Tested(NamedTuple):
    """What became of the candidates."""

    candidates: tuple[Candidate, ...]
    untested: tuple[str, ...]
    """Those that too few inputs of any class have beside something else."""
    relied: list[Relied]
    """Of those that are confirmed."""


def tested(
    of: Named,
    inputs: Scored,
    screened: Sequence[WordRow],
    changes: Sequence[Changed],
    scores: Sequence[Tensor],
    confidence: float,
    min_effect: float,
) -> Tested:
    """Test what deleting each candidate does, corrected for their number; ``scores`` are of the changed inputs."""
    done, untested = [], []
    for row, change, after in zip(screened, changes, scores, strict=True):
        effect = effect_of(of, inputs, change, after, None, confidence)
        if effect is None:
            untested.append(named(row.pattern))
        else:
            done.append((row, effect, change, after))
    q_values = false_discovery_rates([effect.p for _, effect, *_ in done])
    candidates = tuple(
        Candidate(row.share, row.mean, effect, q, q < MAX_Q and abs(effect.effect) >= min_effect)
        for (row, effect, *_), q in zip(done, q_values, strict=True)
    )
    relied = [
        (effect, change, after)
        for (_, effect, change, after), one in zip(done, candidates, strict=True)
        if one.confirmed
    ]
    return Tested(candidates, tuple(untested), relied)
