"""What a run does beside its computing: read what comes next, and write what is done.

Tokenizers, Parquet files and a GPU that is waited for leave Python to other threads.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")

WAITING = 6
"""Work that may wait for the thread that does it, so that the caller goes on while it does what takes long; what it
holds is in memory."""


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items, each made in a thread while the one before it is used; an error comes when it is its turn."""
    end = object()
    with ThreadPoolExecutor(1, "hf_mambalrp-ahead") as thread:
        following: Future[Any] = thread.submit(next, items, end)
        while (item := following.result()) is not end:
            following = thread.submit(next, items, end)
            yield item


class Behind:
    """Work that a thread does in its order, while the caller goes on; its first error is raised in the caller.

    The end of the ``with`` block waits until all is done.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "hf_mambalrp-behind")
        self._waiting: deque[Future[Any]] = deque()

    def do(self, work: Callable[[], object]) -> None:
        """Have it done, after all before it; waits while too much is waiting."""
        self._waiting.append(self._thread.submit(work))
        while len(self._waiting) > WAITING:
            self._waiting.popleft().result()

    def __enter__(self) -> "Behind":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._thread.shutdown()
        while self._waiting and kind is None:
            self._waiting.popleft().result()
