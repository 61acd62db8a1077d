"""Runs that are killed anywhere go on where they were, and end in the same bytes as runs that are not."""

import json
import os
import random
import shutil
import signal

import pytest
import torch
from parallel_runs import in_a_child
from random_models import random_model
from small import word_tokenizer

from hf_mambalrp import evaluate_faithfulness, load_explanations, push_explanations
from hf_mambalrp.errors import InputError, TargetError
from hf_mambalrp.evaluation.evaluator import Evaluator
from hf_mambalrp.evaluation.journal import Journal
from hf_mambalrp.runs import folder as folders
from hf_mambalrp.runs.files import write_text

TEXTS = ["a b c d", "f g a", "h", "k a a i n"]
MODEL = random_model(num_layers=1, dtype=torch.float32)


def evaluate(out, model=MODEL, dataset=TEXTS, **options):
    defaults = {"methods": ["mambalrp", "random"], "tokenizer": word_tokenizer(), "resamples": 20, "progress": False}
    return evaluate_faithfulness(model, dataset, output_dir=out, **{**defaults, **options})


def killed_in(place, action):
    """Run ``action`` in a child that is killed where it comes to ``Journal.place``."""

    def run():
        setattr(Journal, place, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        action()

    assert os.WIFSIGNALED(os.waitpid(in_a_child(run), 0)[1])


@pytest.fixture(autouse=True)
def plain_reports(monkeypatch):
    """Rendering has tests of its own, and takes longer than these runs."""
    for renderer in ("to_html", "to_markdown"):
        monkeypatch.setattr(f"hf_mambalrp.evaluation.report.{renderer}", json.dumps)


@pytest.fixture
def examined(monkeypatch):
    """Texts in the order in which they are computed."""
    seen = []
    examine = Evaluator.examine
    monkeypatch.setattr(Evaluator, "examine", lambda self, example: seen.append(example.text) or examine(self, example))
    return seen


def test_a_run_that_was_cut_anywhere_ends_in_the_same_bytes(tmp_path, examined):
    evaluate(tmp_path / "whole")
    killed_in("append", lambda: evaluate(tmp_path / "begun"))
    examined.clear()
    whole = (tmp_path / "whole" / "progress.jsonl").read_bytes()
    results = (tmp_path / "whole" / "results.json").read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) == len(TEXTS)
    draw = random.Random(0)
    cuts = [0, 1, ends[0] - 1, ends[0], ends[1] - 1, ends[2], len(whole) - 1, *draw.sample(range(len(whole)), 4)]
    for cut in cuts:
        folder = tmp_path / f"cut {cut}"
        folder.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "begun" / "manifest.json", folder)
        (folder / "progress.jsonl").write_bytes(whole[:cut])
        examined.clear()
        evaluate(folder)
        finished = sum(end <= cut for end in ends)
        assert examined == TEXTS[finished:], cut
        assert (folder / "results.json").read_bytes() == results, cut
        assert (folder / "progress.jsonl").read_bytes() == whole, cut
    for name in ("report.html", "report.md", "manifest.json"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_an_exception_in_the_middle_leaves_what_was_finished(tmp_path, examined, monkeypatch):
    with pytest.raises(InputError, match="Row 2"):
        evaluate(tmp_path, dataset=["a b", "c", "<eos>"])
    assert not (tmp_path / "results.json").exists()
    assert len((tmp_path / "progress.jsonl").read_bytes().splitlines()) == 2


def test_a_finished_run_computes_nothing_again(tmp_path, examined):
    first = evaluate(tmp_path)
    examined.clear()
    assert evaluate(tmp_path) == first
    assert examined == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "manifest.json", "progress.jsonl", "report.html", "report.md", "results.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"methods": ["mambalrp"]}, ["methods was ['mambalrp', 'random'] and is now ['mambalrp']"]),
        ({"step": 2}, ["step was 'auto' and is now 2"]),
        ({"seed": 1}, ["seed was 0 and is now 1"]),
        ({"method_options": {"random": {"seed": 3}}}, ["method_options.random.seed was None and is now 3"]),
        ({"replacement": "zero"}, ["replacement was", "zero embedding"]),
        ({"dataset": [*TEXTS[:3], "k a a i m"]}, ["data was"]),
        ({"model": random_model(num_layers=1, dtype=torch.float32, seed=1)}, ["weights was"]),
        ({"batch_tokens": 2}, ["batch_tokens was None and is now 2"]),
    ],
)
def test_another_evaluation_in_the_folder_is_an_error_that_says_what_differs(tmp_path, changed, words):
    evaluate(tmp_path)
    before = (tmp_path / "progress.jsonl").read_bytes()
    with pytest.raises(InputError, match="restart") as error:
        evaluate(tmp_path, **changed)
    for word in words:
        assert word in str(error.value)
    assert (tmp_path / "progress.jsonl").read_bytes() == before
    restarted = evaluate(tmp_path, restart=True, **changed)
    assert json.loads((tmp_path / "results.json").read_text()) == restarted.results


