"""``hf-mambalrp app``: what it starts, with which options, and what it says where it cannot."""

import json
import os
import signal
import sys
from concurrent.futures import Future, ThreadPoolExecutor

import forks
import pytest
from gradio_client import Client
from space_server import LANGUAGE_MODEL, answers, free_port

from hf_mambalrp import Explanation
from hf_mambalrp.cli.main import main


@pytest.fixture
def failed(capsys):
    """The command in this process: its exit code and standard error."""

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["app", *arguments])
        return stopped.value.code, capsys.readouterr().err

    return call


def test_the_command_serves_the_packaged_model_until_it_is_interrupted(environment, tmp_path):
    port, process = free_port(), Future()
    variables = {name: value for name, value in environment.items() if name != "SPACE_MODELS"}
    variables = {**os.environ, **variables}
    code = (  # the shell of tests in the background ignores interrupts, which a process inherits; a terminal's does not
        "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"from hf_mambalrp.cli.main import main; main(['app', '--port', '{port}'])"
    )
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(forks.run, ["-c", code], env=variables, cwd=tmp_path, begun=process.set_result)
        try:
            answers(f"http://127.0.0.1:{port}/", lambda: not run.done(), lambda: run.result().stderr)
            found = Client(f"http://127.0.0.1:{port}/", verbose=False).predict("A warm film.", api_name="/explain")
            assert Explanation.from_dict(found["result"]).texts == ["A warm film."]
        finally:
            os.kill(process.result(), signal.SIGINT)
        ended = run.result()
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr


def test_its_options_are_the_models_the_host_and_the_port(allow_list, monkeypatch, capsys):
    import gradio

    from hf_mambalrp.space.catalog import ALL_PACKAGED

    port, launched = free_port(), {}
    monkeypatch.setattr(gradio.Blocks, "launch", lambda page, **options: launched.update(options, page=page))
    monkeypatch.setattr("hf_mambalrp.space.answer.Answers.warm_up", lambda answers, stopped: None)
    with pytest.raises(SystemExit) as stopped:
        main(["app", "--models", str(allow_list), "--host", "localhost", "--port", str(port)])
    assert stopped.value.code == 0, capsys.readouterr().err
    assert (launched["server_name"], launched["server_port"]) == ("localhost", port)
    parts = [part["props"] for part in launched["page"].get_config_file()["components"]]
    offered = {title for props in parts if props.get("label") == "Model" for title, _ in props["choices"]}
    of_texts = [packaged for packaged in ALL_PACKAGED if packaged.task != "image-classification"]
    assert offered == {LANGUAGE_MODEL, *(packaged.title for packaged in of_texts)}
    assert "Picture" in {props.get("label") for props in parts}, "where one model can be asked there is no choice"


def test_warming_up_begins_when_the_app_can_be_reached(monkeypatch):
    """Before that gradio asks for its own page, and gives up where the answer takes three seconds."""
    import gradio

    done = []
    monkeypatch.setattr(gradio.Blocks, "launch", lambda page, **options: done.append("launched"))
    monkeypatch.setattr("hf_mambalrp.space.answer.Answers.warm_up", lambda answers, stopped: done.append("warming up"))
    with pytest.raises(SystemExit) as stopped:
        main(["app", "--port", str(free_port())])
    assert stopped.value.code == 0
    assert done == ["launched", "warming up"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--models", "missing.json"], 1, "missing.json"),
        (["--models", "models.json"], 1, "models.json: {'id': 'a/b'} is no model; give an id, a title and a task"),
        (["--host", "198.51.100.1"], 1, "host='198.51.100.1', port=None: nothing can listen there"),
        (["--port", "0"], 2, "--port"),
    ],
)
def test_errors_are_one_line(failed, tmp_path, monkeypatch, arguments, code, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.json").write_text(json.dumps([{"id": "a/b"}]))
    found, errors = failed(*arguments)
    assert found == code
    assert says in errors
    if code == 1:
        assert errors.startswith("hf-mambalrp: ")
        assert len(errors.splitlines()) == 1


def test_without_gradio_the_command_to_install_it_is_said(failed, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert failed() == (1, 'hf-mambalrp: The app needs gradio: pip install "hf_mambalrp[space]"\n')
