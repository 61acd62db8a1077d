"""Mamba-Attribution: rollout over hidden attention that is weighted by gradients."""

import torch
from torch import Tensor

from hf_mambalrp.attention import Mixing, attention_matrix
from hf_mambalrp.families.base import Tap
from hf_mambalrp.methods.blocks import flushed
from hf_mambalrp.methods.problem import Problem, Relevance
from hf_mambalrp.methods.rolled_out import roll_out, scored, through_layer, unconserving

MATRIX_ELEMENTS = 2**24
"""How many numbers a block of query rows (B, R, L) has."""


def mamba_attribution(problem: Problem) -> Relevance:
    """R = e_i^T prod_l (I + (E_d g^l . E_d alpha^l)^+), the last layer first, i the explained position.

    Ali, Zimerman and Wolf 2025, after Chefer et al. 2021. g^l (B, L) is the gradient of the score with
    respect to the input of out_proj, the mixer's gated output, averaged over channels: a plain gradient, without rules.
    It multiplies the row of alpha at its position, and the negative part of the product is left out. R is not negative,
    has no unit and does not sum to the score. Several explained positions add up their rows. A contrast counts through
    the gradient; where it has several tokens, which takes rows of its own, both parts are added up.

    Of a hybrid, which no paper writes down: softmax attention has its mean over heads E_h A in the place of E_d alpha,
    and g is the gradient at the input of o_proj, with the output gate where there is one; a layer of both side by side
    is I + (..)^+ + (..)^+, one without either I; of Zamba, whose mixer alone reads what its shared block writes,
    I + (..)^+ (I + (..)^+), the inner one the block's. Factors and norms behind a part are in g.

    Time grows with the square of the length, memory with the length: the forward keeps its graph, and ``chunk_size`` is
    not used.

    Raises:
        NonFiniteRelevanceError: NaN or infinity; names the layer.
    """
    plain, taps = problem.plain_step(), list[Tap]()
    embeddings = problem.embeddings.detach().requires_grad_()
    streams = list(problem.network.streams(embeddings, plain._replace(embeddings=embeddings, taps=taps)))
    for stream in streams:
        if stream.device.type == "cpu":
            stream.register_hook(flushed)
    logits, score = scored(problem, streams[-1])
    written = [tap for tap in taps if tap.output]
    of_outputs = torch.autograd.grad(score.sum(), [tap.stream for tap in written], materialize_grads=True)
    gradients = {tap[:3]: gradient for tap, gradient in zip(written, of_outputs, strict=True)}
    streams = [stream.detach() for stream in streams]
    del taps, written, embeddings, stream

    def step(layer: int, row: Tensor) -> Tensor:
        return through_layer(problem, layer, streams[layer], plain, row, through)

    def through(place: tuple[int, int, str], mixing: Mixing, row: Tensor) -> Tensor:
        """Row times (E_d g . E_d alpha)^+ of one mixer, by the gradient (B, L, D) at what it writes."""
        gated = torch.zeros_like(mixing.x).requires_grad_()  # the projection is linear: anywhere will do
        projected = mixing.out(gated)
        (gradient,) = torch.autograd.grad(projected, gated, gradients[place].to(projected))
        weights = gradient.mean(-1)  # (B, L)
        row, mask = row.to(weights), problem.padding()
        found, mask = torch.zeros_like(row), None if mask is None else mask.to(weights)
        with torch.no_grad():
            batch, length = row.shape
            size = max(1, MATRIX_ELEMENTS // (batch * length))
            for start in range(0, length, size):
                block = range(start, min(start + size, length))
                at = slice(start, block.stop)
                if bool((row[:, at] == 0).all()):
                    continue
                mean = attention_matrix(mixing, mask, block, "mean", "raw")
                found += torch.einsum("bi,bij->bj", row[:, at], (weights[:, at, None] * mean).relu_())
        return found

    return unconserving(roll_out(problem, step), logits, score)