def test_a_run_that_finished_nothing_does_not_bind_the_folder(tmp_path):
    with pytest.raises(TargetError):
        evaluate(tmp_path, target="nonsense of several")
    found = evaluate(tmp_path, target="b")
    assert {example["target"] for example in found.results["examples"]} == {"b"}
    assert json.loads((tmp_path / "manifest.json").read_text())["settings"]["target"] == "b"


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path):
    evaluate(tmp_path)
    lines = (tmp_path / "progress.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "progress.jsonl").write_bytes(b"".join([lines[0][:20] + b"\n", *lines[1:]]))
    with pytest.raises(InputError, match=r"progress\.jsonl is damaged"):
        evaluate(tmp_path)


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is a file"):
        evaluate(tmp_path / "out")


@pytest.mark.parametrize("place", ["_write_manifest", "append", "complete"])
def test_a_run_killed_at_a_step_goes_on(tmp_path, examined, place):
    killed_in(place, lambda: evaluate(tmp_path / "out"))
    found = evaluate(tmp_path / "out")
    assert examined == ([] if place == "complete" else TEXTS)
    assert found == evaluate(tmp_path / "undisturbed")


def test_a_second_run_into_a_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "ENDING_S", 0.2)
    journal = Journal(tmp_path / "out")
    journal.open({})
    with pytest.raises(InputError, match="Another run is at work"):
        evaluate(tmp_path / "out")
    journal.release()
    assert len(evaluate(tmp_path / "out").results["examples"]) == 4


def test_a_folder_of_something_else_is_left_alone_also_by_a_restart(tmp_path):
    (tmp_path / "manifest.json").write_text('{"call": "explain_dataset"}')
    for restart in (False, True):
        with pytest.raises(InputError, match="holds no run of evaluate_faithfulness"):
            evaluate(tmp_path, restart=restart)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_the_folder_of_an_evaluation_is_none_of_explanations(tmp_path):
    evaluate(tmp_path)
    with pytest.raises(InputError, match="holds no explanations"):
        load_explanations(tmp_path)
    with pytest.raises(InputError, match="is not the manifest of a run"):
        push_explanations(tmp_path, "me/why")


def test_a_run_goes_on_with_what_it_does_to_bad_rows(tmp_path):
    rows = ["a b", "", "c", "<eos>"]
    killed_in("complete", lambda: evaluate(tmp_path, dataset=rows, on_error="skip"))
    skipped = evaluate(tmp_path, dataset=rows).results["skipped"]
    assert [record["index"] for record in skipped] == [1, 3]
    assert json.loads((tmp_path / "manifest.json").read_text())["skipped"] == skipped


def test_records_come_back_as_they_were_written(tmp_path):
    values = [0.1, 1 / 3, 1e-300, -2.5e17, float(torch.tensor(0.1))]
    Journal(tmp_path).append({"values": values, "text": "né\n"})
    assert Journal(tmp_path).records() == [{"values": values, "text": "né\n"}]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "new \ud800")
    assert (tmp_path / "a.txt").read_text() == "old"
