"""The command: what it prints and writes, its exit codes, and errors in one line."""

import json
import os
import subprocess
import sys

import pytest
import torch
from mamba_ssm_stand_in import MambaConfig, MambaLMHeadModel
from oracles import random_model
from small import byte_level_tokenizer

from hf_mambalrp.cli import main

COMMAND = [sys.executable, "-m", "hf_mambalrp.cli"]
TEXT = "A dull, lifeless and tedious film."


def run(*arguments, stdin=None, cwd=None, **environment):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=stdin,
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "COLUMNS": "100", **environment},
    )


def test_explain_prints_a_reading_without_colour_in_a_pipe_and_writes_every_format(tmp_path):
    result = run(
        "explain", TEXT, "--html", "out.html", "--json", "out.json", "--png", "out.png", "--contrast", "positive",
        "--target", "negative", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    for words in ("negative", "positive", "lifeless", "sum of relevance", "gap"):
        assert words in result.stdout
    numbers = json.loads((tmp_path / "out.json").read_text())
    assert numbers["target_text"] == ["negative"]
    assert numbers["contrast_text"] == ["positive"]
    assert sum(numbers["relevance"][0]) + numbers["conservation"]["biases"][0] == pytest.approx(
        numbers["score"][0], abs=1e-4
    )
    assert "lifeless" in (tmp_path / "out.html").read_text()
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert result.stderr.splitlines() == ["written: out.html", "written: out.json", "written: out.png"]


def test_layers_are_drawn_as_a_heat_map(tmp_path):
    for name, more in (("bars.png", []), ("layers.png", ["--layers"])):
        assert run("explain", TEXT, "--png", tmp_path / name, *more).returncode == 0
    bars, layers = ((tmp_path / name).read_bytes() for name in ("bars.png", "layers.png"))
    assert bars != layers
    assert layers.startswith(b"\x89PNG")
    refused = run("explain", TEXT, "--layers")
    assert refused.returncode == 1
    assert "--png" in refused.stderr
    numbers = json.loads(run("explain", TEXT, "--layers", "--json", "-").stdout)
    assert numbers["layer_relevance"][0] == numbers["relevance"]


def test_a_checkpoint_of_mamba_ssm_is_explained(tmp_path):
    tokenizer = byte_level_tokenizer("The capital of France is Paris.")
    model = MambaLMHeadModel(MambaConfig(d_model=16, n_layer=1, vocab_size=len(tokenizer)))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    result = run("explain", "The capital of France is", "--model", tmp_path, "--target", " Paris")
    assert result.returncode == 0, result.stderr
    assert "Paris" in result.stdout


def test_colour_is_used_where_asked_for_and_not_under_no_color():
    assert "\x1b[" in run("explain", TEXT, FORCE_COLOR="1").stdout
    assert "\x1b[" not in run("explain", TEXT, FORCE_COLOR="1", NO_COLOR="1").stdout


def test_text_from_standard_input_a_file_and_lines(tmp_path):
    (tmp_path / "reviews.txt").write_text("A fine film.\n\nA dull film – really.\n", encoding="utf-8")
    from_stdin = json.loads(run("explain", "-", "--json", "-", stdin="A fine film.").stdout)
    from_file = json.loads(run("explain", "--file", tmp_path / "reviews.txt", "--lines", "--json", "-").stdout)
    assert from_stdin["texts"] == ["A fine film."]
    assert from_file["texts"] == ["A fine film.", "A dull film – really."]
    assert from_file["score"][0] == pytest.approx(from_stdin["score"][0], abs=1e-5)


def test_a_language_model_from_a_folder(tmp_path):
    tokenizer = byte_level_tokenizer("The capital of France is Paris. London")
    random_model(num_layers=1, vocab_size=len(tokenizer), dtype=torch.float32).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    result = run(
        "explain", "The capital of", "--model", tmp_path, "--target", " France", "--method", "gradient_x_input"
    )
    assert result.returncode == 0, result.stderr
    assert "France" in result.stdout
    assert "gradient_x_input" in result.stdout


def test_demo_explains_real_reviews_and_ends_with_the_page(tmp_path):
    result = run("demo", "--count", "2", "--html", tmp_path / "new" / "demo.html")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("sum of relevance") == 2
    assert result.stdout.splitlines()[-1].endswith(str(tmp_path / "new" / "demo.html"))
    assert (tmp_path / "new" / "demo.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["explain"], 1, ["neither", "Example"]),
        (["explain", "a", "--file", "b"], 1, ["both"]),
        (["explain", "  "], 1, ["empty"]),
        (["explain", "--file", "missing.txt"], 1, ["missing.txt"]),
        (["explain", "a", "--model", "./missing"], 1, ["./missing", "Hub id"]),
        (["explain", "a", "--target", "great"], 1, ["'great'", "negative", "positive"]),
        (["explain", "a", "--target", "7"], 1, ["target=7", "0..1"]),
        (["explain", "a", "--method", "lime"], 1, ["'lime'", "mambalrp"]),
        (["explain", "a", "--level", "letter"], 1, ["'letter'", "word"]),
        (["explain", "a", "--html", "missing/out.html"], 1, ["missing/out.html"]),
        (["explain", "a", "--nonsense"], 2, ["--nonsense"]),
        (["nonsense"], 2, ["nonsense"]),
    ],
)
def test_errors_are_one_line(arguments, code, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hf-mambalrp", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    errors = capsys.readouterr().err
    assert stopped.value.code == code
    for word in words:
        assert word in errors
    if code == 1:
        assert len(errors.splitlines()) == 1
        assert errors.startswith("hf-mambalrp: ")


def test_an_error_in_a_process_of_its_own_prints_no_traceback(tmp_path):
    result = run("explain", "-", "--lines", "--png", "out.png", stdin="a\nb", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == "hf-mambalrp: --png draws one text, and there are 2. Leave out --png or --lines.\n"


def test_a_reader_that_goes_away_is_not_an_error():
    result = subprocess.run(
        f"{sys.executable} -m hf_mambalrp.cli explain '{TEXT}' | head -n 1", shell=True, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr


def test_help_names_the_commands():
    result = run("--help")
    assert result.returncode == 0
    assert "explain" in result.stdout
    assert "demo" in result.stdout


def test_a_backend_is_chosen_and_one_that_cannot_run_is_named():
    numbers = [
        json.loads(run("explain", TEXT, "--backend", backend, "--json", "-").stdout)["relevance"][0]
        for backend in ("auto", "reference")
    ]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-4, abs=1e-6)
    result = run("explain", TEXT, "--backend", "trition")
    assert result.returncode == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert "'trition'" in result.stderr
    assert "chunked" in result.stderr
