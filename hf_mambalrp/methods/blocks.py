"""All blocks of a network over one chunk of positions: the forward with its graph, and its transpose."""

from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from hf_mambalrp.families.base import State, Step, Stream, Tap
from hf_mambalrp.families.network import picked
from hf_mambalrp.methods.memory import LARGE, release_free_memory
from hf_mambalrp.methods.problem import Parts, Problem
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.biases import BiasLedger

SMALLEST = 1e-30
"""Of gradients; the score's own is about 1."""
FEW = 64
"""Positions of which no gradient is :func:`flushed`: to look at so few costs more than slow numbers among them."""


class Chunk(NamedTuple):
    """What the blocks read; L is the chunk's length."""

    embeddings: Tensor
    """(B, L, D)."""
    mask: Tensor | None
    """(B, L, 1), as mixers take it."""
    positions: Tensor
    """(B, K) explained positions, counted from the chunk's first one; those outside of 0 to L - 1 lie elsewhere."""
    states: list[State] | None
    """Of every part before the chunk, whose adjoints are asked for; None where the chunk is all there is."""
    factor: Tensor | None = None
    """(B, L, D), see :class:`Problem`."""
    start: int = 0
    """Position of its first one in the text."""
    keys: Tensor | None = None
    """(B, start + L), see :class:`Step`."""


class Transposed(NamedTuple):
    """What the backward of a chunk gives."""

    relevance: Tensor
    """(streams, B, L): of the embeddings, or of all layers."""
    adjoints: list[State]
    """Of the states before the chunk; none where the chunk is all there is. In a state that grows None for what is
    constant."""
    absorbed: Tensor
    """(entries, B): what every entry of the ledger absorbed."""
    gradient: Tensor | None
    """(B, L, D) at the embeddings, where it was asked for."""
    parts: Parts | None
    """What the parts read, where layers are asked for."""


class Run(Protocol):
    """The forward through every block over one chunk, whatever launched its kernels, until the next one."""

    selected: Tensor
    """The last stream at the explained positions, (B, K, D); 0 for those that lie elsewhere."""
    ledger: BiasLedger
    """Its biases block by block."""

    @property
    def states_out(self) -> list[State]:
        """Of every part after the chunk."""

    def transposed(self, grad_selected: Tensor, adjoints: list[State] | None) -> Transposed:
        """The backward, from the gradient of ``selected`` and from the adjoints of the states after the chunk."""


