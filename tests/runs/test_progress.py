"""Bars of progress: with rate and remaining time in a terminal, now and then in a file, and silent in a pipe."""

import os
import re
import sys

import pytest
from transformers.utils import logging

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


def test_a_file_gets_a_line_in_ten_seconds_and_a_pipe_nothing(written, slowly):
    def bar():
        return progress_bar(slowly(range(200)), total=200, desc="rows", unit="row")

    assert written("pipe", bar) == ""
    found = re.findall(r"(\d+)/200 \[(\S+)<", written("file", bar))
    assert found == [("0", "00:00"), ("80", "00:10"), ("160", "00:20"), ("200", "00:25")]


def test_a_terminal_sees_rate_and_remaining_time(monkeypatch, capsys, slowly):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    list(progress_bar(slowly(range(160)), total=160, desc="rows", unit="row"))
    lines = capsys.readouterr().err.split("\r")
    assert len(lines) > 160
    assert any("40/160 [00:05<00:15,  8.00row/s]" in line for line in lines)
    assert "160/160 [00:20<00:00,  8.00row/s]" in lines[-1]


def test_a_call_shows_none_unless_it_takes_long(monkeypatch, capsys, slowly):
    """Three seconds are the time of 24 parts here."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(slowly(patient_bar(range(23), "explain", "chunk"))) == [*range(23)]
    assert list(slowly(patient_bar([7], "explain", "chunk"))) == [7]
    assert capsys.readouterr().err == ""
    assert list(slowly(patient_bar(range(40), "explain", "chunk"))) == [*range(40)]
    assert "explain: 100%" in capsys.readouterr().err
