"""What a family file says: names of modules, and the rule for each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.biases import BiasLedger
from hf_mambalrp.rules.mixer import Signals

State = Any
"""A NamedTuple of tensors: what a mixer hands from one chunk of positions to the next."""
Mixer = Callable[[Any, Tensor, Tensor | None, Any, Rules, BiasLedger, str], tuple[Tensor, State]]
FusedMixer = Callable[[Any, Tensor, Tensor | None, Any, BiasLedger, str], tuple[Tensor, State]]


@dataclass(frozen=True)
class Family:
    """A table from role to module name and rule; residual sums between blocks follow LRP-0."""

    model_type: str
    """``config.model_type`` in transformers."""
    backbone: str
    """Attribute of the model that holds the blocks."""
    embeddings: str
    """Token embedding, in the backbone."""
    layers: str
    """The list of blocks, in the backbone."""
    final_norm: str
    """Norm after the last block, in the backbone."""
    block_norm: str
    """Norm before the mixer, in a block."""
    block_mixer: str
    """The mixer, in a block."""
    norm: Callable[[Any, Tensor, Rules], Tensor]
    """Rule of both norms."""
    mixer: Mixer
    """Rule of the mixer."""
    fused_mixer: FusedMixer
    """The same as fused kernels for a GPU, under all rules."""
    signals: Callable[[Any, Tensor, Tensor | None], Signals]
    """The mixer as a linear map of its content: what hidden attention is made of."""
    initial_state: Callable[[Any, int, Tensor], State]
    """The mixer's state before the first token."""
    kept_per_position: Callable[[Any, Rules], int]
    """Numbers a block keeps for its backward, per row and position."""
    heads: tuple[str, ...] = ("lm_head", "score")
    """Linear head on the model: a language model's or a classifier's."""
