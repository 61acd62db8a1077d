"""The engine: one forward under the rules, one backward, relevance = embedding * modified gradient.

Long inputs go chunk by chunk. Because the model is causal and recurrent, a chunk is a function of its embeddings and
of the states handed to it, so the forward needs only the states at the borders, and the backward, last chunk first,
recomputes one chunk at a time and hands the adjoints of the states to the chunk before it. That is the same chain
rule in another order: the relevance is the unchunked one.
"""

import gc
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import isfinite
from typing import TypeVar

import torch
from torch import Tensor

from hf_mambalrp.errors import ConservationError, NonFiniteRelevanceError, OptionError
from hf_mambalrp.families.padding import keys_of
from hf_mambalrp.methods.blocks import Blocks, Chunk, Run, Transposed
from hf_mambalrp.methods.memory import out_of_memory
from hf_mambalrp.methods.problem import Parts, Problem, Relevance
from hf_mambalrp.methods.states import Adjoints, States
from hf_mambalrp.rules import NO_RULES, Rules
from hf_mambalrp.rules.biases import BiasLedger, from_block_on
from hf_mambalrp.runs.progress import patient_bar

Result = TypeVar("Result")

KEPT_BYTES = 1_250_000_000
"""What ``chunk_size="auto"`` lets a forward on the CPU keep for its backward before it goes chunk by chunk."""


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
            if not out_of_memory(error) or problem.chunk_size != "auto" or size == 1 or not problem.network.causal:
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


