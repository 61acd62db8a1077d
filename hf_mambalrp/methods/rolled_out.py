"""What the methods that multiply one matrix a layer have in common: the score, the row vector, the result."""

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from hf_mambalrp.attention import Mixing
from hf_mambalrp.errors import NonFiniteRelevanceError
from hf_mambalrp.families.base import Step
from hf_mambalrp.methods.problem import Problem, Relevance
from hf_mambalrp.rules import NO_RULES
from hf_mambalrp.rules.biases import BiasLedger
from hf_mambalrp.runs.progress import patient_bar

Mixed = Callable[[tuple[int, int, str], Mixing, Tensor], Tensor]
"""Row vectors r (B, L) times the matrix of a mixer, which comes with its place: layer, branch, what mixes."""


def scored(problem: Problem, last_stream: Tensor) -> tuple[Tensor, Tensor]:
    """Logits at the explained positions (B, K, V), and the score (B,)."""
    positions = problem.positions.to(last_stream.device)
    selected = last_stream.gather(1, positions[..., None].expand(-1, -1, last_stream.shape[-1]))
    logits = problem.network.logits(selected, NO_RULES, BiasLedger(len(selected)))
    return logits, problem.score(logits)


def roll_out(problem: Problem, step: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Rows of a product of one matrix a layer: e^T M_last ... M_0, e 1 at the explained positions of a row.

    ``step(layer, r)`` is r^T M of the layer for row vectors r (B, L). Shape: (B, L), zero on padding.

    Raises:
        NonFiniteRelevanceError: NaN or infinity; names the layer.
    """
    mask, row = problem.mask.to(problem.embeddings), explained(problem)
    for layer in patient_bar(range(len(problem.network.layers) - 1, -1, -1), "explain: layers", "layer"):
        row = finite(step(layer, row).to(mask) * mask, layer)
    return row


def explained(problem: Problem) -> Tensor:
    """1 at the explained positions of a row, 0 elsewhere. Shape: (B, L).

    Positions that are named twice, where a row has fewer target tokens than another, count once.
    """
    mask = problem.mask.to(problem.embeddings)
    return torch.zeros_like(mask).scatter_(1, problem.positions.to(mask.device), 1.0)


def finite(row: Tensor, layer: int) -> Tensor:
    """Return the row vectors of a layer, or raise :class:`NonFiniteRelevanceError`."""
    if not torch.isfinite(row).all():
        raise NonFiniteRelevanceError(
            f"The relevance is not finite at layer {layer} (counted from 0). Check the weights and the input for inf "
            "or nan, and load the model in float32 (dtype=torch.float32)."
        )
    return row


def through_layer(problem: Problem, layer: int, hidden: Tensor, plain: Step, row: Tensor, mixed: Mixed) -> Tensor:
    """r^T M of a layer for row vectors r (B, L), by r^T M_p = ``mixed(place, mixing, r)`` of every mixer p in it.

    Of a branch h + sum_p p(h) it is r^T (I + sum_p M_p), of branches the product, the last first; of one that a branch
    puts aside and the next one q reads, r^T (I + M_q (I + sum_p M_p)).
    """
    by_branch: defaultdict[int, list[tuple[tuple[int, int, str], Mixing]]] = defaultdict(list)
    for place, mixing in problem.network.mixings(layer, hidden, plain):
        by_branch[place[1]].append((place, mixing))
    read = torch.zeros_like(row)  # what the branch behind reads of what this one adds to h
    for number, branch in reversed(list(enumerate(problem.network.layers[layer]))):
        entering = read if branch.aside else row
        read = torch.zeros_like(row)
        for place, mixing in by_branch[number]:
            read = read + mixed(place, mixing, entering).to(row)
        row = row + read
    return row


def unconserving(tokens: Tensor, logits: Tensor, score: Tensor) -> Relevance:
    """The result of a method whose relevance is no part of the score: there is nothing for biases to absorb."""
    score = score.detach().cpu().float()
    return Relevance(tokens.detach().cpu().float(), score, torch.zeros_like(score), None, logits.detach())
