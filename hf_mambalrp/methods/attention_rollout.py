"""Attention rollout over the hidden attention of the mixers."""

import torch
from torch import Tensor

from hf_mambalrp.attention import weighted_rows
from hf_mambalrp.methods.problem import Problem, Relevance
from hf_mambalrp.methods.rolled_out import roll_out, scored, through_layer, unconserving


def attention_rollout(problem: Problem) -> Relevance:
    """R = e_i^T prod_l (I + E_d alpha^l), the last layer first, i the explained position.

    Ali, Zimerman and Wolf 2025, after Abnar and Zuidema 2020. E_d is the mean over channels; alpha is
    signed and neither it nor the product is normalised. R has no unit, does not depend on the target and does not sum
    to the score. Several explained positions (a target of several tokens) add up their rows. Time and memory are linear
    in the length; ``chunk_size`` is not used.

    Of a hybrid, which no paper writes down: softmax attention has its mean over heads E_h A in the place of E_d alpha;
    a layer in which both stand side by side is I + E_d alpha + E_h A, one without either is I; of Zamba, whose mixer
    alone reads what its shared block writes, I + E_d alpha (I + E_h A). Time is the square of the length in layers
    with softmax attention, memory still linear. MLPs, experts, projections, norms and factors between parts are left
    out, as in the formula.

    Raises:
        NonFiniteRelevanceError: NaN or infinity; names the layer.
    """
    with torch.no_grad():
        plain = problem.plain_step()
        streams = list(problem.network.streams(problem.embeddings, plain))
        logits, score = scored(problem, streams[-1])

        def step(layer: int, row: Tensor) -> Tensor:
            return through_layer(problem, layer, streams[layer], plain, row, lambda _, m, r: weighted_rows(m, r))

        return unconserving(roll_out(problem, step), logits, score)
