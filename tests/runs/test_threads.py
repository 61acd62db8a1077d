"""Threads beside a run: what they do comes in order, and so do their errors."""

import threading

import pytest

from hf_mambalrp.runs.threads import WAITING, Behind, ahead


def test_the_next_item_is_made_while_one_is_used():
    made = [threading.Event() for _ in range(3)]

    def items():
        for number, event in enumerate(made):
            event.set()
            yield number, threading.current_thread().name

    for number, thread in ahead(items()):
        assert thread.startswith("hf_mambalrp-ahead")
        assert all(event.wait(5) for event in made[number : number + 2])


def test_an_error_comes_in_its_turn():
    def items():
        yield 1
        raise KeyError("second")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(KeyError, match="second"):
        next(found)


def test_work_is_done_in_order_and_the_caller_goes_on():
    begin, done = threading.Event(), []

    def first():
        assert begin.wait(5)
        done.append(0)

    with Behind() as behind:
        behind.do(first)
        for number in range(1, WAITING):
            behind.do(lambda number=number: done.append(number))
        assert not done
        begin.set()
    assert done == list(range(WAITING))


def fails():
    raise OSError("no space left")


def test_the_first_error_is_raised_in_the_caller_and_what_was_given_is_done():
    done = []

    def much():
        with Behind() as behind:
            behind.do(fails)
            for number in range(2 * WAITING):
                behind.do(lambda number=number: done.append(number))

    def wrong_itself():
        with Behind() as behind:
            behind.do(fails)
            behind.do(lambda: done.append("last"))
            raise KeyError

    with pytest.raises(OSError, match="no space left"):
        much()
    assert done == list(range(len(done)))
    with pytest.raises(KeyError):
        wrong_itself()
    assert done[-1] == "last"
