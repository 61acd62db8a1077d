"""The engine: one forward under the rules, one backward, relevance = embedding * modified gradient.

Long inputs go chunk by chunk. Because the model is causal and recurrent, a chunk is a function of its embeddings and
of the states handed to it, so the forward needs only the states at the borders, and the backward, last chunk first,
recomputes one chunk at a time and hands the adjoints of the states to the chunk before it. That is the same chain
rule in another order: the relevance is the unchunked one.
"""

import gc
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from transformers.utils import logging

from hf_mambalrp.errors import ConservationError, NonFiniteRelevanceError, OptionError
from hf_mambalrp.families import Network
from hf_mambalrp.families.base import State, Step
from hf_mambalrp.families.padding import padding_of
from hf_mambalrp.methods.memory import LARGE, out_of_memory, release_free_memory
from hf_mambalrp.rules import NO_RULES, Rules
from hf_mambalrp.rules.biases import BiasLedger

Result = TypeVar("Result")

KEPT_BYTES = 1_250_000_000
"""What ``chunk_size="auto"`` lets a forward on the CPU keep for its backward before it goes chunk by chunk."""

PATIENCE = 3
"""Seconds after which a chunked explanation shows a progress bar."""


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
    convergence_delta: Tensor | None = None
    """(B,): sum(tokens) - (score - score at the baseline), for methods that sum to that difference."""


@dataclass
class Run:
    """One chunk's forward with its graph."""

    states_in: list[State]
    streams: list[Tensor]
    """Residual stream before the first block and after the last; after every block where layers are asked for."""
    states_out: list[State]
    ledger: BiasLedger
    """Its biases block by block."""

    def explained(self, per_layer: bool) -> list[Tensor]:
        """The streams whose relevance is asked for: the embeddings, or those of all layers."""
        return self.streams if per_layer else self.streams[:1]

    def inputs(self, per_layer: bool) -> list[Tensor]:
        """What gradients are taken of: explained streams, states that have a graph, biases."""
        return [
            *self.explained(per_layer),
            *(s for state in self.states_in for s in state if s.requires_grad),
            *self.ledger.entries,
        ]

    def gradients(
        self, outputs: list[Tensor], gradients: list[Tensor], per_layer: bool, reusable: bool = False
    ) -> "Gradients":
        """The modified gradients with respect to :meth:`inputs`; zero for states and biases of what is constant."""
        inputs, streams = self.inputs(per_layer), len(self.explained(per_layer))
        found = torch.autograd.grad(outputs, inputs, gradients, retain_graph=reusable, allow_unused=True)
        assert all(gradient is not None for gradient in found[:streams]), "a stream has no gradient"
        filled = [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]
        biases = len(filled) - len(self.ledger.entries)
        return Gradients(filled[:streams], filled[streams:biases], self.ledger.shares(filled[biases:]))


class Gradients(NamedTuple):
    """What the backward of a chunk gives."""

    streams: list[Tensor]
    """Modified gradients of the explained streams, (B, L, D) each."""
    states: list[Tensor]
    """Adjoints of the states before the chunk, those that have a graph."""
    shares: Tensor
    """(biases, B): what every bias absorbed."""


def by_chunks(
    problem: Problem, rules: Rules, compute: Callable[[Problem], Result], forget: Callable[[], None] = lambda: None
) -> Result:
    """``compute`` of the problem with its chunk size settled, and where memory runs out with half of it, and so on.

    A chunk size that the caller chose is not changed; the error is then theirs. ``forget`` lets go of memory that is
    held for later calls.
    """
    size = _chunk_size(problem, rules)
    while True:
        try:
            return compute(replace(problem, chunk_size=size))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or problem.chunk_size != "auto" or size == 1:
                raise
        # Outside of the handler, where the error no longer holds what the failed attempt had allocated.
        forget()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = (size + 1) // 2
        warnings.warn(
            f"Memory ran out with {size} positions at a time, so it is tried with {half}: the same relevance up to "
            f"rounding. Other work may hold the memory; chunk_size={half} begins there.",
            RuntimeWarning,
            stacklevel=2,
        )
        size = half


