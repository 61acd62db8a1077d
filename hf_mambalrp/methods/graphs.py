"""CUDA graphs: forward and transpose of a shape that comes again, without the cost of launching their kernels.

A short input keeps a GPU busy for a few milliseconds, and Python takes ten times as long to launch its kernels. So the
second chunk of positions of one shape is recorded, and from then on replayed: the same kernels on the same numbers. An
input that goes whole is one chunk. The head and the score, which are the caller's, run as always.
"""

import gc
import logging
import threading
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.families.base import FUSED, State
from hf_mambalrp.methods.blocks import Blocks, Chunk, Run, Transposed
from hf_mambalrp.methods.engine import Forward, by_chunks
from hf_mambalrp.methods.memory import out_of_memory
from hf_mambalrp.methods.problem import Problem, Relevance
from hf_mambalrp.rules import Rules

SHARE = 1 / 8
"""The share of a GPU's memory that the recordings of a model may take; with more all are let go and made anew.

Chunks that need more alone are long enough to hide the launches of their kernels.
"""

SHAPES = 64
"""How many shapes of one model are remembered; the one used longest ago goes first. A service meets new ones for ever.

One is replayed at a time, forward and transpose, and what outlives that is copied: so all of them use the same memory,
which the allocator gives to one stream.
"""
logger = logging.getLogger(__name__)


