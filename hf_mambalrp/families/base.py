"""What a family says: a table from a model of transformers to the parts that its forward is made of."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from hf_mambalrp.attention import Mixing
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.biases import BiasLedger

FUSED = ("triton", "mamba_ssm")
"""Backends whose ops are fused kernels."""
State = Any
"""A NamedTuple of tensors: what a part hands from one chunk of positions to the next; () of what has none."""


class Tap(NamedTuple):
    """A tensor of the forward whose relevance is asked for."""

    layer: int
    """Number of the layer, from 0."""
    branch: int
    """Number of the branch in the layer, from 0."""
    what: str
    """The kind of the part that reads or writes it, "skip" for what goes past the branch, or "embeddings"; for what is
    written inside a part of kind "shared block" the kind of what mixes there."""
    stream: Tensor
    """(B, L, D): the stream before the branch, as this reads it; or what the part writes."""
    output: bool
    """Whether it is what the part writes."""


class Step(NamedTuple):
    """What is the same for every part of one forward."""

    rules: Rules
    """The rules that apply."""
    ledger: BiasLedger
    """Where biases on the content path are recorded."""
    mask: Tensor | None = None
    """(B, L, 1), zero on padding; None where nothing is padding."""
    backend: str = "auto"
    """The backend of every op."""
    dtype: torch.dtype = torch.float32
    """The dtype of signals between matrix products."""
    embeddings: Tensor | None = None
    """(B, L, D), what the first layer reads, for a part that reads it too; it has the graph of the stream."""
    start: int = 0
    """How many positions of the text come before these."""
    length: int = 0
    """How many the text has in all."""
    keys: Tensor | None = None
    """(B, start + L) of all positions up to the last of these, 0 on padding between tokens, which attention must not
    read; None where there is none. (Padding behind a row is read by nothing that counts.)"""
    taps: list[Tap] | None = None
    """Where the relevance of parts is asked for, what every branch reads is put."""
    place: tuple[int, int] = (0, 0)
    """Number of the layer and of the branch in it that computes."""


class Part(Protocol):
    """A module of the model with its rules; written once, whatever computes its ops."""

    module: nn.Module
    kind: str
    """What it is called where relevance is told apart by parts: "ssm", "delta", "conv", "linear", "attention", "mlp",
    "experts", "shared block"."""
    backends: tuple[str, ...]
    """Names of what can compute it."""
    causal: bool
    """Whether a position reads none behind it, so that it can go chunk by chunk."""
    appends: bool
    """Whether its state is what every position appends to it, (B, T, ...), so that it grows with the text."""
    recordable: bool
    """Whether it launches the same work for every input of one shape."""

    def state(self, batch: int, like: Tensor) -> State:
        """The state before the first position, in the dtype and on the device of ``like``."""

    def kept(self, rules: Rules) -> int:
        """How many numbers a forward keeps at most for its backward, per row and position."""

    def __call__(self, x: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        """Read (B, L, D) and return (B, L, D) with the state after its last position, or with what these append."""


class Mixer(Part, Protocol):
    """A part that mixes positions."""

    mixes: str
    """What mixes them: "ssm", "delta", "conv", "linear" or "attention"."""

    def mixing(self, x: Tensor, step: Step) -> Mixing:
        """The part as a linear map over positions, from the first one on."""


def is_mixer(part: Part) -> TypeGuard[Mixer]:
    """Whether a part mixes positions. Python 3.11 takes 24 us to ask a protocol that, here 0.1."""
    return hasattr(part, "mixing")


def tapped(step: Step, what: str, stream: Tensor, *, output: bool = False) -> Tensor:
    """The stream; where its relevance is asked for, under a name of its own in the graph."""
    if step.taps is None:
        return stream
    alias = stream.view_as(stream)
    step.taps.append(Tap(*step.place, what, alias, output))
    return alias


class Stream(NamedTuple):
    """The residual stream as a sum that is left to the norm that reads it, which may add and norm in one pass."""

    h: Tensor
    """(B, L, D)."""
    added: Tensor | None = None
    """(B, L, D), what the last branch adds; None where it was added."""

    @property
    def whole(self) -> Tensor:
        """The sum."""
        return self.h if self.added is None else self.h + self.added

    def of_each(self, function: Callable[[Tensor], Tensor]) -> "Stream":
        """The stream with a linear function of both."""
        return Stream(function(self.h), None if self.added is None else function(self.added))


class Norm(Protocol):
    """A norm of the model with its rule."""

    module: nn.Module

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        """Return the normed stream in the dtype of signals. Shape: (B, L, D) -> (B, L, D)."""


class Term(NamedTuple):
    """One of the parts that a branch adds up: ``after`` part(``before`` x)."""

    part: Part
    before: float = 1.0
    after: float = 1.0


class Branch(NamedTuple):
    """h + scale post(sum over terms of after part(before pre(h))); a norm that is None is left out."""

    terms: tuple[Term, ...]
    pre: Norm | None = None
    post: Norm | None = None
    scale: float = 1.0
    past: float | None = None
    """Where ``past`` pre(h) stands in the place of h in this sum, which then is the stream: its factor."""
    aside: bool = False
    """Whether what it adds is added for the next branch alone: that reads pre(h + it) and adds to h."""


def branch(
    norm: Norm | None,
    *parts: Part | Term | None,
    post: bool = False,
    scale: float = 1.0,
    past: float | None = None,
    aside: bool = False,
) -> Branch | None:
    """A branch of these parts, side by side, with its norm before them or ``post`` them; a part that is None is absent.

    None where every part is.
    """
    terms = tuple(part if isinstance(part, Term) else Term(part) for part in parts if part is not None)
    if not terms:
        return None
    return Branch(terms, None if post else norm, norm if post else None, scale, past, aside)


def part_of(layer: nn.Module, name: str, kind: Callable[..., Part], *arguments: Any) -> Part | None:
    """The part of this kind that a layer has under ``name``; None where that is missing or None."""
    module = getattr(layer, name, None)
    return None if module is None else kind(module, *arguments)


class Stem(Protocol):
    """The inputs of a model to the stream that the first layer reads."""

    module: nn.Module
    """Where it computes."""
    weight: Tensor
    """A weight of it, (..., D) or (D, ...)."""
    hidden_size: int
    """D."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the stream (B, L, D) in the dtype of the model or a wider one."""

    def entered(self, embeddings: Tensor) -> Tensor:
        """Return the stream (B, L, D) of embeddings (B, L, D) that a caller gives the model."""

    def sample(self) -> dict[str, Tensor]:
        """Arguments for a forward of the model on an input of this kind, by their names in transformers; one row."""


class Head(NamedTuple):
    """The stream to logits: ``scale`` linear(norm(h)), with the neck between norm and linear where there is one, and
    with z these, ``cap`` tanh(z / ``cap``) where there is a cap.
    """

    norm: Norm
    linear: nn.Module
    scale: float = 1.0
    positions: tuple[int, ...] | None = None
    """The positions that it reads, side by side, where the architecture fixes them; None where a call chooses."""
    neck: "Neck | None" = None
    cap: float | None = None


class Neck(NamedTuple):
    """What narrows each position before the head reads them side by side."""

    linear: nn.Module
    norm: Norm


class Family(NamedTuple):
    """One family of models; residual sums between its branches follow LRP-0."""

    model_type: str
    """``config.model_type`` in transformers."""
    stem: Callable[[Any], Stem]
    """From the model."""
    layers: Callable[[Any], Iterable[tuple[Branch | None, ...]]]
    """From the model: the branches of each of what transformers calls a layer; one that is None is absent."""
    head: Callable[[Any, nn.Module], Head]
    """From the model and its linear head; see :data:`HEADS`."""


HEADS = ("lm_head", "score", "head")
"""Names of the linear head on a model: a language model's, a classifier's of texts, of images."""
