"""The command: what it prints and writes, its exit codes, and errors in one line."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import forks
import pytest
import torch
from mamba_ssm_stand_in import MambaConfig, MambaLMHeadModel
from random_models import random_model
from small import byte_level_tokenizer

from hf_mambalrp import GenerationExplanation
from hf_mambalrp.cli.main import main

COMMAND = ["-m", "hf_mambalrp.cli"]
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = "A dull, lifeless and tedious film."


WIDE = {"COLUMNS": "100"}


def run(*arguments, environment=(), **options):
    """The command in a fork; a start in which a model is loaded is in test_cli_text.py."""
    return forks.run([*COMMAND, *arguments], env={**os.environ, **WIDE, **dict(environment)}, **options)


def start(*arguments, **options):
    """The command as a user starts it, which takes no time where no model is loaded."""
    command, env = [sys.executable, *COMMAND, *arguments], {**os.environ, **WIDE}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, **options)


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """The command in this process and an empty folder: its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["hf-mambalrp", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    return call


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


def test_layers_are_drawn_as_a_heat_map(here, tmp_path):
    for name, more in (("bars.png", []), ("layers.png", ["--per-layer"])):
        assert here("explain", TEXT, "--png", name, *more)[0] == 0
    bars, layers = ((tmp_path / name).read_bytes() for name in ("bars.png", "layers.png"))
    assert bars != layers
    assert layers.startswith(b"\x89PNG")
    code, _, errors = here("explain", TEXT, "--per-layer")
    assert code == 1
    assert "--png" in errors
    numbers = json.loads(here("explain", TEXT, "--per-layer", "--json", "-")[1])
    assert numbers["layer_relevance"][0] == numbers["relevance"]


def test_parts_are_drawn_and_options_reach_the_method(here, tmp_path):
    for name, more in (("layers.png", "--per-layer"), ("parts.png", "--per-part")):
        assert here("explain", TEXT, "--png", name, more)[0] == 0
    layers, parts = ((tmp_path / name).read_bytes() for name in ("layers.png", "parts.png"))
    assert parts != layers
    assert parts.startswith(b"\x89PNG")
    code, _, errors = here("explain", TEXT, "--per-part")
    assert code == 1
    assert "--png" in errors
    assert "every part" in errors
    plain, damped = (
        json.loads(here("explain", TEXT, "--json", "-", "--method-options", options)[1])
        for options in ("{}", '{"gamma": 0.5}')
    )
    assert damped["method_options"] == {"gamma": 0.5}
    assert damped["relevance"] != plain["relevance"]


def test_a_checkpoint_of_mamba_ssm_is_explained(tmp_path):
    tokenizer = byte_level_tokenizer("The capital of France is Paris.")
    model = MambaLMHeadModel(MambaConfig(d_model=16, n_layer=1, vocab_size=len(tokenizer)))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    result = run("explain", "The capital of France is", "--model", tmp_path, "--target", " Paris")
    assert result.returncode == 0, result.stderr
    assert "Paris" in result.stdout


def test_colour_is_used_where_asked_for_and_not_under_no_color():
    assert "\x1b[" in run("explain", TEXT, environment={"FORCE_COLOR": "1"}).stdout
    assert "\x1b[" not in run("explain", TEXT, environment={"FORCE_COLOR": "1", "NO_COLOR": "1"}).stdout


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


def test_a_generation_is_explained(here, tmp_path):
    files = ["--html", "out.html", "--json", "out.json", "--png", "out.png"]
    code, said, errors = here(
        "explain-generation", "Anna had a dog called", "--tokens", "3", "--contrast", "runner-up", *files
    )
    assert code == 0, errors
    found = GenerationExplanation.from_dict(json.loads((tmp_path / "out.json").read_text()))
    assert found.score.shape == (1, 3)
    assert found.texts[0].startswith("Anna had a dog called")
    assert said.count("rather than") == 3  # the token behind it may stand in the next line
    assert all(token.strip() in said for token in found.contrast_tokens[0])
    assert (tmp_path / "out.html").read_text() == found.to_html()
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "prompts.txt").write_text("Anna had\n\nRex ran\n")
    code, said, errors = here("explain-generation", "--file", "prompts.txt", "--lines", "--tokens", "2", "--json", "-")
    assert code == 0, errors
    assert len(json.loads(said)["score"]) == 2