class Forward:
    """The forward of a problem with a settled chunk size; ``reusable`` keeps it to explain several scores from it.

    ``blocks`` computes a chunk of it; it is :class:`Blocks` unless they are recorded.
    """

    def __init__(
        self, problem: Problem, rules: Rules, *, reusable: bool = False, blocks: Callable[[Chunk], Run] | None = None
    ) -> None:
        self.problem, self.rules = problem, rules
        self.blocks: Callable[[Chunk], Run] = blocks or partial(Blocks, problem, rules, reusable=reusable)
        embeddings = problem.embeddings
        self.mask, self.positions = problem.padding(), problem.positions.to(embeddings.device)
        size, length = int(problem.chunk_size), embeddings.shape[1]
        # The last chunk keeps its graph and all others are computed twice, so what is left over is the first.
        ends = range(length % size or size, length + 1, size)
        self.chunks = [slice(max(0, end - size), end) for end in ends]
        self.keys = None if self.mask is None else keys_of(problem.mask, embeddings)
        self.states = States(problem.network, embeddings, self.chunks) if size < length else None
        """The states before every chunk; None where there is but one."""
        selected: Tensor | int = 0
        with torch.no_grad():
            for index in patient_bar(range(len(self.chunks) - 1), "explain: forward", "chunk"):
                run = self.blocks(self.chunk(index))
                assert self.states is not None
                self.states.add(run.states_out)
                selected = selected + run.selected
        self.last_run = self.blocks(self.chunk(len(self.chunks) - 1))
        """The last chunk with its graph; the backward, which starts with it, recomputes the others."""
        self.selected = selected + self.last_run.selected
        """Residual stream at the explained positions, (B, K, D)."""

    def explain(self, score: Callable[[Tensor], Tensor]) -> Relevance:
        """Relevance for one score of the logits at ``problem.positions``.

        Raises:
            NonFiniteRelevanceError: a relevance is NaN or infinite; names the layer.
            ConservationError: relevance was lost under rules that conserve it; names the layer.
        """
        relevance, due = self._relevance(score)
        total = relevance.tokens.sum(-1)
        if not isfinite(total.sum()) and not relevance.tokens.isfinite().all():
            raise NonFiniteRelevanceError(_where_not_finite(replace(self.problem, score=score), self.rules))
        if self.rules.conserve and self.problem.factor is None:
            absorbed = relevance.biases if relevance.softmax is None else relevance.biases + relevance.softmax
            lost = due - total - absorbed
            beyond = self._beyond_rounding(lost, relevance.tokens, absorbed, relevance.logits)
            if beyond.any():
                row = int(beyond.nonzero()[0])
                raise ConservationError(self._where_lost(replace(self.problem, score=score), row, float(lost[row])))
        return relevance

    def _relevance(self, score: Callable[[Tensor], Tensor]) -> tuple[Relevance, Tensor]:
        """The relevance, and what it has to add up to with the biases, (B,).

        The latter is sum_v logit_v d(score)/d(logit_v): the score itself where that is linear in the logits.
        """
        network, selected = self.problem.network, self.selected.detach().requires_grad_()
        ledger = BiasLedger(len(selected))
        logits = network.logits(selected, self.rules, ledger)
        value = score(logits)
        grad_logits, grad_selected, *biases = torch.autograd.grad(value.sum(), [logits, selected, *ledger.entries])
        due, in_head = (logits.detach() * grad_logits).sum((1, 2)), ledger.absorbed(biases).sum(0)

        adjoints = None if self.states is None else Adjoints(self.states)
        by_chunk: list[Transposed] = []
        for index in patient_bar(range(len(self.chunks) - 1, -1, -1), "explain: backward", "chunk"):
            run = self.last_run if index == len(self.chunks) - 1 else self.blocks(self.chunk(index))
            by_chunk.append(run.transposed(grad_selected, None if adjoints is None else adjoints.behind(index)))
            if adjoints is not None:
                adjoints.take(by_chunk[-1].adjoints)
        logits, value = logits.detach(), value.detach()
        layers = torch.cat([found.relevance for found in by_chunk[::-1]], -1)
        absorbed = sum((found.absorbed for found in by_chunk[1:]), by_chunk[0].absorbed)
        # On the CPU from here on: to ask for a number any earlier is to wait for the GPU.
        if self.problem.meanwhile is not None:
            self.problem.meanwhile(logits)
        layers, absorbed, in_head, value, due = _on_cpu(layers, absorbed, in_head, value, due)
        layers = self._on_tokens(layers)
        shares = self.last_run.ledger.shares(absorbed)
        of_biases, of_softmax = shares.sum(1)
        gradients = [found.gradient for found in by_chunk[::-1] if found.gradient is not None]
        parts = [found.parts for found in by_chunk[::-1] if found.parts is not None]
        per_layer = self.problem.per_layer
        relevance = Relevance(
            tokens=layers[0].float(),
            score=value.float(),
            biases=(in_head + of_biases).float(),
            layers=layers.float() if per_layer else None,
            logits=logits,
            softmax=of_softmax.float() if self.last_run.ledger.of_softmax else None,
            layer_absorbed=(in_head + from_block_on(shares.sum(0))).float() if per_layer else None,
            parts=self._parts(parts) if parts else None,
            gradient=torch.cat(gradients, 1) if gradients else None,
            chunk_size=int(self.problem.chunk_size),
        )
        return relevance, due

    def _parts(self, by_chunk: list[Parts]) -> Parts:
        """Of all chunks, 0 on padding."""
        relevance = torch.cat([parts.relevance for parts in by_chunk], -1).cpu()
        return Parts(by_chunk[0].names, self._on_tokens(relevance).float())

    def _on_tokens(self, relevance: Tensor) -> Tensor:
        """0 on padding. Shape: (..., B, L)."""
        return relevance if self.mask is None else relevance.masked_fill(self.problem.mask.cpu() == 0, 0.0)

    def _beyond_rounding(self, gaps: Tensor, relevance: Tensor, biases: Tensor, logits: Tensor) -> Tensor:
        """Which gaps (...) rounding does not explain, by the size of what is summed, relevance (..., L) and biases, and
        by the logits (B, K, V).
        """
        return self.problem.network.beyond_rounding(gaps, relevance.abs().sum(-1) + biases.abs(), logits)

    def _where_lost(self, problem: Problem, row: int, lost: float) -> str:
        """Name the first layer, from the score down, at which relevance is lost."""
        found, due = Forward(replace(problem, per_layer=True), self.rules)._relevance(problem.score)
        assert found.layers is not None
        assert found.layer_absorbed is not None
        elsewhere = found.layer_absorbed + _round_the_layers(found)
        gaps = due - found.layers.sum(-1) - elsewhere
        beyond = self._beyond_rounding(gaps, found.layers, elsewhere, found.logits)[:, row].nonzero().flatten().tolist()
        last = len(gaps) - 1
        place = "the head" if last in beyond else f"layer {max(beyond, default=0)} (counted from 0)"
        return (
            f"Of what is explained in row {row}, {lost:.3g} is lost between the score and the tokens, more than "
            f"rounding explains, first at {place}. A part of it passes on less than it reads: a hook or adapter that "
            "is not affine, a detached or quantised layer. Nothing was explained; take that part out, or explain the "
            "model before it was put in."
        )

    def chunk(self, index: int) -> Chunk:
        """The chunk of this number."""
        at, factor = self.chunks[index], self.problem.factor
        return Chunk(
            self.problem.embeddings[:, at],
            None if self.mask is None else self.mask[:, at],
            self.positions - at.start,
            None if self.states is None else self.states.before(index),
            None if factor is None else factor[:, at],
            at.start,
            None if self.keys is None else self.keys[:, : at.stop],
        )


