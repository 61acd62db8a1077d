"""Bars of progress: with rate and remaining time in a terminal, now and then in a file, and silent in a pipe."""

import os
import sys
import time

import pytest
from transformers.utils import logging

from hf_mambalrp.runs import progress
from hf_mambalrp.runs.progress import patient_bar, progress_bar


@pytest.fixture(autouse=True)
def _enabled():
    before = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    yield
    if not before:
        logging.disable_progress_bar()


@pytest.fixture
def written(monkeypatch, tmp_path):
    """What a bar writes to standard error of a kind."""

    def run(kind, bar):
        reading, writing = os.pipe() if kind == "pipe" else (None, None)
        stream = os.fdopen(writing, "w") if kind == "pipe" else (tmp_path / "log").open("w")
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", stream)
            list(bar())
        stream.close()
        with os.fdopen(reading) if kind == "pipe" else (tmp_path / "log").open() as found:
            return found.read()

    return run


def slowly(items):
    for item in items:
        time.sleep(0.02)
        yield item


def test_a_bar_has_rate_and_remaining_time_and_a_pipe_gets_nothing(written):
    def bar():
        return progress_bar(slowly(range(20)), total=20, desc="rows", unit="row")

    assert written("pipe", bar) == ""
    in_file = written("file", bar).split("\r")
    assert "20/20" in in_file[-1]
    assert len(in_file) <= 3


def test_a_terminal_sees_rate_and_remaining_time(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    list(progress_bar(slowly(range(20)), total=20, desc="rows", unit="row"))
    lines = capsys.readouterr().err.split("\r")
    assert len(lines) > 3
    assert "<00:00" in lines[2]
    assert "row/s" in lines[-1]


def test_a_call_shows_none_unless_it_takes_long(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(patient_bar(range(3), "explain", "chunk")) == [0, 1, 2]
    monkeypatch.setattr(progress, "PATIENCE", 0)
    assert list(patient_bar([7], "explain", "chunk")) == [7]
    assert capsys.readouterr().err == ""
    assert list(patient_bar(range(3), "explain", "chunk")) == [0, 1, 2]
    assert "explain: 100%" in capsys.readouterr().err
