"""A Gradio Space that explains one model: a working copy of the app that comes with this package."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hf_mambalrp.auto import AutoMambaLRPForCausalLM, AutoMambaLRPForSequenceClassification, configuration
from hf_mambalrp.errors import InputError, MissingExtraError
from hf_mambalrp.hub.card import decode, with_metadata
from hf_mambalrp.hub.repository import CARD, Token, hub_api, hub_errors, open_repository

TEMPLATE = Path(__file__).parent / "space_template"
"""In the source tree a link to ``spaces_app/``; in an installed package a copy of it."""
MODELS = "models.json"
"""The app's list of the models that it may load."""
LEFT_OUT = ("__pycache__", ".*", "*.pyc")
TASKS = {
    "ForSequenceClassification": ("text-classification", AutoMambaLRPForSequenceClassification.classes),
    "ForCausalLM": ("text-generation", AutoMambaLRPForCausalLM.classes),
}
"""By the end of an architecture's name."""


def create_space(
    repo_id: str, *, model_id: str, title: str | None = None, private: bool | None = None, token: Token = None
) -> Any:
    """Create a Space on the Hub, or renew one, in which people explain predictions of a model.

    It is a copy of this package's app whose list of models holds ``model_id``. A model in a private repository needs
    a secret ``HF_TOKEN`` in the Space's settings. A call with nothing new makes no commit.

    Args:
        repo_id: "user/name" of the Space.
        model_id: a Mamba model on the Hub.
        title: of the Space; by default names the model.
        private: visibility of a Space that is created.
        token: by default the one of ``hf auth login`` or ``HF_TOKEN``.

    Returns:
        ``CommitInfo`` of huggingface_hub, a str: the address of the commit.

    Raises:
        MissingRepositoryError: no such model, or a private one that the token does not reach.
        InputError: a model of another family, or without a head that is explained.
        NotLoggedInError, RepositoryAccessError, OfflineError, HubConnectionError, HubError: of the Hub.
    """
    with hub_errors(model_id, "model"):
        hub_api(token).model_info(model_id)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "space"
        write_space(folder, model_id, title=title, token=token)
        repository = open_repository(repo_id, "space", private=private, token=token, space_sdk="gradio")
        files: dict[str, bytes | Path] = {
            path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
        }
        return repository.commit(files, f"Explain {model_id} with hf_mambalrp")


def write_space(folder: Path, model_id: str, *, title: str | None = None, token: Token = None) -> None:
    """Write the app for a model, a Hub id or a folder, into a new folder."""
    task = _task(model_id, token)
    name = model_id.rstrip("/").rpartition("/")[2]
    template = TEMPLATE if TEMPLATE.is_dir() else TEMPLATE.parents[2] / "spaces_app"
    if not (template / MODELS).is_file():
        raise MissingExtraError("This installation lacks the Space's files; install hf_mambalrp again from a wheel.")
    shutil.copytree(template, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    models = [{"id": model_id, "title": name, "task": task}]
    (folder / MODELS).write_text(json.dumps(models, indent=1) + "\n", encoding="utf-8")
    card = decode((folder / CARD).read_bytes())
    values: dict[str, Any] = {"title": title or f"Why did {name} say that?", "models": [model_id]}
    (folder / CARD).write_bytes(with_metadata(card, values).encode())


def _task(model_id: str, token: Token) -> str:
    config = configuration(model_id, token=token)
    named = config.architectures or ["ForCausalLM"]  # mamba_ssm's own checkpoints name none
    for ending, (task, classes) in TASKS.items():
        if config.model_type in classes and any(name.endswith(ending) for name in named):
            return task
    raise InputError(
        f"{model_id!r} is of type {config.model_type!r} and holds {config.architectures}; the Space explains Mamba "
        "classifiers and language models."
    )
