"""Spaces, and the command that pushes: a working copy of the app for a model."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import yaml
from server import blob_oid
from test_card import results
from transformers.utils import logging
from typer.testing import CliRunner

from hf_mambalrp import DEMO_MODEL, create_space, load_explanations
from hf_mambalrp.cli import app
from hf_mambalrp.errors import InputError, MissingRepositoryError, NotLoggedInError, OptionError, RepositoryAccessError
from hf_mambalrp.hub import space

SOURCE = Path(__file__).parents[2] / "spaces_app"


def files(folder):
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not re.search(r"(^|/)(\.|__pycache__)", name)}


@pytest.fixture
def command(hub):
    def run(*arguments):
        result = CliRunner().invoke(app, ["push", *map(str, arguments)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output.strip().splitlines()[-1]

    yield run
    logging.enable_progress_bar()  # which the command switches off for its process


def test_a_space_is_the_app_with_the_model_on_its_list(hub, model):
    model.push_to_hub("me/language-model")
    create_space("me/why", model_id="me/language-model", title="Why?", private=True)
    repository = hub.repositories["space", "me/why"]
    assert (repository.sdk, repository.private) == ("gradio", True)
    pushed, source = repository.files(), files(SOURCE)
    assert {*pushed} == {*source, ".gitattributes"}
    assert {name for name in source if pushed[name] != source[name]} == {"models.json", "README.md"}
    assert json.loads(pushed["models.json"]) == [
        {"id": "me/language-model", "title": "language-model", "task": "text-generation"}
    ]
    data, template = (yaml.safe_load(text.split(b"---")[1]) for text in (pushed["README.md"], source["README.md"]))
    assert data == {**template, "title": "Why?", "models": ["me/language-model"]}
    assert pushed["README.md"].split(b"---", 2)[2] == source["README.md"].split(b"---", 2)[2]
    create_space("me/why", model_id="me/language-model", title="Why?")
    assert len(repository.history()) == 2


def test_a_folder_of_a_space_without_a_hub(tmp_path):
    space.write_space(tmp_path / "app", DEMO_MODEL)
    (listed,) = json.loads((tmp_path / "app" / "models.json").read_text())
    assert (listed["id"], listed["task"]) == (DEMO_MODEL, "text-classification")


def test_the_package_carries_the_app():
    assert space.TEMPLATE.resolve() == SOURCE
    assert (space.TEMPLATE / "app.py").is_file()


def test_models_that_no_space_can_explain(hub, monkeypatch):
    with pytest.raises(MissingRepositoryError, match="me/none"):
        create_space("me/why", model_id="me/none")
    hub.add("me/bert", {"config.json": b'{"model_type": "bert", "architectures": ["BertForSequenceClassification"]}'})
    hub.add("me/body", {"config.json": b'{"model_type": "mamba", "architectures": ["MambaModel"]}'})
    for name in ("me/bert", "me/body"):
        with pytest.raises(InputError, match="Mamba classifiers and language models"):
            create_space("me/why", model_id=name)
    hub.add("me/mamba", {"config.json": b'{"model_type": "mamba", "architectures": ["MambaForCausalLM"]}'})
    with pytest.raises(RepositoryAccessError, match="other/why"):
        create_space("other/why", model_id="me/mamba")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(NotLoggedInError, match="hf auth login"):
        create_space("me/why", model_id="me/mamba")
    assert all(kind == "model" for kind, _ in hub.repositories)


def test_the_command_pushes_each_kind(hub, command, folder, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results()))
    address = command("me/lm", "--model", folder, "--text", "Paris is", "--evaluation", tmp_path / "results.json")
    repository = hub.repositories["model", "me/lm"]
    assert address == f"{hub.url}/me/lm/commit/{repository.branches['main']}"
    assert blob_oid(repository.files()["model.safetensors"]) == blob_oid((folder / "model.safetensors").read_bytes())
    card = repository.files()["README.md"].decode()
    assert "> Paris is" in card
    assert "model-index" in card

    command("me/why", "--space", "--model", "me/lm", "--private")
    assert hub.repositories["space", "me/why"].private
    assert b'"me/lm"' in hub.repositories["space", "me/why"].files()["models.json"]


def test_the_command_pushes_a_run(hub, command, model, tmp_path):
    from hf_mambalrp import explain_dataset

    explain_dataset(model, ["Paris is"], tmp_path / "out", progress=False)
    command("me/rows", "--explanations", tmp_path / "out")
    assert [one.texts for one in load_explanations("me/rows")] == [["Paris is"]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--space"], "needs --model"),
        (["--space", "--model", "me/lm", "--text", "a"], "one of these"),
        (["--space", "--model", "me/lm", "--explanations", "out"], "one of these"),
    ],
)
def test_the_command_refuses_what_does_not_go_together(hub, command, arguments, says):
    with pytest.raises(OptionError, match=says):
        command("me/why", *arguments)
    assert hub.requests == []


def test_the_example_shares_all_three(hub, monkeypatch):
    example = Path(__file__).parents[2] / "examples" / "share_on_the_hub.py"
    monkeypatch.setattr(sys, "argv", [str(example), "me/model", "--dataset", "me/rows", "--space", "me/why"])
    runpy.run_path(str(example), run_name="__main__")
    assert {*hub.repositories} == {("model", "me/model"), ("dataset", "me/rows"), ("space", "me/why")}
    assert "dull" in hub.repositories["model", "me/model"].files()["README.md"].decode()
    (listed,) = json.loads(hub.repositories["space", "me/why"].files()["models.json"])
    assert listed["task"] == "text-classification"
    assert next(load_explanations("me/rows")).texts == ["A dull and lifeless film."]
