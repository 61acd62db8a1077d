"""The command ``evaluate``: files, table, resuming, and errors in one line."""

import json
import sys

import pytest
import torch
from random_models import random_model
from small import word_tokenizer

from hf_mambalrp.cli.main import main

WRITTEN = ("report.html", "report.md", "results.json")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A language model in ``model``, and texts."""
    folder = tmp_path_factory.mktemp("files")
    random_model(num_layers=1, dtype=torch.float32).save_pretrained(folder / "model")
    word_tokenizer().save_pretrained(folder / "model")
    (folder / "rows.jsonl").write_text('{"text": "a b c", "id": "first"}\n{"text": "f g a h"}\n')
    (folder / "rows.txt").write_text("a b c\nf g a h\n")
    return folder


@pytest.fixture
def run(files, monkeypatch, capsys):
    """The command in this process: its exit code, standard output and standard error."""
    monkeypatch.chdir(files)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["hf-mambalrp", "evaluate", "--model", "model", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    return call


def test_evaluate_writes_the_report_prints_a_table_and_is_not_computed_twice(files, run):
    options = [
        "rows.jsonl", "--output", "report", "--methods", "mambalrp, random", "--step", "0.5", "--target", "b",
        "--replacement", "3", "--insertion", "replace", "--measure", "probability", "--resamples", "20", "--seed", "2",
        "--method-options", '{"random": {"seed": 5}}',
    ]  # fmt: skip
    code, printed, errors = run(*options)
    assert code == 0, errors
    assert "mambalrp" in printed
    assert "2/2" in errors
    assert errors.splitlines()[-3:] == [f"written: report/{name}" for name in WRITTEN]
    written = {name: (files / "report" / name).read_bytes() for name in WRITTEN}
    results = json.loads(written["results.json"])
    assert results["model"] == "model"
    assert str(files) not in written["results.json"].decode()
    assert [example["id"] for example in results["examples"]] == ["first", "1"]
    assert {example["target"] for example in results["examples"]} == {"b"}
    settings = results["settings"]
    assert settings["methods"] == ["mambalrp", "random"]
    assert settings["method_options"] == {"random": {"seed": 5}}
    assert [settings[name] for name in ("step", "replacement", "insertion", "measure", "resamples", "seed")] == [
        0.5, "'b' (id 3)", "replace", "probability", 20, 2,
    ]  # fmt: skip

    assert run(*options)[1] == printed
    assert {name: (files / "report" / name).read_bytes() for name in WRITTEN} == written

    code, _, errors = run(*options, "--samples", "1")
    assert code == 1
    assert "samples was 2 and is now 1" in errors
    assert run(*options, "--samples", "1", "--restart")[0] == 0


def test_a_text_file_has_a_text_a_line(files, run):
    code, printed, errors = run("rows.txt", "--output", "lines", "--methods", "mambalrp", "--step", "2")
    assert code == 0, errors
    assert "2 examples" in printed
    assert json.loads((files / "lines" / "results.json").read_text())["settings"]["step"] == 2


def test_skipped_rows_are_summed_up_by_reason(files, run):
    (files / "some.jsonl").write_text('{"text": "a b"}\n{"text": ""}\n{"label": 1}\n{"text": "<eos>"}\n')
    options = ["some.jsonl", "--output", "some", "--methods", "mambalrp", "--resamples", "20"]
    code, _, errors = run(*options)
    assert code == 1
    assert "Row 1 (id '1'): The text is empty" in errors
    code, printed, errors = run(*options, "--on-error", "skip")
    assert code == 0, errors
    assert "1 examples" in printed
    assert "skipped: 1 x InputError: The row has no ['text'], only ['label']. (id 2)" in printed
    assert [record["index"] for record in json.loads((files / "some" / "results.json").read_text())["skipped"]] == [
        1, 2, 3,
    ]  # fmt: skip
    assert "special tokens only" in (files / "some" / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing.jsonl"], 1, ["missing.jsonl"]),
        (["rows.txt", "--methods", "lime"], 1, ["'lime'", "mambalrp"]),
        (["rows.txt", "--step", "often"], 1, ["'often'", "auto"]),
        (["rows.txt", "--step", "1.5"], 1, ["1.5"]),
        (["rows.txt", "--method-options", "{"], 1, ["--method-options", "JSON"]),
        (["rows.txt", "--method-options", '{"random": 1}'], 1, ["object"]),
        (["rows.txt", "--replacement", "a b"], 1, ["'a b'", "2 tokens"]),
        (["rows.txt", "--batch-tokens", "0"], 1, ["batch_tokens=0"]),
        (["rows.txt", "--processes", "0"], 1, ["processes=0"]),
        (["rows.txt", "--on-error", "ignore"], 1, ["'ignore'"]),
        (["rows.txt", "--method-options", '{"random": {"sed": 1}}', "--model", "nowhere"], 1, ["'sed'"]),
        ([], 2, ["Missing argument"]),
    ],
)
def test_errors_are_one_line(files, run, arguments, code, words):
    found, _, errors = run("--output", "bad", *arguments)
    assert found == code
    for word in words:
        assert word in errors
    if code == 1:
        assert errors.splitlines()[-1].startswith("hf-mambalrp: ")
    assert not (files / "bad").exists()
