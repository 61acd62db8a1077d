"""Datasets explained by several processes, as `examples/distributed/explain_corpus.py` does under torchrun."""

import contextlib
import json
import os
import random
import runpy
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from parallel_runs import WORDS, assert_same_rows, explained, forked, in_a_child, in_two, records_kept, table
from random_models import random_model
from small import byte_level_tokenizer

from hf_mambalrp import AutoMambaLRPForCausalLM
from hf_mambalrp.datasets import runner
from hf_mambalrp.runs import shared_folder

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


def here(case, out, dataset=None, **options):
    """The same in this process."""
    model = AutoMambaLRPForCausalLM.from_pretrained(case / "model")
    return explained(model, None, dataset or case / "rows.jsonl", out, window=8, batch_tokens=128, **options)


def test_two_processes_give_the_rows_of_one(case, tmp_path, monkeypatch):
    """The script as torchrun begins it in each process, which has its variables set."""
    out, model = tmp_path / "out", case / "model"
    options = ["--model", str(model), "--language-model", "--window", "8", "--batch-tokens", "128"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(case / "rows.jsonl"), str(out), *options])

    def action(process):
        with contextlib.redirect_stdout(sys.stderr):
            runpy.run_path(str(SCRIPT), run_name="__main__")

    codes, (first, second) = in_two(out, action)
    assert codes == [0, 0], (first, second)
    assert "90 rows on 2 processes: 90 explained now, 0 before, 0 skipped" in first
    assert "90/90" in first
    assert "90 rows on 2 processes" not in second
    assert_same_rows(table(out), table(case / "alone"))


def killed(children, out, rows):
    """How many rows are kept of a run that is killed where so many are."""
    deadline = time.monotonic() + 120
    while len(records_kept(out)) < rows and time.monotonic() < deadline:
        time.sleep(0.005)  # a look reads every file
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    kept = len(records_kept(out))
    assert kept >= rows
    return kept


def test_a_run_of_two_processes_that_is_killed_goes_on_with_one(case, tmp_path):
    out = tmp_path / "out"
    kept = killed(forked(out, lambda process: here(case, out)), out, 25)
    assert here(case, out).computed == 90 - kept
    assert_same_rows(table(out), table(case / "alone"))


def test_a_run_of_one_process_that_is_killed_goes_on_with_two(case, tmp_path):
    out = tmp_path / "out"
    kept = killed([in_a_child(lambda: here(case, out))], out, 30)

    def action(process):
        assert here(case, out).computed == 90 - kept

    codes, said = in_two(out, action)
    assert codes == [0, 0], said
    assert_same_rows(table(out), table(case / "alone"))


def test_an_error_on_one_process_ends_both(case, tmp_path):
    rows = [json.loads(line) for line in (case / "rows.jsonl").read_text().splitlines()]
    rows[12] = {"id": "bad", "text": ""}  # in the second window: the second process's

    def action(process):
        here(case, tmp_path / "out", rows, on_error="raise")

    codes, (first, second) = in_two(tmp_path / "out", action)
    assert codes == [1, 1]
    assert "Row 12 (id 'bad')" in second
    assert "Another process stopped" in first
    assert "Row 12 (id 'bad')" in first


def test_a_process_that_is_done_waits_for_another_without_a_bound(case, tmp_path, monkeypatch):
    """Collective operations give up, here after 3 s (NCCL's: 10 min); the second process needs 6 s more."""
    explained_at_once = runner.Share._explained

    def action(process):
        def slow(self, group):
            time.sleep(6 if process == 1 and not self.computed else 0)
            return explained_at_once(self, group)

        monkeypatch.setattr(runner.Share, "_explained", slow)
        assert here(case, tmp_path / "out").computed == 90

    codes, said = in_two(tmp_path / "out", action, timeout=3)
    assert codes == [0, 0], said
    assert_same_rows(table(tmp_path / "out"), table(case / "alone"))


def test_a_folder_that_the_processes_do_not_share_is_an_error(case, tmp_path, monkeypatch):
    (tmp_path / "of its own").mkdir()
    monkeypatch.setattr(shared_folder, "SHARING_S", 1.0)

    def action(process):
        here(case, tmp_path / ("of its own" if process == 1 else "out"))

    codes, (first, second) = in_two(tmp_path / "out", action)
    assert codes == [1, 1]
    assert "output folder that all machines share" in second
    assert "Another process stopped" in first
    assert not records_kept(tmp_path / "out")
