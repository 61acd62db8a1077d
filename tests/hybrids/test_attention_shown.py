"""The attention of hybrids on the command line and in the app."""

import json
import sys
from pathlib import Path

import pytest
import torch
from small import word_tokenizer
from small_hybrids import build

from hf_mambalrp import HiddenAttention, make_explainable
from hf_mambalrp.cli.main import main

TEXT = "a b c d"


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """``hf-mambalrp attention`` of a model in this process: its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(model, *arguments):
        monkeypatch.setattr("hf_mambalrp.cli.texts.load_model", lambda _: make_explainable(model))
        monkeypatch.setattr("hf_mambalrp.cli.texts.tokenizer_named", lambda _: word_tokenizer())
        monkeypatch.setattr(sys, "argv", ["hf-mambalrp", "attention", TEXT, *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("name", ["bamba", "falcon_h1", "zamba"])
def test_the_command(here, name):
    model = build(name, dtype=torch.float32)
    files = ["--html", "a.html", "--png", "a.png"]
    code, printed, errors = here(model, *files)
    assert code == 0, errors
    assert ", attention, position" in printed
    code, printed, errors = here(model, "--part", "attention", "--json", "a.json")
    assert code == 0, errors
    found = HiddenAttention.from_dict(json.loads(Path("a.json").read_text(encoding="utf-8")))
    assert {*found.parts} == {"attention"}
    assert (found.matrix >= 0).all()
    code, _, errors = here(model, "--part", "mamba")
    assert code == 1
    assert "--part='mamba'" in errors
    assert "'ssm', 'delta', 'conv', 'linear', 'attention'" in errors


def test_the_app(monkeypatch):
    pytest.importorskip("gradio", reason='needs pip install "hf_mambalrp[space]"')
    from hf_mambalrp.space.limits import RefusedError
    from hf_mambalrp.space.serve import App

    for name, parts in (("falcon_h1", 2), ("nemotron_h", 1)):
        app = App()
        model = make_explainable(build(name, dtype=torch.float32))
        monkeypatch.setattr(app.catalog, "get", lambda _, model=model: (model, word_tokenizer()))
        page, _, code = app.shown(None, kind="attention", text=TEXT, layer=3)
        assert page.count("<h3>") == page.count("<table") == parts
        assert ("Layer 3, attention" in page) == (parts == 2)
        assert "layers=3" in code
    with pytest.raises(RefusedError, match=r"one of 0, 2, 3"):
        app.answers.answer(app.asked(None, kind="attention", text=TEXT, layer=1))
