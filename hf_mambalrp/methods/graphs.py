"""CUDA graphs: forward and transpose of a shape that comes again, without the cost of launching their kernels.

A short input keeps a GPU busy for a few milliseconds, and Python takes ten times as long to launch its kernels. So the
second explanation of one shape is recorded, and from then on replayed: the same kernels on the same numbers. The head
and the score, which are the caller's, run as always.
"""

import gc
import logging
import threading
from typing import Any

import torch
from torch import Tensor

from hf_mambalrp.families.base import State
from hf_mambalrp.families.network import FUSED
from hf_mambalrp.methods.engine import Forward, Gradients, Problem, Relevance, Run, by_chunks, kept, padding, run_blocks
from hf_mambalrp.methods.memory import out_of_memory
from hf_mambalrp.rules import Rules

SHARE = 1 / 8
"""The share of a GPU's memory that the recordings of a model may hold on to; the one used longest ago goes first.

Inputs that need more are long enough to hide the launches of their kernels.
"""

SHAPES = 64
"""How many shapes of one model are remembered, at most; a service meets new lengths for ever."""
logger = logging.getLogger(__name__)


class Recording:
    """Forward and transpose of one shape, over fixed buffers that each explanation fills."""

    def __init__(self, problem: Problem, rules: Rules, size: int) -> None:
        self.lock, self.size = threading.Lock(), size
        self.embeddings, self.mask = problem.embeddings.detach().clone(), padding(problem)
        self.grad = torch.zeros_like(self.embeddings)
        states = problem.network.initial_states(self.embeddings)
        device = self.embeddings.device
        stream = torch.cuda.Stream(device)

        def forward() -> Run:
            return run_blocks(problem, rules, self.embeddings, self.mask, states)

        def transposed(run: Run) -> Gradients:
            return run.gradients([run.streams[-1]], [self.grad], problem.per_layer)

        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            transposed(forward())  # what libraries set up when first used on a stream is not part of a graph
        torch.cuda.current_stream(device).wait_stream(stream)
        gc.collect()  # a graph of another model that is let go within a capture would end it
        torch.cuda.empty_cache()  # a graph has memory of its own
        graphs = self.forward_graph, self.backward_graph = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        options: dict[str, Any] = {"stream": stream, "capture_error_mode": "thread_local"}
        with torch.cuda.graph(graphs[0], **options):
            self.run = forward()
        with torch.cuda.graph(graphs[1], pool=graphs[0].pool(), **options):
            self.found = transposed(self.run)


class _Replayed(Forward):
    """A forward whose blocks are a recording."""

    def __init__(self, problem: Problem, rules: Rules, recording: Recording) -> None:
        self.recording = recording
        super().__init__(problem, rules)

    def _run(self, index: int) -> Run:
        recording = self.recording
        recording.embeddings.copy_(self.problem.embeddings)
        if recording.mask is not None and self.mask is not None:
            recording.mask.copy_(self.mask)
        recording.forward_graph.replay()
        return recording.run

    def _initial_states(self) -> list[State]:
        return []  # the recording has its own

    def _gradients(self, run: Run, outputs: list[Tensor], gradients: list[Tensor]) -> Gradients:
        self.recording.grad.copy_(gradients[0])
        self.recording.backward_graph.replay()
        return self.recording.found


def propagate(problem: Problem, rules: Rules) -> Relevance:
    """Explain ``problem`` under ``rules``; raises as :meth:`Forward.explain`."""
    return by_chunks(problem, rules, lambda chunked: _propagate(chunked, rules), problem.network.recordings.clear)


def _propagate(problem: Problem, rules: Rules) -> Relevance:
    recording = _recording(problem, rules)
    # Its buffers serve one explanation at a time; another thread's of the same shape launches its own kernels.
    if recording is None or not recording.lock.acquire(blocking=False):
        return Forward(problem, rules).explain(problem.score)
    try:
        return _Replayed(problem, rules, recording).explain(problem.score)
    finally:
        recording.lock.release()


def _recording(problem: Problem, rules: Rules) -> Recording | None:
    """The recording of this shape, made when it comes for the second time; None where it is not to be recorded."""
    network, embeddings = problem.network, problem.embeddings
    device, (batch, length) = embeddings.device, embeddings.shape[:2]
    if device.type != "cuda" or network.resolved(problem.backend, device, rules) not in FUSED:
        return None
    size, largest = kept(problem, rules) * length, int(SHARE * torch.cuda.get_device_properties(device).total_memory)
    recordings = network.recordings
    on_device = all(p.device == device for p in network.parameters)  # a graph is of one GPU
    if int(problem.chunk_size) < length or size > largest or not on_device or not recordings.possible:
        return None
    weights = tuple(p.data_ptr() for p in network.parameters)
    key = (batch, length, padding(problem) is None, problem.per_layer, rules, problem.backend, weights)
    with recordings.lock:
        shapes = recordings.by_shape
        if key not in shapes:
            shapes[key] = None
        elif shapes[key] is None and recordings.possible:
            try:
                shapes[key] = Recording(problem, rules, size)
            except RuntimeError as error:
                if out_of_memory(error):
                    raise
                recordings.possible = False
                logger.warning("This model cannot be recorded as CUDA graphs, so short inputs take longer: %s", error)
        shapes.move_to_end(key)
        held = 0
        for recent, recording in reversed(list(shapes.items())):
            held += 0 if recording is None else recording.size
            if held > largest:
                del shapes[recent]
        while len(shapes) > SHAPES:
            shapes.popitem(last=False)
        found: Recording | None = shapes.get(key)
        return found