def predict(problem: Problem) -> Tensor:
    """Logits at ``problem.positions``, without an explanation. Shape: (B, K, V)."""

    def logits(chunked: Problem) -> Tensor:
        with torch.no_grad():
            forward = Forward(chunked, NO_RULES)
            return problem.network.logits(forward.selected, NO_RULES, BiasLedger(len(forward.selected))).cpu()

    return by_chunks(problem, NO_RULES, logits)


def run_blocks(
    problem: Problem, rules: Rules, embeddings: Tensor, mask: Tensor | None, states: list[State], releases: bool = False
) -> Run:
    """Forward through every block, with its graph, from states before the first position."""
    network, hidden = problem.network, embeddings.detach().requires_grad_(torch.is_grad_enabled())
    run = Run(states, [hidden], [], BiasLedger(len(hidden)))
    step = Step(rules, run.ledger, mask, problem.backend, embeddings=hidden)
    for layer, of_layer in enumerate(network.states_of(states)):
        hidden, states_out = network.layer(layer, hidden, of_layer, step)
        run.states_out += states_out
        run.ledger.end_block()
        if problem.per_layer or layer == len(network.layers) - 1:
            run.streams.append(hidden)
        if releases:
            release_free_memory()
    return run


def padding(problem: Problem) -> Tensor | None:
    """The mask as mixers take it, (B, L, 1); None where nothing is padding."""
    return padding_of(problem.mask, problem.embeddings)