class Recording:
    """Forward and transpose of one shape of chunk, over fixed buffers that each replay fills.

    It stands for the :class:`Blocks` that it recorded, until it is replayed again: what outlives that is copied.
    """

    @torch.enable_grad()
    def __init__(self, problem: Problem, rules: Rules, chunk: Chunk, other: "Recording | None") -> None:
        buffers: dict[str, Any] = {
            name: value.clone() for name, value in chunk._asdict().items() if isinstance(value, Tensor)
        }
        states = chunk.states and [type(state)(*(s.requires_grad_() for s in state)) for state in _copied(chunk.states)]
        self.chunk = chunk._replace(**buffers, states=states)
        self.grad_selected = chunk.embeddings.new_zeros(*chunk.positions.shape, chunk.embeddings.shape[-1])
        self.adjoints = chunk.states and _copied(chunk.states)
        device = chunk.embeddings.device
        stream = torch.cuda.Stream(device) if other is None else other.stream
        self.stream: torch.cuda.Stream = stream

        def forward() -> Blocks:
            return Blocks(problem, rules, self.chunk)

        def transposed(blocks: Blocks) -> Transposed:
            return blocks.transposed(self.grad_selected, self.adjoints)

        self.thread = threading.current_thread()
        if other is None or other.thread is not self.thread:
            # What libraries set up when a thread first uses them on a stream is not part of a graph.
            torch.cuda.empty_cache()  # what other streams have freed is not theirs to use
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                transposed(forward())
            torch.cuda.current_stream(device).wait_stream(stream)
        torch.cuda.empty_cache()  # graphs have memory of their own
        before = torch.cuda.memory_reserved(device)
        graphs = self.forward_graph, self.backward_graph = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        options: dict[str, Any] = {"stream": stream, "capture_error_mode": "thread_local"}
        with _no_garbage_collected():
            with torch.cuda.graph(graphs[0], pool=None if other is None else other.forward_graph.pool(), **options):
                blocks = forward()
            with torch.cuda.graph(graphs[1], pool=graphs[0].pool(), **options):
                self.found = transposed(blocks)
        self.size = torch.cuda.memory_reserved(device) - before
        """Bytes that it takes beside those of the recordings before it."""
        self.selected, self.ledger = blocks.selected, blocks.ledger
        self._states_out = [type(state)(*(s.detach() for s in state)) for state in blocks.states_out]

    @property
    def states_out(self) -> list[State]:
        """Of every part after the chunk."""
        return _copied(self._states_out)

    def replayed(self, chunk: Chunk) -> "Recording":
        """The forward of another chunk of this shape."""
        _copy(_tensors(self.chunk), _tensors(chunk))
        self.forward_graph.replay()
        return self

    def transposed(self, grad_selected: Tensor, adjoints: list[State] | None) -> Transposed:
        """The backward of the chunk that was replayed last, as :meth:`Blocks.transposed`."""
        self.grad_selected.copy_(grad_selected)
        if self.adjoints is not None and adjoints is not None:
            _copy(_flat(self.adjoints), _flat(adjoints))
        elif self.adjoints is not None:
            torch._foreach_zero_(_flat(self.adjoints))
        self.backward_graph.replay()
        relevance, states, absorbed, gradient, parts = self.found
        return Transposed(
            relevance.clone(),
            _copied(states),
            absorbed.clone(),
            None if gradient is None else gradient.clone(),
            None if parts is None else replace(parts, relevance=parts.relevance.clone()),
        )


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """A graph of another model that is let go within a capture would end it.

    To look for garbage first takes as long as a third of a second, more than all else of a recording.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def propagate(problem: Problem, rules: Rules) -> Relevance:
    """Explain ``problem`` under ``rules``; raises as :meth:`Forward.explain`."""
    return by_chunks(problem, rules, partial(_propagate, rules=rules), problem.network.recordings.clear)


def _propagate(problem: Problem, rules: Rules) -> Relevance:
    recordings = problem.network.recordings
    # A recording serves one explanation at a time; another thread's launches its own kernels.
    if not _recordable(problem, rules) or not recordings.lock.acquire(blocking=False):
        return Forward(problem, rules).explain(problem.score)
    try:
        weights = tuple(p.data_ptr() for p in problem.network.parameters)
        blocks = partial(_blocks, problem, rules, weights=weights)
        return Forward(problem, rules, blocks=blocks).explain(problem.score)
    finally:
        recordings.lock.release()


def _recordable(problem: Problem, rules: Rules) -> bool:
    network, device = problem.network, problem.embeddings.device
    return (
        device.type == "cuda"
        and network.recordings.possible
        and network.resolved(problem.backend, device, rules) in FUSED
    )


def _blocks(problem: Problem, rules: Rules, chunk: Chunk, *, weights: Hashable) -> Run:
    """The blocks over a chunk: recorded when a chunk of this shape comes for the second time, replayed from then on."""
    recordings, (batch, length, _) = problem.network.recordings, chunk.embeddings.shape
    size, shapes = problem.kept(rules) * length, recordings.by_shape
    largest = int(SHARE * torch.cuda.get_device_properties(chunk.embeddings.device).total_memory)
    # What reads all that chunks before it have appended is of a shape that no other chunk has.
    alone = chunk.keys is not None or (chunk.states is not None and problem.network.appends)
    if size > largest or not recordings.possible or alone:
        return Blocks(problem, rules, chunk)
    present = chunk.mask is None, chunk.factor is None, chunk.states is None
    asked = problem.per_layer, problem.gradient, rules, problem.backend
    key = (batch, length, chunk.positions.shape[1], *present, *asked, weights)
    if key in shapes and shapes[key] is None:
        made = [one for one in shapes.values() if one is not None]
        if sum(one.size for one in made) > largest:
            shapes.clear()
            made.clear()
        try:
            shapes[key] = Recording(problem, rules, chunk, made[0] if made else None)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            recordings.possible = False
            logger.warning("This model cannot be recorded as CUDA graphs, so short inputs take longer: %s", error)
    recording: Recording | None = shapes.setdefault(key, None)
    shapes.move_to_end(key)
    while len(shapes) > SHAPES:
        shapes.popitem(last=False)
    return Blocks(problem, rules, chunk) if recording is None else recording.replayed(chunk)


def _flat(states: Iterable[State]) -> list[Tensor]:
    return [tensor for state in states for tensor in state]


def _tensors(chunk: Chunk) -> list[Tensor]:
    """All of a chunk, in the same order for chunks of one shape."""
    return [value for value in chunk if isinstance(value, Tensor)] + _flat(chunk.states or [])


def _copied(states: list[State]) -> list[State]:
    """The same states in memory of their own, without a graph."""
    found = [type(state)(*map(torch.empty_like, state)) for state in states]
    with torch.no_grad():
        _copy(_flat(found), _flat(states))
    return found


def _copy(into: list[Tensor], values: list[Tensor]) -> None:
    """Copy tensor by tensor, in as few launches as there are dtypes."""
    if into:
        torch._foreach_copy_([one.detach() for one in into], [one.detach() for one in values])
