"""Spaces, and the command that pushes: a working copy of the app for a model."""

import json
import re
import runpy
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import forks
import pytest
import torch
import yaml
from server import blob_oid
from test_card import results
from transformers.utils import logging
from typer.testing import CliRunner

from hf_mambalrp import DEMO_MODEL, DEMO_VISION_MODEL, MambaLRPForCausalLM, create_space, load_explanations
from hf_mambalrp.audit import Audit
from hf_mambalrp.cli.main import app
from hf_mambalrp.errors import (
    HubConnectionError,
    InputError,
    MissingRepositoryError,
    NotLoggedInError,
    OptionError,
    RepositoryAccessError,
)
from hf_mambalrp.models.fingerprint import fingerprint
from hf_mambalrp.space.catalog import read_allow_list
from hf_mambalrp.space.create import write_space

ROOT = Path(__file__).parents[2]
SOURCE, PACKAGE = ROOT / "spaces_app", ROOT / "hf_mambalrp"


def files(folder):
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not re.search(r"(^|/)(\.|__pycache__)", name)}


def written(content, folder):
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


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
    package = {f"hf_mambalrp/{name}": content for name, content in files(PACKAGE).items()}
    assert {*pushed} == {*source, *package, ".gitattributes"}
    assert all(pushed[name] == package[name] for name in package)
    changed = {name for name in source if pushed[name] != source[name]}
    assert changed == {"models.json", "README.md", "requirements.txt"}
    pins = [line for line in (SOURCE / "requirements.txt").read_text().splitlines() if "mambalrp" not in line]
    assert pushed["requirements.txt"].decode().splitlines()[: len(pins)] == pins
    required = {re.match(r"[\w-]+", line)[0] for line in pushed["requirements.txt"].decode().splitlines()}
    assert {"torch", "transformers", "accelerate", "safetensors", "numba", "matplotlib", "scipy"} <= required
    assert not {"hf_mambalrp", "gradio", "pytest", "pyarrow"} & required
    assert json.loads(pushed["models.json"]) == [
        {"id": "me/language-model", "title": "language-model", "task": "text-generation"}
    ]
    data, template = (yaml.safe_load(text.split(b"---")[1]) for text in (pushed["README.md"], source["README.md"]))
    assert data == {**template, "title": "Why?", "models": ["me/language-model"]}
    assert pushed["README.md"].split(b"---", 2)[2] == source["README.md"].split(b"---", 2)[2]
    create_space("me/why", model_id="me/language-model", title="Why?")
    assert len(repository.history()) == 2


def test_what_the_owner_of_a_space_wrote_stays(hub, model):
    model.push_to_hub("me/language-model")
    create_space("me/why", model_id="me/language-model")
    repository = hub.repositories["space", "me/why"]
    card = repository.files()["README.md"].replace(b"license: apache-2.0", b"license: mit\npinned: true")
    theirs = re.sub(rb"(?m)^(title|sdk_version): .*", rb"\1: 1.0", card) + b"\nBy hand.\n"
    repository.commit("main", "theirs", {**repository.files(), "README.md": theirs, "app.py": b"old", "notes": b"n"})
    create_space("me/why", model_id="me/language-model")
    source = yaml.safe_load(files(SOURCE)["README.md"].split(b"---")[1])
    version = f"sdk_version: {source['sdk_version']}".encode()
    assert repository.files()["README.md"] == theirs.replace(b"sdk_version: 1.0", version)
    assert repository.files()["app.py"] == files(SOURCE)["app.py"]
    assert repository.files()["notes"] == b"n"
    create_space("me/why", model_id="me/language-model", title="Why?")
    assert b"\ntitle: Why?\n" in repository.files()["README.md"]


