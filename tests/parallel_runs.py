"""Runs of several processes that tests make, kill and compare."""

import os
import socket
import sys
import traceback
from datetime import timedelta

import pyarrow.parquet as pq
import pytest
import torch
from accelerate import PartialState

from hf_mambalrp import explain_dataset

WORDS = ["a", "dull", "and", "lifeless", "film", "with", "one", "lovely", "scene", "in", "the", "middle", "of", "it"]


def explained(model, tokenizer, dataset, folder, **options):
    options = {"window": 16, "batch_tokens": 64, "progress": False, "backend": "chunked", **options}
    return explain_dataset(model, dataset, folder, tokenizer=tokenizer, **options)


def table(folder):
    return [record for path in sorted(folder.glob("part-*.parquet")) for record in pq.read_table(path).to_pylist()]


def assert_same_rows(found, expected):
    assert [r["index"] for r in found] == [r["index"] for r in expected]
    for one, other in zip(found, expected, strict=True):
        numbers = one.pop("relevance"), other.pop("relevance")
        torch.testing.assert_close(*map(torch.tensor, numbers), rtol=1e-6, atol=1e-6)
        for name in ("score", "probability"):
            assert one.pop(name) == pytest.approx(other.pop(name), rel=1e-6, abs=1e-6)
        kept = [each.pop("conservation") for each in (one, other)]
        assert [each.pop("softmax") for each in kept] == [None, None]  # of models without attention
        assert kept[0] == pytest.approx(kept[1], rel=1e-5, abs=1e-6)
        assert one == other


def in_a_child(action):
    """The process id of a fork that runs ``action`` and ends without cleaning up."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    return child


def records_kept(folder):
    try:
        files = [*folder.glob("unfinished/window-*/piece-*.parquet"), *folder.glob("part-*.parquet")]
    except FileNotFoundError:  # a window was finished meanwhile
        return records_kept(folder)
    kept = set()
    for path in files:
        try:
            kept |= set(pq.read_table(path, columns=["index"])["index"].to_pylist())
        except OSError:  # merged into its shard meanwhile
            continue
    return kept


def forked(out, action, **seconds):
    """Process ids of two forks that take part in one run of ``action(process)``; what they say is in files."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    def run(process):
        os.environ.update(launch, RANK=str(process), LOCAL_RANK=str(process))
        os.dup2(os.open(said(out, process), os.O_WRONLY | os.O_CREAT), 2)
        sys.stderr = sys.__stderr__
        PartialState._reset_state()
        state = PartialState(cpu=True, **{name: timedelta(seconds=value) for name, value in seconds.items()})
        assert state.num_processes == 2
        try:
            action(process)
            state.destroy_process_group()
        except Exception:
            traceback.print_exc()
            raise

    return [in_a_child(lambda process=process: run(process)) for process in (0, 1)]


def said(out, process):
    return out.with_name(f"said-{process}")


def in_two(out, action, **seconds):
    """Exit codes of two forks that take part in one run of ``action(process)``, and what they said."""
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in forked(out, action, **seconds)]
    return codes, [said(out, process).read_text() for process in (0, 1)]
