"""What a method is asked, and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from hf_mambalrp.families import Network
from hf_mambalrp.families.padding import padding_of
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

    def padding(self) -> Tensor | None:
        """The mask as mixers take it, (B, L, 1); None where nothing is padding."""
        return padding_of(self.mask, self.embeddings)

    def kept(self, rules: Rules) -> int:
        """Bytes a forward keeps for its backward, per position of the batch."""
        return len(self.embeddings) * self.network.kept_bytes(rules, self.backend)


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
    """(B, K, V) at the explained positions."""
    layer_biases: Tensor | None = None
    """(num_layers + 1, B): what biases absorbed between each of these and the score."""
    chunk_size: int | None = None
    """Positions that went at a time."""
    gradient: Tensor | None = None
    """(B, L, D): the modified gradient at the embeddings, where it was asked for; on the embeddings' device."""
    convergence_delta: Tensor | None = None
    """(B,): sum(tokens) - (score - score at the baseline), for methods that sum to that difference."""
