"""Random relevance, the baseline that every method has to beat, and the noise that other methods draw."""

from hashlib import blake2b

import torch
from torch import Generator, Tensor

from hf_mambalrp.methods.copies import scores
from hf_mambalrp.methods.problem import Problem, Relevance
from hf_mambalrp.runs.checks import whole_number

KEY_UNITS = 8
"""Hidden units of a token's embedding that tell rows apart."""


def random_relevance(problem: Problem, *, seed: int = 0) -> Relevance:
    """Standard normal relevance: R_i ~ N(0, 1) for every attended token, in no relation to the score.

    Args:
        problem: what is explained.
        seed: of the numbers; each row's depend on nothing but the row, see :func:`row_generators`.

    Raises:
        OptionError: the seed is no whole number from 0 up.
    """
    tokens = standard_normal(row_generators(problem, seed), problem.mask, 1)[:, :, 0]
    logits, score = scores(problem, problem.embeddings[None])
    return Relevance(tokens, score[0].float(), torch.zeros(len(tokens), dtype=torch.float32), None, logits[0])


def row_generators(problem: Problem, seed: int) -> list[Generator]:
    """One generator a row, seeded by ``seed`` and the row's own attended embeddings.

    So a row's noise is the same in any batch and under any padding, while rows of one length do not share theirs: the
    average of a random method over a dataset is then one over independent draws.
    """
    prefix = f"{whole_number('seed', seed, 0)}:".encode()
    generators = []
    for embeddings, mask in zip(problem.embeddings[..., :KEY_UNITS].cpu(), problem.mask.cpu(), strict=True):
        key = blake2b(prefix + embeddings[mask != 0].numpy().tobytes(), digest_size=8).digest()
        generators.append(Generator().manual_seed(int.from_bytes(key, "little") >> 1))
    return generators


def standard_normal(generators: list[Generator], mask: Tensor, width: int) -> Tensor:
    """The next ``width`` numbers for every attended token, 0 on padding. Shape: (B, L, width), on the CPU."""
    drawn = torch.zeros(*mask.shape, width, dtype=torch.float32)
    for row, (generator, attended) in enumerate(zip(generators, mask.cpu() != 0, strict=True)):
        drawn[row, attended] = torch.randn(int(attended.sum()), width, generator=generator, dtype=torch.float32)
    return drawn