def test_a_space_shows_an_audit_which_stays_until_there_is_another(hub, model, tmp_path):
    model.push_to_hub("me/language-model")
    with pytest.raises(InputError, match=r"cannot be read: No such file or directory\. Give the file of an audit"):
        create_space("me/why", model_id="me/language-model", audit=tmp_path)
    with pytest.raises(InputError, match="audit is a dict"):
        create_space("me/why", model_id="me/language-model", audit={})
    assert ("space", "me/why") not in hub.repositories
    found = Audit.load(f"{DEMO_MODEL}/audit.json")
    create_space("me/why", model_id="me/language-model", audit=found)
    repository = hub.repositories["space", "me/why"]
    (listed,) = json.loads(repository.files()["models.json"])
    found.save(tmp_path / "audit.json")
    assert repository.files()[listed["audit"]] == (tmp_path / "audit.json").read_bytes()
    (entry,) = read_allow_list(written(repository.files(), tmp_path / "there") / "models.json")
    assert Audit.load(entry.audit) == found

    for again in (None, tmp_path, tmp_path / "audit.json"):
        create_space("me/why", model_id="me/language-model", audit=again)
    assert len(repository.history()) == 2
    replace(found, texts=7).save(tmp_path / "audit.json")
    create_space("me/why", model_id="me/language-model", audit=tmp_path)
    assert json.loads(repository.files()["audit.json"])["texts"] == 7
    theirs = {
        **repository.files(),
        "mine.json": b"{}",
        "models.json": b'[{"id": "me/language-model", "audit": "mine.json"}]',
    }
    repository.commit("main", "theirs", theirs)
    create_space("me/why", model_id="me/language-model")
    assert json.loads(repository.files()["models.json"]) == [{**listed, "audit": "mine.json"}]


def test_another_app_is_not_overwritten(hub, model):
    model.push_to_hub("me/language-model")
    repository = hub.add("me/other", {"app.py": b"print()", "README.md": b"# Mine"}, repo_type="space")
    with pytest.raises(InputError, match="'me/other' holds another app"):
        create_space("me/other", model_id="me/language-model")
    assert repository.history() == ["theirs", "initial commit"]


def test_the_written_space_starts_and_explains_its_model(hub, model, environment, tmp_path):
    """The files of the Space in a folder of their own, with the package that is among them."""
    gradio_client = pytest.importorskip("gradio_client", reason='needs pip install "hf_mambalrp[space]"')
    model.push_to_hub("me/language-model", private=True)
    create_space("me/why", model_id="me/language-model", audit=f"{DEMO_MODEL}/audit.json")
    written(hub.repositories["space", "me/why"].files(), tmp_path / "why")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False", "OMP_NUM_THREADS": "1"}
    variables = {**environment, **own}
    where = subprocess.run(
        [sys.executable, "-c", "import hf_mambalrp; print(hf_mambalrp.__file__)"],
        cwd=tmp_path / "why", env=variables, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()) == tmp_path / "why" / "hf_mambalrp" / "__init__.py"
    log = tmp_path / "log.txt"
    with log.open("w") as out:
        app = subprocess.Popen([sys.executable, "app.py"], cwd=tmp_path / "why", env=variables, stdout=out, stderr=out)
    try:
        for _ in range(600):
            assert app.poll() is None, log.read_text()
            if socket.socket().connect_ex(("127.0.0.1", port)) == 0:
                break
            time.sleep(0.2)
        client = gradio_client.Client(f"http://127.0.0.1:{port}/", verbose=False)
        answer = client.predict("The capital of France is", api_name="/next_token")
        tabs = [part["props"]["label"] for part in client.config["components"] if part["type"] == "tabitem"]
    finally:
        app.terminate()
        app.wait(timeout=20)
    assert tabs[-1] == "Audit"
    expected = model.explain("The capital of France is")
    assert answer["result"]["model_id"] == "me/language-model"
    relevance = torch.tensor(answer["result"]["relevance"])
    torch.testing.assert_close(relevance, expected.relevance, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("folder", "task"), [(DEMO_MODEL, "text-classification"), (DEMO_VISION_MODEL, "image-classification")]
)
def test_a_folder_of_a_space_without_a_hub(tmp_path, folder, task):
    write_space(tmp_path / "app", folder)
    (listed,) = json.loads((tmp_path / "app" / "models.json").read_text())
    assert (listed["id"], listed["task"]) == (folder, task)