class Blocks:
    """The forward through every block, with its graph."""

    def __init__(self, problem: Problem, rules: Rules, chunk: Chunk, *, reusable: bool = False) -> None:
        self.network, hidden = problem.network, chunk.embeddings.detach().requires_grad_(torch.is_grad_enabled())
        batch, length, _ = hidden.shape
        self.chunk, self.reusable, self.wants_gradient = chunk, reusable, problem.gradient
        self.releases = hidden.device.type == "cpu" and problem.kept(rules) * length > LARGE
        self.streams: list[Tensor] = [hidden]
        """Residual stream before the first block, and after every block where layers are asked for."""
        self.states_out: list[State] = []
        self.ledger = BiasLedger(batch)
        self.taps: list[Tap] | None = [] if problem.per_layer and hidden.requires_grad else None
        """What the parts read and write, where the relevance of layers is asked for."""
        step = Step(
            rules, self.ledger, chunk.mask, problem.backend, embeddings=hidden, start=chunk.start,
            length=problem.embeddings.shape[1], keys=chunk.keys, taps=self.taps,
        )  # fmt: skip
        network = self.network
        self.states = network.initial_states(hidden) if chunk.states is None else chunk.states
        at, self._elsewhere = chunk.positions, None
        if chunk.states is not None:  # otherwise there are no other chunks where positions could lie
            self._elsewhere = ((at < 0) | (at >= length))[:, :, None]
            at = at.masked_fill(self._elsewhere[:, :, 0], 0)
        last = len(network.layers) - 1
        stream = Stream(hidden)
        for layer, states in enumerate(network.states_of(self.states)):
            if stream.h.requires_grad and stream.h.device.type == "cpu" and batch * length > FEW:
                stream.h.register_hook(flushed)
            alone = at if layer == last and not problem.per_layer else None
            stream, states_out = network.layer(layer, stream, states, step, alone)
            self.states_out += states_out
            self.ledger.end_block()
            if problem.per_layer:
                stream = Stream(stream.whole)
                self.streams.append(stream.h)
            self._release()
        hidden = stream.whole
        self._selected = picked(hidden, at) if problem.per_layer else hidden
        self.selected = self._here(self._selected.detach())

    def transposed(self, grad_selected: Tensor, adjoints: list[State] | None) -> Transposed:
        """As :meth:`Run.transposed`.

        Relevance is stream * modified gradient, summed over hidden units, and 0 where a score does not depend on it.
        """
        entries, outputs = self.ledger.entries, [self._selected]
        gradients = [self._here(grad_selected.to(self._selected))]
        if adjoints is not None:
            # States of what is constant have no graph, and those that grow then have no adjoints either.
            pairs = zip((s for state in self.states_out for s in state), (a for s in adjoints for a in s), strict=True)
            with_graph = [(state, adjoint) for state, adjoint in pairs if state.requires_grad and adjoint is not None]
            outputs += [state for state, _ in with_graph]
            gradients += [adjoint for _, adjoint in with_graph]
        states = [s for state in self.chunk.states or [] for s in state]
        taps = [tap for tap in self.taps or [] if not tap.output]
        inputs = [*self.streams, *states, *entries, *(tap.stream for tap in taps)]
        self._release()
        found = torch.autograd.grad(outputs, inputs, gradients, retain_graph=self.reusable, allow_unused=True)
        sizes = [len(self.streams), len(states), len(entries), len(taps)]
        of_streams, of_states, of_entries, of_taps = (
            found[end - n : end] for n, end in zip(sizes, accumulate(sizes), strict=True)
        )
        assert all(gradient is not None for gradient in of_streams), "a stream has no gradient"
        factors = [stream.detach() for stream in self.streams]
        if self.chunk.factor is not None:
            factors[0] = self.chunk.factor.to(factors[0])
        relevance = [(f * g).sum(-1).to(factors[0].device) for f, g in zip(factors, of_streams, strict=True)]
        left = iter(of_states)
        return Transposed(
            torch.stack(relevance),
            [
                type(state)(*(_filled(next(left), one, part.appends) for one in state))
                for part, state in zip(self.network.parts, self.chunk.states or [], strict=False)
            ],
            self.ledger.absorbed([_filled(gradient, one) for gradient, one in zip(of_entries, entries, strict=True)]),
            of_streams[0] if self.wants_gradient else None,
            self._parts(taps, of_taps) if taps else None,
        )

    def _parts(self, taps: list[Tap], gradients: tuple[Tensor | None, ...]) -> Parts:
        """What is read of what has a gradient; a part whose relevance is 0 throughout may have none."""
        found = [
            (tap, _filled(gradient, tap.stream))
            for tap, gradient in zip(taps, gradients, strict=True)
            if gradient is not None or tap.what != "embeddings"
        ]
        device = self.streams[0].device
        relevance = [(tap.stream.detach() * gradient).sum(-1).to(device) for tap, gradient in found]
        return Parts([(tap.layer, tap.branch, tap.what) for tap, _ in found], torch.stack(relevance))

    def _here(self, selected: Tensor) -> Tensor:
        """0 at the positions that lie elsewhere, (B, K, D) on the device of the last layer."""
        return selected if self._elsewhere is None else selected.masked_fill(self._elsewhere.to(selected.device), 0)

    def _release(self) -> None:
        if self.releases:
            release_free_memory()


def flushed(gradient: Tensor) -> Tensor:
    """0 for what is nothing beside the rest: it would become subnormal numbers, many times slower on a CPU."""
    return hardshrink(gradient, SMALLEST)


def _filled(gradient: Tensor | None, like: Tensor, may_be_none: bool = False) -> Any:
    """The gradient; where there is none, zeros, or None where that is enough."""
    return torch.zeros_like(like) if gradient is None and not may_be_none else gradient
