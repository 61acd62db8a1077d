"""Examples examined by several processes of one machine, in the order of the examples."""

import io
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from traceback import format_exc
from typing import Any

from hf_mambalrp.errors import WorkerError

Workers = dict[Connection, SpawnProcess]
Examine = Callable[[Any], dict[str, Any]]
"""Makes the record of one example; it is copied to every process by pickle, and so are the examples."""
Reply = tuple[dict[str, Any], Exception | None, str]
"""A record; or an example's error, and where it was raised."""

PATIENCE = 10
"""Seconds in which a process that is told to end does, unless it is stuck."""


@contextmanager
def examined(
    examine: Examine, examples: Sequence[Any], processes: int, gpus: Sequence[int] = ()
) -> Iterator[Iterator[dict[str, Any]]]:
    """The records of the examples, in order. Each process has a copy of ``examine`` and one thread.

    What ``examine`` has on the first of ``gpus``, if there are any, a process has on the next one, all in turn.

    No process outlives the block or this process, and none that dies is waited for: each has a pipe of its own, which
    ends with it.

    Raises:
        WorkerError: a process ended; from the iterator, as every error of an example.
    """
    if processes == 1:
        yield map(examine, examples)
        return
    workers: Workers = {}
    try:
        # spawn, not fork: a copy of a process whose threads have run can hang.
        context = get_context("spawn")
        for number in range(min(processes, len(examples))):
            here, there = context.Pipe()
            places = {f"cuda:{gpus[0]}": f"cuda:{gpus[number % len(gpus)]}"} if gpus else {}
            worker = context.Process(target=_work, args=(there, places), daemon=True)
            workers[here] = worker
            worker.start()
            there.close()  # the worker's alone, so that the pipe ends with it
        yield _in_order(workers, examine, examples)
    finally:
        for worker in workers.values():
            if worker.pid is not None:
                worker.terminate()
                worker.join(PATIENCE)
                worker.kill()
                worker.join()


def _in_order(workers: Workers, examine: Examine, examples: Sequence[Any]) -> Iterator[dict[str, Any]]:
    # Not an argument of the process: start() would wait for ever for one that dies before it has read all of it. And
    # bytes of our own: multiprocessing moves tensors, the caller's own weights, into shared memory, which can be small.
    copy = pickle.dumps(examine)
    for connection in workers:
        with _watched(workers, connection):
            connection.send_bytes(copy)
    del copy
    waiting = enumerate(examples)
    busy: dict[Connection, int] = {}
    early: dict[int, Reply] = {}
    idle, following = list(workers), 0
    while idle:
        for connection, (number, example) in zip(idle, waiting, strict=False):
            with _watched(workers, connection):
                connection.send(example)
            busy[connection] = number
        ready = wait(list(busy)) if busy else []
        idle = [connection for connection in busy if connection in ready]
        for connection in idle:
            with _watched(workers, connection):
                early[busy.pop(connection)] = connection.recv()
        while following in early:
            record, error, trace = early.pop(following)
            if error is not None:
                raise error from WorkerError(f"in a worker process:\n{trace}")
            yield record
            following += 1


@contextmanager
def _watched(workers: Workers, connection: Connection) -> Iterator[None]:
    """Say what happened where the other end of a pipe is gone."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        worker = workers[connection]
        worker.join()
        raise WorkerError(
            f"A worker process ended with exit code {worker.exitcode} before its work was done (-9: it was killed, "
            "perhaps for want of memory; then ask for fewer processes). Finished examples are kept where `output_dir` "
            "was given, and the same call goes on from them. A script that asks for several processes needs "
            "`if __name__ == '__main__':` around what it runs."
        ) from error


class _Placed(pickle.Unpickler):
    """Puts tensors of one device on another while it reads them: a GPU need not have room for all copies."""

    def __init__(self, data: bytes, places: dict[str, str]) -> None:
        super().__init__(io.BytesIO(data))
        self.places = places

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) != ("torch.storage", "_load_from_bytes"):
            return super().find_class(module, name)
        import torch

        load = partial(torch.load, map_location=self.places, weights_only=False)
        return lambda data: load(io.BytesIO(data))


def _work(connection: Connection, places: dict[str, str]) -> None:
    """Examine what comes until nothing more can come."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the first one ends us
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that semaphores are given back
    import torch

    torch.set_num_threads(1)
    with suppress(EOFError, ConnectionError):
        examine: Examine = _Placed(connection.recv_bytes(), places).load()
        while True:
            example = connection.recv()
            reply: Reply
            try:
                reply = examine(example), None, ""
            except Exception as error:
                reply = {}, error, format_exc()
            connection.send(reply)
