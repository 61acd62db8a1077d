"""Examples examined by several processes of one machine, in the order of the examples."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import multiprocessing

from hf_mambalrp.evaluation.dataset import Example
from hf_mambalrp.evaluation.evaluator import Evaluator

_evaluator: Evaluator | None = None
"""Of a worker process."""


@contextmanager
def examined(evaluator: Evaluator, examples: Iterable[Example], processes: int) -> Iterator[Iterator[dict[str, Any]]]:
    """The records of the examples, in order. Each process has a copy of the model and one thread."""
    if processes == 1:
        yield map(evaluator.examine, examples)
        return
    # spawn, not fork: a copy of a process whose threads have run can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(evaluator,)) as pool:
        try:
            yield pool.map(_examine, examples)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin(evaluator: Evaluator) -> None:
    global _evaluator  # noqa: PLW0603 - what a pool's processes keep
    torch.set_num_threads(1)
    _evaluator = evaluator


def _examine(example: Example) -> dict[str, Any]:
    assert _evaluator is not None
    return _evaluator.examine(example)
