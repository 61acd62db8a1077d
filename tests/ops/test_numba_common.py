"""Loops over rows and channels on the threads that torch computes with."""

import os
import threading

import pytest
import torch

from hf_mambalrp.ops.numba_common import on_all_threads, over_channels


@pytest.fixture(params=[1, 3])
def threads(request):
    torch.set_num_threads(request.param)  # the settings of all tests put it back
    return request.param


def cells(rows, channels):
    """Which thread did what of ``rows`` and ``channels``."""
    done = []
    over_channels(rows, channels, lambda row, start, stop: done.append((row, start, stop, threading.get_native_id())))
    return done


def test_every_row_and_channel_is_met_once(threads):
    met = torch.zeros(3, 700, dtype=torch.int64)
    for row, start, stop, _ in cells(3, 700):
        met[row, start:stop] += 1
    assert met.eq(1).all()


def test_as_many_threads_as_torch_has_take_part(threads):
    together = threading.Barrier(threads, timeout=60)
    found = set()

    def work():
        together.wait()  # passes only where all are there at once
        found.add(threading.get_native_id())

    on_all_threads(work)
    assert len(found) == threads
    assert threading.get_native_id() in found


def test_an_error_on_any_thread_is_raised(threads):
    caller = threading.get_native_id()

    def work():
        if threads == 1 or threading.get_native_id() != caller:
            raise ArithmeticError("of a thread")

    with pytest.raises(ArithmeticError, match="of a thread"):
        on_all_threads(work)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_the_threads_of_its_parent(threads):
    cells(2, 300)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"%d" % sum(stop - start for _, start, stop, _ in cells(2, 300)))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        assert answer.read() == b"600"
    os.waitpid(child, 0)
