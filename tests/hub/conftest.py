"""A Hub on loopback for a module, emptied for every test, and this process turned to it."""

import os
import sys
from pathlib import Path

import pytest
import torch
import transformers.utils.hub
from huggingface_hub import constants

sys.path.insert(0, str(Path(__file__).parent))  # server.py

from random_models import random_model
from server import running
from small import byte_level_tokenizer

from hf_mambalrp import MambaLRPForCausalLM
from hf_mambalrp.results import card

TEXT = "The capital of France is Paris. The capital of England is London."


@pytest.fixture(scope="module")
def server():
    with running() as hub:
        yield hub


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """The Hub, empty, with a client that is logged in as ``me``. No function of huggingface_hub is replaced."""
    server.reset()
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    # The client that transformers shares would ask the server of the tests before.
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", None, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    return server


@pytest.fixture(scope="session")
def pictures():
    """Pictures of cards that were drawn, by what they show."""
    return {}


@pytest.fixture
def drawn_once(pictures, monkeypatch):
    """For tests of what becomes of pictures, which take most of the time of a push to draw."""
    draw = card.picture_of_row

    def drawn(explanation, row):
        shows = explanation.to_json(), row
        if shows not in pictures:
            pictures[shows] = draw(explanation, row)
        return pictures[shows]

    monkeypatch.setattr(card, "picture_of_row", drawn)


@pytest.fixture
def environment(server, tmp_path):
    """What another process needs to find the Hub."""
    own = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_me", "HF_HUB_DISABLE_XET": "1"}
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, **own, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A small language model and its tokenizer."""
    path = tmp_path_factory.mktemp("models") / "language-model"
    tokenizer = byte_level_tokenizer(TEXT)
    random_model(num_layers=1, vocab_size=len(tokenizer), dtype=torch.float32).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def model(folder):
    return MambaLRPForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="session")
def explanation(model):
    return model.explain(["The capital of France is", "England is"], target=" Paris")
