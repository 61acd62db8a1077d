"""All blocks of a network over one chunk of positions: the forward with its graph, and its transpose."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from hf_mambalrp.families.base import State, Step
from hf_mambalrp.methods.memory import LARGE, release_free_memory
from hf_mambalrp.methods.problem import Problem
from hf_mambalrp.rules import Rules
from hf_mambalrp.rules.biases import BiasLedger


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


class Transposed(NamedTuple):
    """What the backward of a chunk gives."""

    relevance: Tensor
    """(streams, B, L): of the embeddings, or of all layers."""
    adjoints: list[State]
    """Of the states before the chunk; none where the chunk is all there is."""
    shares: Tensor
    """(biases, B): what every bias absorbed."""
    gradient: Tensor | None
    """(B, L, D) at the embeddings, where it was asked for."""


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
        network, hidden = problem.network, chunk.embeddings.detach().requires_grad_(torch.is_grad_enabled())
        batch, length, _ = hidden.shape
        self.chunk, self.reusable, self.wants_gradient = chunk, reusable, problem.gradient
        self.releases = hidden.device.type == "cpu" and problem.kept(rules) * length > LARGE
        self.streams: list[Tensor] = [hidden]
        """Residual stream before the first block and after the last; after every block where layers are asked for."""
        self.states_out: list[State] = []
        self.ledger = BiasLedger(batch)
        step = Step(rules, self.ledger, chunk.mask, problem.backend, embeddings=hidden)
        self.states = network.initial_states(hidden) if chunk.states is None else chunk.states
        for layer, states in enumerate(network.states_of(self.states)):
            hidden, states_out = network.layer(layer, hidden, states, step)
            self.states_out += states_out
            self.ledger.end_block()
            if problem.per_layer or layer == len(network.layers) - 1:
                self.streams.append(hidden)
            self._release()
        self.explained = self.streams if problem.per_layer else self.streams[:1]
        """The streams whose relevance is asked for."""
        positions = chunk.positions.to(hidden.device)[:, :, None]  # of the last layer, where a model is spread out
        self._elsewhere = (positions < 0) | (positions >= length)
        self._index = positions.masked_fill(self._elsewhere, 0).expand(-1, -1, hidden.shape[-1])
        self.selected = hidden.detach().gather(1, self._index).masked_fill(self._elsewhere, 0)

    def transposed(self, grad_selected: Tensor, adjoints: list[State] | None) -> Transposed:
        """As :meth:`Run.transposed`.

        Relevance is stream * modified gradient, summed over hidden units, and 0 where a score does not depend on it.
        """
        last, entries = self.streams[-1], self.ledger.entries
        grad_selected = grad_selected.to(last).masked_fill(self._elsewhere, 0)
        outputs, gradients = [last], [torch.zeros_like(last).scatter_add_(1, self._index, grad_selected)]
        if adjoints is not None:
            # States of what is constant have no graph.
            pairs = zip((s for state in self.states_out for s in state), (a for s in adjoints for a in s), strict=True)
            with_graph = [(state, adjoint) for state, adjoint in pairs if state.requires_grad]
            outputs += [state for state, _ in with_graph]
            gradients += [adjoint for _, adjoint in with_graph]
        states = [s for state in self.chunk.states or [] for s in state]
        inputs = [*self.explained, *states, *entries]
        self._release()
        found = torch.autograd.grad(outputs, inputs, gradients, retain_graph=self.reusable, allow_unused=True)
        streams = len(self.explained)
        assert all(gradient is not None for gradient in found[:streams]), "a stream has no gradient"
        filled = [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]
        factors = [stream.detach() for stream in self.explained]
        if self.chunk.factor is not None:
            factors[0] = self.chunk.factor.to(factors[0])
        relevance = [(f * g).sum(-1).to(factors[0].device) for f, g in zip(factors, filled, strict=False)]
        of_states = iter(filled[streams : streams + len(states)])
        return Transposed(
            torch.stack(relevance),
            [type(state)(*(next(of_states) for _ in state)) for state in self.chunk.states or []],
            self.ledger.shares(filled[streams + len(states) :]),
            filled[0] if self.wants_gradient else None,
        )

    def _release(self) -> None:
        if self.releases:
            release_free_memory()