def test_demo_explains_reviews_a_next_word_and_a_generation_and_ends_with_the_pages(tmp_path):
    result = run("demo", "--count", "2", "--html", tmp_path / "new" / "demo.html")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("sum of relevance") == 3
    assert "+ speaks for the generated token" in result.stdout
    pages = [tmp_path / "new" / f"{name}.html" for name in ("demo", "demo-next-word", "demo-generation")]
    assert result.stdout.splitlines()[-3:] == list(map(str, pages))
    for page in pages:
        assert page.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["explain"], 1, ["neither was", "hf-mambalrp explain '"]),
        (["explain", "a", "--file", "b"], 1, ["both were"]),
        (["explain", "  "], 1, ["empty"]),
        (["explain", "--file", "missing.txt"], 1, ["'missing.txt' cannot be read: No such file", "Give the path"]),
        (["explain", "--file", "."], 1, ["'.' cannot be read: Is a directory"]),
        (["push", "user/name", "--evaluation", "missing.json"], 1, ["'missing.json' cannot be read"]),
        (
            ["push", "user/name", "--audit", "missing.json"],
            1,
            ["'missing.json' cannot be read: No such file or directory. Give the file of an audit", "audit.json."],
        ),
        (["explain", "a", "--model", "./missing"], 1, ["./missing", "Hub id"]),
        (["explain", "a", "--target", "great"], 1, ["'great'", "negative", "positive"]),
        (["explain", "a", "--target", "7"], 1, ["target=7", "0..1"]),
        (["explain", "a", "--method", "lime"], 1, ["'lime'", "mambalrp"]),
        (["explain", "a", "--level", "letter"], 1, ["'letter'", "word"]),
        (["explain", "a", "--html", "missing/out.html"], 1, ["missing/out.html", "no folder missing"]),
        (["explain", "a", "--json", "."], 1, ["it is a folder"]),
        (["explain", "a", "--png", "out.xyz"], 1, ["out.xyz", "'.png'", "'.svg'"]),
        (["attention", "a", "--png", "out"], 1, ["--png out", "'.png'"]),
        (["attention", "a", "--html", "missing/out.html"], 1, ["no folder missing"]),
        (["explain", "caf\udce9 film"], 1, ["'caf\\udce9 film'", "not Unicode"]),
        (["explain", "--file", "latin.txt"], 1, ["latin.txt is not UTF-8", "byte 3"]),
        (["explain", "a", "--tokenizer", "./missing"], 1, ["./missing", "no folder"]),
        (["explain", "a", "--tokenizer", "empty"], 1, ["--tokenizer 'empty'", "none can be loaded"]),
        (["explain", "a", "--nonsense"], 2, ["--nonsense"]),
        (["explain-generation"], 1, ["neither was", "hf-mambalrp explain-generation '"]),
        (["explain-generation", "a", "--method", "occlusion"], 1, ["'occlusion'", "'mambalrp', 'lrp_ln'"]),
        (["explain-generation", "a", "--tokens", "0"], 2, ["--tokens"]),
        (["explain-generation", "a", "--model", "DEMO_MODEL"], 1, ["does not generate"]),
        (["explain-generation", "a", "--contrast", " the cat"], 1, ["contrast=' the cat'", "one token"]),
        (["nonsense"], 2, ["nonsense"]),
    ],
)
def test_errors_are_one_line(here, arguments, code, words, tmp_path):
    (tmp_path / "latin.txt").write_bytes("café au lait".encode("latin-1"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "mamba"}')  # transformers 5 makes up a tokenizer
    found, _, errors = here(*arguments)
    assert found == code
    for word in words:
        assert word in errors
    if code == 1:
        assert len(errors.splitlines()) == 1
        assert errors.startswith("hf-mambalrp: ")


@pytest.mark.parametrize("command", ["explain", "attention"])
@pytest.mark.parametrize("wrong", ["no matplotlib", "no such picture", "no such folder", "not writable"])
def test_what_cannot_be_written_is_said_before_the_model_is_loaded(here, tmp_path, monkeypatch, command, wrong):
    (tmp_path / "locked").mkdir()
    written = {"no such picture": "out.xyz", "no such folder": "missing/out.png", "not writable": "locked/out.png"}
    monkeypatch.setattr("hf_mambalrp.cli.texts.load_model", lambda model: pytest.fail("the model was loaded"))
    if wrong == "no matplotlib":
        monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != "locked")  # which root may do
    code, _, errors = here(command, TEXT, "--html", "out.html", "--png", written.get(wrong, "out.png"))
    assert code == 1
    assert 'pip install "hf_mambalrp[plot]"' in errors if wrong == "no matplotlib" else written[wrong] in errors
    assert not (tmp_path / "out.html").exists()