def budget(problem: Problem) -> int:
    """Bytes that a forward may keep for its backward: the same for equal inputs, whatever else holds memory just now.

    On a GPU it is half of what the weights leave of its memory.
    """
    device = problem.embeddings.device
    if device.type != "cuda":
        return KEPT_BYTES
    total: int = torch.cuda.get_device_properties(device).total_memory
    return max(0, total - problem.network.weight_bytes[device]) // 2


def _chunk_size(problem: Problem, rules: Rules) -> int:
    """The caller's; "auto" is the whole length unless what is kept for the backward would pass the budget."""
    size, length = problem.chunk_size, problem.embeddings.shape[1]
    if size == "auto":
        return min(length, max(1, budget(problem) // problem.kept(rules))) if problem.network.causal else length
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise OptionError(f"chunk_size={size!r} is not allowed. Give 'auto' or a number of positions from 1 up.")
    if size < length and not problem.network.causal:
        raise OptionError(
            f"chunk_size={size} is not allowed: every position of this model reads those behind it too, so its "
            f"{length} positions go whole. Leave chunk_size out, and explain fewer rows at a time to need less memory."
        )
    return size


def _on_cpu(*values: Tensor) -> list[Tensor]:
    """The same on the CPU: what is on one GPU goes in one transfer, each of which waits for it."""
    if len({value.device for value in values}) > 1 or not values[0].is_cuda:
        return [value.cpu() for value in values]
    together = torch.cat([value.flatten() for value in values]).cpu().split([value.numel() for value in values])
    return [own.view(value.shape).to(value.dtype) for own, value in zip(together, values, strict=True)]


def _round_the_layers(relevance: Relevance) -> Tensor:
    """What went from a layer or from those behind it to the embeddings, past all before. Shape: (num_layers + 1, B)."""
    assert relevance.layers is not None
    found = torch.zeros(len(relevance.layers), relevance.layers.shape[1], dtype=torch.float32)
    if relevance.parts is not None:
        for (layer, _, what), of_tokens in zip(relevance.parts.names, relevance.parts.relevance, strict=True):
            if what == "embeddings":
                found[1 : layer + 1] += of_tokens.sum(-1)  # what layer 0 reads of them is in the sum at its input
    return found


def _where_not_finite(problem: Problem, rules: Rules) -> str:
    """Name the first layer at which the forward, or else the backward, leaves the finite numbers."""
    advice = (
        "Check the weights and the input for inf or nan, and load the model in float32 (dtype=torch.float32) if it was "
        "saved in float16."
    )
    forward = Forward(replace(problem, per_layer=True), rules)
    for index in range(len(forward.chunks)):
        with torch.no_grad():
            streams = Blocks(forward.problem, rules, forward.chunk(index)).streams
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
