"""Raw attention: the hidden attention of the mixers as it stands."""

import torch

from hf_mambalrp.attention import weighted_rows
from hf_mambalrp.methods.problem import Problem, Relevance
from hf_mambalrp.methods.rolled_out import explained, finite, scored, unconserving
from hf_mambalrp.runs.progress import patient_bar


def raw_attention(problem: Problem) -> Relevance:
    """R = e_i^T (1/L) sum_l E_d alpha^l: what the explained position i reads, the mean over the L layers.

    Ali, Zimerman and Wolf 2025; the plain baseline of their rollout and Mamba-Attribution. E_d is the mean over
    channels; alpha is signed and not normalised, while the authors' code scales each layer to [0, 1] and takes the last
    9 of 24. R has no unit, does not depend on the target and does not sum to the score. Several explained positions
    add up their rows. Time and memory are linear in the length; ``chunk_size`` is not used.

    Of a hybrid, which no paper writes down: softmax attention has its mean over heads E_h A in the place of E_d alpha,
    a layer with both has the mean of the two, and one without either does not count among the L. Time is the square of
    the length in layers with softmax attention, memory still linear.

    Raises:
        NonFiniteRelevanceError: NaN or infinity; names the layer.
    """
    with torch.no_grad():
        plain = problem.plain_step()
        streams = list(problem.network.streams(problem.embeddings, plain))
        logits, score = scored(problem, streams[-1])
        start, found = explained(problem), []
        for layer in patient_bar(range(len(problem.network.layers)), "explain: layers", "layer"):
            mixings = problem.network.mixings(layer, streams[layer], plain)
            if mixings:
                rows = torch.stack([weighted_rows(mixing, start).to(start) for _, mixing in mixings]).mean(0)
                found.append(finite(rows * problem.mask.to(start), layer))
        return unconserving(torch.stack(found).mean(0), logits, score)
