"""Attention rollout over the hidden attention of the mixers."""

import torch
from torch import Tensor

from hf_mambalrp.attention import weighted_rows
from hf_mambalrp.methods.problem import Problem, Relevance
from hf_mambalrp.methods.rolled_out import roll_out, scored, unconserving, whole_forward


def attention_rollout(problem: Problem) -> Relevance:
    """R = e_i^T prod_l (I + E_d alpha^l), the last layer first, i the explained position.

    Ali, Zimerman and Wolf 2025, after Abnar and Zuidema 2020. E_d is the mean over channels; alpha is
    signed and neither it nor the product is normalised. R has no unit, does not depend on the target and does not sum
    to the score. Several explained positions (a target of several tokens) add up their rows. Time and memory are linear
    in the length; ``chunk_size`` is not used.

    Raises:
        NonFiniteRelevanceError: NaN or infinity; names the layer.
    """
    with torch.no_grad():
        streams, plain = whole_forward(problem).streams, problem.plain_step()
        logits, score = scored(problem, streams[-1])

        def step(layer: int, row: Tensor) -> Tensor:
            mixings = problem.network.mixings(layer, streams[layer], plain)
            return row + sum(weighted_rows(mixing, row).to(row) for _, mixing in mixings)

        return unconserving(roll_out(problem, step), logits, score)
