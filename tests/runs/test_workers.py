"""Several processes: the same records as one, and an end whatever ends first, a worker, the caller or the user."""

import os
import pickle
import runpy
import signal
import subprocess
import sys
import time
import traceback
from multiprocessing import active_children, get_context
from pathlib import Path
from threading import Thread

import pytest
import torch
from parallel_runs import in_a_child
from random_models import random_model
from small import WORDS, word_tokenizer

from hf_mambalrp import evaluate_faithfulness
from hf_mambalrp.errors import InputError, WorkerError
from hf_mambalrp.evaluation.evaluator import Evaluator
from hf_mambalrp.evaluation.journal import Journal
from hf_mambalrp.evaluation.settings import Settings
from hf_mambalrp.runs.rows import Columns
from hf_mambalrp.runs.workers import _Placed, examined

TEXTS = ["a b c d", "f g a", "h", "k a a i n", "b b"]
LONG = [" ".join(WORDS[2 + place % 16] for place in range(20_000))] * 8
"""More than a pipe holds."""
MODEL = random_model(num_layers=1, dtype=torch.float32)
LIMIT = 120
"""Seconds after which something waits for ever."""


def evaluate(texts, **options):
    defaults = {"methods": ["mambalrp", "latim"], "tokenizer": word_tokenizer(), "resamples": 20, "progress": False}
    return evaluate_faithfulness(MODEL, texts, **{**defaults, **options})


def evaluator(texts):
    settings = Settings(
        methods=["mambalrp"],
        method_options={},
        measure="logit",
        replacement="auto",
        insertion="remove",
        step="auto",
        target=None,
        samples=None,
        confidence=0.95,
        resamples=20,
        seed=0,
    )
    return Evaluator(MODEL, texts, settings, Columns(), word_tokenizer(), None)


def ended(call):
    """What the call raised, which has to come within the limit."""
    raised = []

    def run():
        try:
            call()
        except Exception as error:
            raised.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive(), "it waits for ever"
    return raised[0] if raised else None


def asleep(begun):
    if begun:
        begun.touch()
        time.sleep(LIMIT)
    return {"begun": begun}


@pytest.fixture
def forked(monkeypatch):
    """Workers that are forks of this process, which has imported what spawned ones import each time."""
    monkeypatch.setattr("hf_mambalrp.runs.workers.get_context", lambda method: get_context("fork"))