class Forward:
    """The forward of a problem with a settled chunk size; ``reusable`` keeps it to explain several scores from it."""

    def __init__(self, problem: Problem, rules: Rules, *, reusable: bool = False) -> None:
        self.problem, self.rules, self.reusable = problem, rules, reusable
        embeddings = problem.embeddings.detach()
        self.mask = padding(problem)
        size, length = int(problem.chunk_size), embeddings.shape[1]
        self.chunks = [slice(start, min(start + size, length)) for start in range(0, length, size)]
        self.releases = embeddings.device.type == "cpu" and kept(problem, rules) * self.chunks[0].stop > LARGE
        self.borders = [self._initial_states()]
        self.positions = problem.positions.cpu()  # where asking which lie in a chunk waits for no GPU
        self.selected = embeddings.new_zeros(*self.positions.shape, embeddings.shape[-1])
        """Residual stream at the explained positions, (B, K, D)."""
        with torch.no_grad():
            for index in progress(range(len(self.chunks) - 1), "forward"):
                run = self._run(index)
                self.borders.append(run.states_out)
                self._select(index, run.streams[-1])
        self.last_run = self._run(len(self.chunks) - 1)
        """The last chunk with its graph; the backward, which starts with it, recomputes the others."""
        self._select(len(self.chunks) - 1, self.last_run.streams[-1].detach())

    def explain(self, score: Callable[[Tensor], Tensor]) -> Relevance:
        """Relevance for one score of the logits at ``problem.positions``.

        Raises:
            NonFiniteRelevanceError: a relevance is NaN or infinite; names the layer.
            ConservationError: relevance was lost under rules that conserve it; names the layer.
        """
        relevance, due = self._relevance(score)
        if not torch.isfinite(relevance.tokens).all():
            raise NonFiniteRelevanceError(_where_not_finite(replace(self.problem, score=score), self.rules))
        if self.rules.conserve and self.problem.factor is None:
            lost = due - relevance.tokens.sum(-1) - relevance.biases
            beyond = self._beyond_rounding(lost, relevance.tokens, relevance.biases)
            if beyond.any():
                row = int(beyond.nonzero()[0])
                raise ConservationError(self._where_lost(replace(self.problem, score=score), row, float(lost[row])))
        return relevance

    def _relevance(self, score: Callable[[Tensor], Tensor]) -> tuple[Relevance, Tensor]:
        """The relevance, and what it has to add up to with the biases, (B,).

        The latter is sum_v logit_v d(score)/d(logit_v): the score itself where that is linear in the logits.
        """
        network, batch_size = self.problem.network, len(self.selected)
        selected = self.selected.detach().requires_grad_()
        head_ledger = BiasLedger(batch_size)
        logits = network.logits(selected, self.rules, head_ledger)
        value = score(logits)
        grad_logits, grad_selected, *head_biases = torch.autograd.grad(
            value.sum(), [logits, selected, *head_ledger.entries]
        )
        due = (logits.detach() * grad_logits).sum((1, 2)).cpu()
        biases = head_ledger.absorbed(head_biases)
        by_layer = biases.expand(len(network.layers) + 1, -1)

        adjoints: list[State] | None = None
        by_chunk: list[Tensor] = []
        for index in progress(range(len(self.chunks) - 1, -1, -1), "backward"):
            run = self.last_run if index == len(self.chunks) - 1 else self._run(index)
            streams, adjoints, shares = self._transpose(index, run, grad_selected, adjoints)
            by_chunk.append(streams)
            biases = biases + shares.sum(0).cpu()
            if self.problem.per_layer:
                above = run.ledger.by_block(shares).flip(0).cumsum(0).flip(0)
                by_layer = by_layer + torch.cat([above, torch.zeros(1, batch_size)])
        layers = torch.cat(by_chunk[::-1], -1).masked_fill(self.problem.mask.cpu() == 0, 0.0)
        relevance = Relevance(
            tokens=layers[0].float(),
            score=value.detach().cpu().float(),
            biases=biases.float(),
            layers=layers.float() if self.problem.per_layer else None,
            logits=logits.detach().cpu(),
            layer_biases=by_layer.float() if self.problem.per_layer else None,
            chunk_size=int(self.problem.chunk_size),
        )
        return relevance, due

    def _beyond_rounding(self, gaps: Tensor, relevance: Tensor, biases: Tensor) -> Tensor:
        """Which gaps (...) rounding does not explain, by the size of what is summed: relevance (..., L) and biases."""
        return self.problem.network.beyond_rounding(gaps, relevance.abs().sum(-1) + biases.abs())

    def _where_lost(self, problem: Problem, row: int, lost: float) -> str:
        """Name the first layer, from the score down, at which relevance is lost."""
        found, due = Forward(replace(problem, per_layer=True), self.rules)._relevance(problem.score)
        assert found.layers is not None
        assert found.layer_biases is not None
        gaps = due - found.layers.sum(-1) - found.layer_biases
        beyond = self._beyond_rounding(gaps, found.layers, found.layer_biases)[:, row].nonzero().flatten().tolist()
        last = len(gaps) - 1
        place = "the head" if last in beyond else f"layer {max(beyond, default=0)} (counted from 0)"
        return (
            f"Of what is explained in row {row}, {lost:.3g} is lost between the score and the tokens, more than "
            f"rounding explains, first at {place}. A part of it passes on less than it reads: a hook or adapter that "
            "is not affine, a detached or quantised layer. Nothing was explained; take that part out, or explain the "
            "model before it was put in."
        )

    def _initial_states(self) -> list[State]:
        return self.problem.network.initial_states(self.problem.embeddings)

    def _gradients(self, run: Run, outputs: list[Tensor], gradients: list[Tensor]) -> Gradients:
        return run.gradients(outputs, gradients, self.problem.per_layer, self.reusable)

    def _inside(self, index: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Explained positions inside a chunk: as (row, k) of ``positions``, and as (row, position in the chunk)."""
        chunk = self.chunks[index]
        rows, columns = ((self.positions >= chunk.start) & (self.positions < chunk.stop)).nonzero(as_tuple=True)
        return (rows, columns), (rows, self.positions[rows, columns] - chunk.start)

    def _select(self, index: int, stream: Tensor) -> None:
        """Take the explained positions out of a chunk's last stream."""
        where, source = self._inside(index)
        device = stream.device  # of the last layer, where a model is spread over several
        self.selected[where] = stream[source[0].to(device), source[1].to(device)].to(self.selected)

    def _run(self, index: int) -> Run:
        """Forward through every block for one chunk of positions."""
        chunk = self.chunks[index]
        mask = None if self.mask is None else self.mask[:, chunk]
        # Nobody asks for the adjoints of the states before the first position.
        with_graph = torch.is_grad_enabled() and index > 0
        states = [type(state)(*(s.detach().requires_grad_(with_graph) for s in state)) for state in self.borders[index]]
        return run_blocks(self.problem, self.rules, self.problem.embeddings[:, chunk], mask, states, self.releases)

    def _transpose(
        self, index: int, run: Run, grad_selected: Tensor, adjoints: list[State] | None
    ) -> tuple[Tensor, list[State], Tensor]:
        """Backward through one chunk: relevance of its streams, adjoints of its states, shares of its biases."""
        grad_final = torch.zeros_like(run.streams[-1])
        where, target = self._inside(index)
        target = (target[0].to(grad_final.device), target[1].to(grad_final.device))
        grad_final.index_put_(target, grad_selected[where].to(grad_final), accumulate=True)

        outputs, gradients = [run.streams[-1]], [grad_final]
        if adjoints is not None:
            # States of what is constant have no graph.
            pairs = zip((s for state in run.states_out for s in state), (g for a in adjoints for g in a), strict=True)
            with_graph = [(state, adjoint) for state, adjoint in pairs if state.requires_grad]
            outputs += [state for state, _ in with_graph]
            gradients += [adjoint for _, adjoint in with_graph]
        streams = run.explained(self.problem.per_layer)
        if self.releases:
            release_free_memory()
        found = self._gradients(run, outputs, gradients)
        factors = [stream.detach() for stream in streams]
        if self.problem.factor is not None:
            factors[0] = self.problem.factor[:, self.chunks[index]].to(factors[0])
        relevance = torch.stack([(f * g).sum(-1).cpu() for f, g in zip(factors, found.streams, strict=True)])
        of_states = iter(found.states)
        adjoints = [] if index == 0 else [type(s)(*(next(of_states) for _ in s)) for s in run.states_in]
        return relevance, adjoints, found.shares


def progress(parts: range, what: str, unit: str = "chunk") -> Iterable[int]:
    """Show a bar where several parts take long; ``transformers.utils.logging.disable_progress_bar`` hides it."""
    bar: Any = logging.tqdm(parts, desc=f"explain: {what}", unit=unit, delay=PATIENCE, disable=len(parts) < 2)
    found: Iterable[int] = bar
    return found


def kept(problem: Problem, rules: Rules) -> int:
    """Bytes a forward keeps for its backward, per position of the batch."""
    return len(problem.embeddings) * problem.network.kept_bytes(rules, problem.backend)


def budget(problem: Problem) -> int:
    """Bytes that a forward may keep for its backward: the same for equal inputs, whatever else holds memory just now.

    On a GPU it is half of what the weights leave of its memory.
    """
    device = problem.embeddings.device
    if device.type != "cuda":
        return KEPT_BYTES
    total: int = torch.cuda.get_device_properties(device).total_memory
    return max(0, total - problem.network.weight_bytes(device)) // 2


def _chunk_size(problem: Problem, rules: Rules) -> int:
    """The caller's; "auto" is the whole length unless what is kept for the backward would pass the budget."""
    size = problem.chunk_size
    if size == "auto":
        return min(problem.embeddings.shape[1], max(1, budget(problem) // kept(problem, rules)))
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise OptionError(f"chunk_size={size!r} is not allowed. Give 'auto' or a number of positions from 1 up.")
    return size


def _where_not_finite(problem: Problem, rules: Rules) -> str:
    """Name the first layer at which the forward, or else the backward, leaves the finite numbers."""
    advice = (
        "Check the weights and the input for inf or nan, and load the model in float32 (dtype=torch.float32) if it was "
        "saved in float16."
    )
    forward = Forward(replace(problem, per_layer=True), rules)
    for index in range(len(forward.chunks)):
        with torch.no_grad():
            streams = forward._run(index).streams
        for layer, stream in enumerate(streams):
            if not torch.isfinite(stream).all():
                place = "the embedding" if layer == 0 else f"layer {layer - 1} (counted from 0)"
                return f"The forward is not finite from {place} on. {advice}"
    relevance = forward._relevance(problem.score)[0].layers
    assert relevance is not None
    finite = torch.isfinite(relevance).flatten(1).all(1)
    last = int((~finite).nonzero().max())
    place = "the head" if last == len(finite) - 1 else f"layer {last} (counted from 0)"
    return f"The relevance is not finite from {place} downwards, though the forward is. {advice}"
