"""LaTIM: which token's part of a mixer's output is how much of what the block hands on."""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from hf_mambalrp.attention import ScanMixing, unified_channels
from hf_mambalrp.errors import OptionError
from hf_mambalrp.families.base import Branch, Term
from hf_mambalrp.methods.problem import Problem, Relevance
from hf_mambalrp.methods.rolled_out import roll_out, scored, unconserving

Aggregation = Literal["alti", "norm"]

PART_ELEMENTS = 2**22
"""How many numbers (B, R, L, E) the parts of a block of outputs have."""


def latim(problem: Problem, *, aggregation: Aggregation = "alti") -> Relevance:
    """R = e_i^T C^last ... C^0 with C^l_ij how much of the block's output y_i is the part T_i(x_j) of token j.

    T_i(x_j) = W_out (H_ij . x_j) + W_out (scale_i D sigmoid(c_i) M_conv,ij . x_j) for every j, x the input of the
    convolution and H unified attention: gate, sigmoids, normaliser and the scan's parameters are constants, so the
    parts add up to the mixer's output but for the biases of convolution and out_proj, and what biased padding leaks
    into the convolution. The residual stream is part of the token's own: T_i(x_i) + h_i.

    - "alti": max(0, ||y_i||_1 - ||y_i - T_i(x_j)||_1), y_i the output of the block (ALTI, Ferrando et al. 2022);
    - "norm": ||T_i(x_j)||_2.

    Rows of C are normalised to sum 1; one in which no part is near the output, as large biases can make it, is the
    token's own. Pitorro and Treviso 2025 (arXiv 2502.15612), written from a description of the method, not from its
    code: how the residual stream enters is taken from ALTI.

    R is not negative, has no unit, sums to 1 for an explained position and does not depend on the target; several
    positions add up their rows. Time grows with the square of the length; a block of rows is held at a time, and
    ``chunk_size`` is not used.

    Args:
        problem: what is explained.
        aggregation: "alti" or "norm".

    Raises:
        OptionError: an unknown aggregation, a model that reads in both directions, or one whose layers are more than
            h + mixer(norm(h)), as a hybrid's are.
        NonFiniteRelevanceError: NaN or infinity; names the layer.
    """
    if aggregation not in get_args(Aggregation):
        raise OptionError(
            f"aggregation={aggregation!r} is not allowed; use one of {', '.join(map(repr, get_args(Aggregation)))}."
        )
    if not problem.network.causal:
        raise OptionError(
            "method='latim' is written for mixers that read in one direction, and this model reads in both. Choose "
            "another method."
        )
    layers, kinds = problem.network.layers, sorted({part.kind for part in problem.network.parts} - {"ssm"})
    if kinds or any(layer != (Branch((Term(layer[0].terms[0].part),), layer[0].pre),) for layer in layers):
        raise OptionError(
            "method='latim' takes apart layers h + mixer(norm(h)) with one state-space mixer, and this model has "
            f"{f'{kinds} too' if kinds else 'others'}. Choose another method, such as 'attention_rollout'."
        )
    with torch.no_grad():
        streams = list(problem.network.streams(problem.embeddings, problem.plain_step()))
        logits, score = scored(problem, streams[-1])

        def step(layer: int, row: Tensor) -> Tensor:
            found = torch.zeros_like(row)
            for block, parts in token_parts(problem, layer, streams[layer], row):
                output = streams[layer + 1][:, block, None].to(parts)
                if aggregation == "norm":
                    size = parts.norm(dim=-1)
                else:
                    size = (output.abs().sum(-1) - (output - parts).abs().sum(-1)).clamp(min=0)
                nothing = (size.sum(-1) == 0).to(size)
                size.diagonal(block.start, 1, 2).add_(nothing)
                size = size / size.sum(-1, keepdim=True)
                found += torch.einsum("bi,bij->bj", row[:, block].to(size), size).to(found)
            return found

        return unconserving(roll_out(problem, step), logits, score)


def token_parts(problem: Problem, layer: int, hidden: Tensor, row: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """T_i(x_j) with the residual stream in j = i, for blocks of outputs i where ``row`` (B, L) is not all zero.

    Yields the block and its parts (B, R, L, D), zero where j > i and on padding.
    """
    mask = problem.padding()
    ((_, s),) = problem.network.mixings(layer, hidden, problem.plain_step())
    assert isinstance(s, ScanMixing)
    hidden = hidden.to(s.x)
    mask = None if mask is None else mask.to(s.x)
    tokens = hidden if mask is None else hidden * mask
    content = s.x if mask is None else s.x * mask
    for block in blocks_of(s, row):
        at = slice(block.start, block.stop)
        through = mixed(s, mask, block)  # (B, E, R, L)
        parts = s.out(through.permute(0, 2, 3, 1) * content[:, None])
        if mask is not None:
            parts *= mask[:, at, None]
        parts.diagonal(block.start, 1, 2).add_(tokens[:, at].transpose(1, 2))
        yield at, parts


def mixed(s: ScanMixing, mask: Tensor | None, rows: range) -> Tensor:
    """H with the skip in it, from the convolution's input to that of out_proj. Shape: (B, E, R, L)."""
    alpha = s.every_channel(rows)
    alpha.diagonal(rows.start, 2, 3).add_(s.D[:, None])
    return pad(unified_channels(alpha, s.gains(mask), rows), (0, s.x.shape[1] - rows.stop))


def blocks_of(s: ScanMixing, row: Tensor) -> list[range]:
    """Blocks of rows whose parts fit the memory, without those that count for nothing."""
    batch, length, inner = s.x.shape
    size = max(1, PART_ELEMENTS // (batch * length * inner))
    found = [range(start, min(start + size, length)) for start in range(0, length, size)]
    return [block for block in found if bool(row[:, block.start : block.stop].any())]
