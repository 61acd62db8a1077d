"""What a method is asked, and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from hf_mambalrp.families import Network
from hf_mambalrp.families.base import Step
from hf_mambalrp.families.padding import leading, padding_of, rolled
from hf_mambalrp.rules import Rules


@dataclass(frozen=True)
class Problem:
    """What is to be explained: inputs, the positions whose logits count, and the score as a function of them."""

    network: Network
    embeddings: Tensor
    """(B, L, D) in the network's dtype."""
    mask: Tensor
    """(B, L) of 0 and 1."""
    positions: Tensor
    """(B, K) positions whose logits enter the score."""
    score: Callable[[Tensor], Tensor]
    """Logits (B, K, V) -> score (B,)."""
    per_layer: bool = False
    chunk_size: int | str = "auto"
    backend: str = "auto"
    factor: Tensor | None = None
    """(B, L, D) that the gradient at the embeddings is multiplied with; None is the embeddings themselves."""
    gradient: bool = False
    """Whether the modified gradient at the embeddings is asked for too."""
    shifts: Tensor | None = None
    """(B,): how far every row was moved to the left, see :func:`without_leading_padding`; None where none was."""
    meanwhile: Callable[[Tensor], object] | None = None
    """Work that needs the logits (B, K, V) and no relevance: done when all is launched on a GPU, before its numbers are
    waited for. It may be called again."""

    def padding(self) -> Tensor | None:
        """The mask as mixers take it, (B, L, 1); None where nothing is padding."""
        return padding_of(self.mask, self.embeddings)

    def plain_step(self) -> Step:
        """The step of a forward of the whole text without rules."""
        return self.network.plain_step(self.mask, self.embeddings)._replace(backend=self.backend)

    def kept(self, rules: Rules) -> int:
        """Bytes a forward keeps for its backward, per position of the batch."""
        return len(self.embeddings) * self.network.kept_bytes(rules, self.backend)


@dataclass(frozen=True)
class Parts:
    """What the parts read of the stream's relevance, and what goes past them.

    Before every branch h + sum of parts(h) the relevance of the stream is what the parts read and what is skipped; for
    every position, and without exception, whatever biases absorb in the parts.
    """

    names: list[tuple[int, int, str]]
    """Layer, branch in it, and the kind of the part; "skip" for what goes past all, "embeddings" for what a branch
    reads of the embeddings beside the stream, which is in the stream of no layer before it."""
    relevance: Tensor
    """(names, B, L)."""


@dataclass(frozen=True)
class Relevance:
    """Relevance of every token, and what is needed to check it."""

    tokens: Tensor
    """(B, L): sum over hidden units of embedding * modified gradient; 0 on padding."""
    score: Tensor
    """(B,)."""
    biases: Tensor
    """(B,): what additive biases absorbed."""
    layers: Tensor | None
    """(num_layers + 1, B, L): the same at the embedding and after every block."""
    logits: Tensor
    """(B, K, V) at the explained positions, where they were computed: a vocabulary takes long to copy off a GPU."""
    softmax: Tensor | None = None
    """(B,): what softmax absorbed under a rule of attention with which it does; None where it does not."""
    layer_absorbed: Tensor | None = None
    """(num_layers + 1, B): what biases and softmax absorbed between each of these and the score."""
    parts: Parts | None = None
    """What every part of every layer reads, where layers are asked for."""
    chunk_size: int | None = None
    """Positions that went at a time."""
    gradient: Tensor | None = None
    """(B, L, D): the modified gradient at the embeddings, where it was asked for; on the embeddings' device."""
    convergence_delta: Tensor | None = None
    """(B,): sum(tokens) - (score - score at the baseline), for methods that sum to that difference."""


def without_leading_padding(problem: Problem) -> Problem:
    """The problem with the padding that rows begin with at their end; ``shifts`` says how much that is.

    There nothing that counts reads it, so that a row is explained as it is run alone: a convolution would read what the
    biases of in_proj put on padding before the row.
    """
    if problem.mask[:, 0].all():
        return problem
    shifts = leading(problem.mask)
    return replace(
        problem,
        embeddings=rolled(problem.embeddings, shifts),
        mask=rolled(problem.mask, shifts),
        positions=problem.positions - shifts.to(problem.positions.device)[:, None],
        factor=None if problem.factor is None else rolled(problem.factor, shifts),
        shifts=shifts,
    )


def back_in_place(found: Relevance, shifts: Tensor | None) -> Relevance:
    """The relevance of rows that :func:`without_leading_padding` moved, if it did, where they were."""
    if shifts is None:
        return found

    def back(by_layer: Tensor) -> Tensor:
        return rolled(by_layer.transpose(0, 1), -shifts, 2).transpose(0, 1)

    return replace(
        found,
        tokens=rolled(found.tokens, -shifts),
        layers=None if found.layers is None else back(found.layers),
        gradient=None if found.gradient is None else rolled(found.gradient, -shifts),
        parts=None if found.parts is None else replace(found.parts, relevance=back(found.parts.relevance)),
    )