def test_a_wheel_writes_the_space_that_the_source_tree_writes(tmp_path):
    """Built from a source archive, as an index has it, unpacked, and used far from the tree."""
    for name in ("hf_mambalrp", "spaces_app"):
        shutil.copytree(ROOT / name, tmp_path / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "tree")

    def python(code, cwd):
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr

    python(f"from setuptools.build_meta import *; build_sdist({str(tmp_path)!r})", tmp_path / "tree")
    (archive,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path / "archive", filter="data")
    (unpacked,) = (tmp_path / "archive").iterdir()
    python(f"from setuptools.build_meta import *; build_wheel({str(tmp_path)!r})", unpacked)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "wheel", "zip")
    code = (
        "import sys; from pathlib import Path\n"
        "for name in [name for name in sys.modules if name.partition('.')[0] == 'hf_mambalrp']: del sys.modules[name]\n"
        f"sys.path.insert(0, {str(tmp_path / 'wheel')!r})\n"
        "import hf_mambalrp; from hf_mambalrp.space.create import write_space\n"
        f"assert Path(hf_mambalrp.__file__).is_relative_to({str(tmp_path / 'wheel')!r})\n"
        f"write_space(Path('written'), {DEMO_MODEL!r})\n"
    )
    run = forks.run(["-c", code], cwd=tmp_path)  # which forgets the package of the tree
    assert run.returncode == 0, run.stderr
    write_space(tmp_path / "expected", DEMO_MODEL)
    assert files(tmp_path / "written") == files(tmp_path / "expected")


def test_models_that_no_space_can_explain(hub, monkeypatch):
    with pytest.raises(MissingRepositoryError, match="me/none"):
        create_space("me/why", model_id="me/none")
    hub.add("me/bert", {"config.json": b'{"model_type": "bert", "architectures": ["BertForSequenceClassification"]}'})
    hub.add("me/body", {"config.json": b'{"model_type": "mamba", "architectures": ["MambaModel"]}'})
    hub.add("me/empty", {"README.md": b""})
    hub.add("me/new", {"config.json": b'{"model_type": "of-tomorrow"}'})
    hub.add("me/damaged", {"config.json": b"{"})
    for name in ("me/empty", "me/new", "me/damaged"):
        with pytest.raises(InputError, match=f"{name}' has no configuration that transformers can read"):
            create_space("me/why", model_id=name)
    for name in ("me/bert", "me/body"):
        with pytest.raises(InputError, match=r"classifiers of texts of.*'jamba'.*'zamba2'.*images of.*vim"):
            create_space("me/why", model_id=name)
    hub.add("me/mamba", {"config.json": b'{"model_type": "mamba", "architectures": ["MambaForCausalLM"]}'})
    hub.drop("HEAD", "config.json")
    with pytest.raises(HubConnectionError, match="do the same again"):
        create_space("me/why", model_id="me/mamba")
    with pytest.raises(RepositoryAccessError, match=r"other/why.*a token that may write\.$"):
        create_space("other/why", model_id="me/mamba")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(NotLoggedInError, match="hf auth login"):
        create_space("me/why", model_id="me/mamba")
    assert all(kind == "model" for kind, _ in hub.repositories)


def test_the_command_pushes_each_kind(hub, command, folder, tmp_path):
    figures = {**results(), "weights": fingerprint(MambaLRPForCausalLM.from_pretrained(folder))}
    (tmp_path / "results.json").write_text(json.dumps(figures))
    address = command("me/lm", "--model", folder, "--text", "Paris is", "--evaluation", tmp_path / "results.json")
    repository = hub.repositories["model", "me/lm"]
    assert address == f"{hub.url}/me/lm/commit/{repository.branches['main']}"
    assert blob_oid(repository.files()["model.safetensors"]) == blob_oid((folder / "model.safetensors").read_bytes())
    card = repository.files()["README.md"].decode()
    assert "> Paris is" in card
    assert "model-index" in card

    command("me/why", "--space", "--model", "me/lm", "--private", "--audit", f"{DEMO_MODEL}/audit.json")
    assert hub.repositories["space", "me/why"].private
    (listed,) = json.loads(hub.repositories["space", "me/why"].files()["models.json"])
    assert (listed["id"], listed["audit"]) == ("me/lm", "audit.json")


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
        (["--audit", "audit.json", "--explanations", "out"], "one of these"),
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