@pytest.mark.usefixtures("forked")
def test_several_processes_write_the_same_bytes_as_one_and_leave_the_model_alone(tmp_path):
    for name, processes in (("one", 1), ("two", 2)):
        evaluate(TEXTS, output_dir=tmp_path / name, processes=processes)
    for name in ("progress.jsonl", "results.json", "report.html", "report.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert not any(parameter.is_shared() for parameter in MODEL.parameters())
    assert active_children() == []


def test_what_is_on_one_device_is_read_onto_another():
    """GPUs are not needed to show it: a tensor that is read onto "meta" has no numbers."""
    written = pickle.dumps({"model": MODEL, "step": 3})
    moved, same = (_Placed(written, places).load() for places in ({"cpu": "meta"}, {"cuda:0": "cuda:1"}))
    assert {parameter.device.type for parameter in moved["model"].parameters()} == {"meta"}
    for found, wanted in zip(same["model"].parameters(), MODEL.parameters(), strict=True):
        assert torch.equal(found, wanted)
    assert moved["step"] == same["step"] == 3


@pytest.mark.parametrize("count", [0, 1, 2])
def test_no_more_processes_are_begun_than_there_are_examples(count):
    some = evaluator(TEXTS)
    with examined(some.examine, some.examples[:count], 4):
        assert len(active_children()) == count
    assert active_children() == []


@pytest.mark.usefixtures("forked")
def test_workers_that_are_told_to_end_do_so_as_programs_do(tmp_path):
    """Idle or at work: what processes share is given back by Python at its end, not by the signal."""
    begun = tmp_path / "begun"
    with examined(asleep, [None, begun], 2) as records:
        assert next(records) == {"begun": None}
        workers = active_children()
        while not begun.exists():
            time.sleep(0.01)
    assert [worker.exitcode for worker in workers] == [0, 0]


@pytest.mark.usefixtures("forked")
def test_an_error_of_a_worker_is_the_caller_s_and_what_was_finished_is_kept(tmp_path):
    with pytest.raises(InputError, match="Row 2") as raised:
        evaluate(["a b", "c", "<eos>", "d"], output_dir=tmp_path, processes=2)
    assert "examine" in str(raised.value.__cause__), "where it was raised"
    assert len((tmp_path / "progress.jsonl").read_bytes().splitlines()) == 2
    assert active_children() == []


@pytest.mark.parametrize("texts", [TEXTS, LONG], ids=["short", "long"])
def test_a_worker_that_is_killed_before_it_begins_is_not_waited_for(texts):
    some = evaluator(texts)

    def call():
        with examined(some.examine, some.examples, 2) as records:
            list(records)

    def kill():
        while not active_children():
            time.sleep(0.01)
        active_children()[0].kill()

    Thread(target=kill, daemon=True).start()
    error = ended(call)
    assert isinstance(error, WorkerError)
    assert "exit code -9" in str(error)
    assert active_children() == []


@pytest.mark.usefixtures("forked")
def test_a_worker_that_is_killed_at_work_is_not_waited_for_and_the_run_goes_on_later(tmp_path, monkeypatch):
    evaluate(TEXTS, output_dir=tmp_path / "whole")

    class Deadly(list):
        def __iter__(self):
            for number, example in enumerate(super().__iter__()):
                if number == 3:  # two are at work
                    for child in active_children():
                        child.kill()
                yield example

    module = "hf_mambalrp.evaluation.examiner.examined"
    monkeypatch.setattr(module, lambda examine, examples, *rest: examined(examine, Deadly(examples), *rest))
    assert isinstance(ended(lambda: evaluate(TEXTS, output_dir=tmp_path / "cut", processes=2)), WorkerError)
    monkeypatch.undo()
    assert len(Journal(tmp_path / "cut").records()) <= 3
    evaluate(TEXTS, output_dir=tmp_path / "cut")
    assert (tmp_path / "cut" / "results.json").read_bytes() == (tmp_path / "whole" / "results.json").read_bytes()


EVALUATION = """
import sys
sys.path.insert(0, {tests!r})

def main():
    import torch
    from random_models import random_model
    from small import word_tokenizer
    from hf_mambalrp import evaluate_faithfulness

    texts = ["a b c d e f g h i j k l m n o p"] * {count}
    evaluate_faithfulness(random_model(dtype=torch.float32), texts, methods=["mambalrp", "latim"],
                          tokenizer=word_tokenizer(), processes=2, progress=False, output_dir="out")
"""
EXAMINATION = """
import time
from pathlib import Path

def examine(example):
    time.sleep(0.1)
    return example

def main():
    from hf_mambalrp.runs.workers import examined

    Path("out").mkdir(exist_ok=True)
    with examined(examine, range({count}), 2) as records, open("out/progress.jsonl", "w", buffering=1) as journal:
        for record in records:
            print(record, file=journal)
"""
"""Workers alone, which import torch and no models."""
GUARD = 'if __name__ == "__main__":\n    main()\n'


def script(folder, code, ending, count):
    """As many workers as there are examples, 2 at most."""
    (folder / "script.py").write_text(code.format(tests=str(Path(__file__).parent.parent), count=count) + ending)
    return folder / "script.py"


def started(folder, code, ending, count):
    """The script in a fork of this process, which has imported torch; what it says goes to ``errors``."""
    path = script(folder, code, ending, count)

    def run():
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as of a process that a terminal starts
        os.chdir(folder)
        os.dup2(os.open("errors", os.O_WRONLY | os.O_CREAT), 2)
        sys.stderr = sys.__stderr__
        try:
            runpy.run_path(str(path), run_name="__main__")
        except BaseException:
            traceback.print_exc()
            raise

    return in_a_child(run)


def members(session):
    """Processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its = stat.read_text().rsplit(")", 1)[1].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def until(condition):
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def at_work(folder, session):
    """Wait until workers of the script have finished some examples."""
    journal = folder / "out" / "progress.jsonl"
    until(lambda: journal.is_file() and journal.read_bytes().count(b"\n") > 3)
    assert len(members(session)) >= 3


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are counted in /proc")
def test_no_process_outlives_a_caller_that_is_killed(tmp_path):
    caller = started(tmp_path, EXAMINATION, GUARD, 500)
    try:
        at_work(tmp_path, caller)
        os.kill(caller, signal.SIGKILL)
        os.waitpid(caller, 0)
        until(lambda: not members(caller))
    finally:
        for member in members(caller):
            os.kill(member, signal.SIGKILL)


@pytest.mark.usefixtures("forked")
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are counted in /proc")
def test_an_interrupt_ends_all_processes_and_only_the_caller_says_so(tmp_path):
    caller = started(tmp_path, EVALUATION, GUARD, 500)
    try:
        at_work(tmp_path, caller)
        os.killpg(caller, signal.SIGINT)  # a terminal's Ctrl-C reaches them all
        os.waitpid(caller, 0)
        until(lambda: not members(caller))
        only_the_caller_says_so((tmp_path / "errors").read_text())
    finally:
        for member in members(caller):
            os.kill(member, signal.SIGKILL)


def only_the_caller_says_so(errors):
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1, "the workers say nothing"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are counted in /proc")
def test_nothing_is_left_of_processes_of_their_own_that_are_interrupted(tmp_path):
    """As a terminal starts them: what is left of semaphores is said when such a process ends."""
    command = [sys.executable, script(tmp_path, EXAMINATION, GUARD, 500)]
    caller = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests run in the background their shell ignores it, which a process inherits; a terminal's does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - takes no lock
    )
    try:
        at_work(tmp_path, caller.pid)
        os.killpg(caller.pid, signal.SIGINT)
        errors = caller.communicate(timeout=LIMIT)[1]
        until(lambda: not members(caller.pid))
        only_the_caller_says_so(errors)
        assert "leaked" not in errors
    finally:
        for member in members(caller.pid):
            os.kill(member, signal.SIGKILL)


def test_a_script_without_a_guard_is_told_what_it_lacks(tmp_path):
    status = os.waitpid(started(tmp_path, EXAMINATION, "main()\n", 1), 0)[1]
    assert os.waitstatus_to_exitcode(status) == 1
    last = (tmp_path / "errors").read_text().splitlines()[-1]
    assert "WorkerError" in last
    assert "if __name__ == '__main__':" in last