def test_files_are_said_as_they_are_written(here, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("hf_mambalrp.cli.texts.draw", broken)
    code, _, errors = here("explain", TEXT, "--html", "out.html", "--json", "out.json", "--png", "out.png")
    assert code == 1
    assert errors.splitlines()[-3:] == [
        "written: out.html", "written: out.json", "hf-mambalrp: No space left on device",
    ]  # fmt: skip


def test_a_tokenizer_for_a_checkpoint_that_has_none(here, tmp_path):
    tokenizer = byte_level_tokenizer("The capital of France is Paris. London")
    random_model(num_layers=1, vocab_size=len(tokenizer), dtype=torch.float32).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "words")
    (tmp_path / "rows.txt").write_text("The capital of\n\nFrance is\n")
    model, words = ["--model", tmp_path / "model"], ["--tokenizer", tmp_path / "words"]
    code, _, errors = here("explain", "The capital", *model)
    assert code == 1
    assert errors.splitlines()[-1].endswith("--tokenizer NAME.")
    code, printed, errors = here("explain", "The capital", *model, *words, "--target", " France", "--json", "-")
    assert code == 0, errors
    assert json.loads(printed)["target_text"] == [" France"]
    code, printed, errors = here("attention", "The capital", *model, *words, "--json", "numbers.json")
    assert code == 0, errors
    assert (tmp_path / "numbers.json").is_file()
    code, printed, errors = here("explain-dataset", "rows.txt", "--output", "rows", *model, *words)
    assert code == 0, errors
    assert "2 rows in rows: 2 explained now, 0 skipped" in printed
    options = ["--methods", "mambalrp", "--step", "0.5", "--resamples", "20"]
    code, printed, errors = here("evaluate", "rows.txt", "--output", "report", *model, *words, *options)
    assert code == 0, errors
    assert "2 examples" in printed


def test_the_version_is_printed(here):
    assert here("--version") == (0, f"{version('hf_mambalrp')}\n", "")


def test_the_readme_names_every_extra():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.findall(
        r"^(\w+) = \[", project.split("[project.optional-dependencies]")[1].split("\n[")[0], re.MULTILINE
    )
    assert {"plot", "pandas", "data", "dev"} <= set(extras)
    table = README.split("| extra |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(extras) - {"dev"}


def test_an_error_in_a_process_of_its_own_prints_no_traceback(tmp_path):
    result = start("explain", "-", "--lines", "--png", "out.png", input="a\nb", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == "hf-mambalrp: --png draws one text, and there are 2. Leave out --png or --lines.\n"


def test_a_reader_that_goes_away_is_not_an_error():
    result = run("explain", TEXT, read=lambda pipe: pipe.readline())
    assert "negative" in result.stdout
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr


def test_help_names_the_commands():
    result = start("--help")
    assert result.returncode == 0
    assert "explain" in result.stdout
    assert "demo" in result.stdout


def test_a_backend_is_chosen_and_one_that_cannot_run_is_named(here):
    numbers = [
        json.loads(here("explain", TEXT, "--backend", backend, "--json", "-")[1])["relevance"][0]
        for backend in ("auto", "reference")
    ]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-4, abs=1e-6)
    code, _, errors = here("explain", TEXT, "--backend", "trition")
    assert code == 1
    assert len(errors.strip().splitlines()) == 1
    assert "'trition'" in errors
    assert "chunked" in errors
