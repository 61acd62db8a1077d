"""Datasets explained by several processes, as `examples/distributed/explain_corpus.py` does under torchrun."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from oracles import random_model
from parallel_runs import WORDS, assert_same_rows, explained, in_a_child, records_kept, table
from small import byte_level_tokenizer

from hf_mambalrp import AutoMambaLRPForCausalLM

SCRIPT = Path(__file__).parents[2] / "examples" / "distributed" / "explain_corpus.py"


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A checkpoint, a file of rows, and what one process makes of them."""
    folder = tmp_path_factory.mktemp("case")
    tokenizer = byte_level_tokenizer(" ".join(WORDS))
    random_model(num_layers=2, vocab_size=len(tokenizer), dtype=torch.float32).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    chosen = random.Random(1)
    rows = [{"id": f"r{i}", "text": " ".join(chosen.choices(WORDS, k=chosen.randint(1, 30)))} for i in range(90)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    here(folder, folder / "alone")
    return folder


def here(case, out):
    """The same in this process."""
    model = AutoMambaLRPForCausalLM.from_pretrained(case / "model")
    return explained(model, None, case / "rows.jsonl", out, window=8, batch_tokens=128)


def command(case, out, *options, data="rows.jsonl"):
    """The script on two processes."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT)),
        *(str(case / data), str(out), "--model", str(case / "model"), "--language-model"),
        *("--window", "8", "--batch-tokens", "128", *options),
    ]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def test_two_processes_give_the_rows_of_one(case, tmp_path):
    run = subprocess.run(command(case, tmp_path / "out"), env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "90 rows on 2 processes: 90 explained now, 0 before, 0 skipped" in run.stdout
    assert "90/90" in run.stderr
    assert_same_rows(table(tmp_path / "out"), table(case / "alone"))


def test_a_run_of_two_processes_that_is_killed_goes_on_with_one(case, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(case, out),
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while len(records_kept(out)) < 25 and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for child in processes_of(out):
        os.kill(child, signal.SIGKILL)
    while any(processes_of(out)):  # a kill takes a moment, in which a row could still be kept
        time.sleep(0.01)
    kept = len(records_kept(out))
    assert kept >= 25
    assert here(case, out).computed == 90 - kept
    assert_same_rows(table(out), table(case / "alone"))


def processes_of(out):
    """Workers, which torchrun starts in sessions of their own."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(out) in (folder / "cmdline").read_text().split("\0"):
                yield int(folder.name)
        except OSError:
            continue


def test_a_run_of_one_process_that_is_killed_goes_on_with_two(case, tmp_path):
    out = tmp_path / "out"
    child = in_a_child(lambda: here(case, out))
    deadline = time.monotonic() + 60
    while len(records_kept(out)) < 30 and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kept = len(records_kept(out))
    run = subprocess.run(command(case, out), env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert f"{90 - kept} explained now, {kept} before" in run.stdout
    assert_same_rows(table(out), table(case / "alone"))


def test_an_error_on_one_process_ends_both(case, tmp_path):
    lines = (case / "rows.jsonl").read_text().splitlines()
    lines[12] = json.dumps({"id": "bad", "text": ""})  # in the second window: the second process's
    (case / "bad.jsonl").write_text("\n".join(lines))
    bad = command(case, tmp_path / "out", "--on-error", "raise", data="bad.jsonl")
    run = subprocess.run(bad, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=200)
    assert run.returncode != 0
    assert "Row 12 (id 'bad')" in run.stderr
    assert "Another process stopped" in run.stderr


WORKER = """
import sys, time
from datetime import timedelta
from pathlib import Path
from accelerate import PartialState
state = PartialState(cpu=True, timeout=timedelta(seconds=4))
from hf_mambalrp import AutoMambaLRPForCausalLM, explain_dataset
from hf_mambalrp.parallel import runner, store
folder, out, what = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
store.SHARING_S = 1.0
second = state.process_index == 1
explained = runner._Run._explained
def slow(self, group):
    time.sleep(8 if second and not self.computed else 0)
    return explained(self, group)
if what == "slow":
    runner._Run._explained = slow
if what == "apart" and second:
    out = out.with_name("of its own")
    out.mkdir()
model = AutoMambaLRPForCausalLM.from_pretrained(folder / "model")
run = explain_dataset(model, folder / "rows.jsonl", out, window=8, progress=False, backend="chunked")
print(f"{run.rows} rows, {run.computed} explained")
state.destroy_process_group()
"""


def on_two_processes(case, out, what):
    (out.parent / "worker.py").write_text(WORKER)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = [str(out.parent / "worker.py"), str(case), str(out), what]
    return subprocess.run(
        [*launch, *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=200
    )


def test_a_process_that_is_done_waits_for_another_without_a_bound(case, tmp_path):
    """Collective operations give up, here after 4 s (NCCL's: 10 min); the second process needs 8 s more."""
    run = on_two_processes(case, tmp_path / "out", "slow")
    assert run.returncode == 0, run.stderr
    assert "90 rows, 90 explained" in run.stdout
    assert_same_rows(table(tmp_path / "out"), table(case / "alone"))


def test_a_folder_that_the_processes_do_not_share_is_an_error(case, tmp_path):
    run = on_two_processes(case, tmp_path / "out", "apart")
    assert run.returncode != 0
    assert "output folder that all machines share" in run.stderr
    assert not records_kept(tmp_path / "out")
