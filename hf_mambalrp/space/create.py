"""A Gradio Space that explains one model: it runs the app of this package, which it carries."""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from hf_mambalrp.errors import InputError, MambaLRPError, MissingExtraError
from hf_mambalrp.hub.card import card_text, metadata, with_metadata
from hf_mambalrp.hub.repository import CARD, Repository, Token, hub_api, hub_errors, open_repository
from hf_mambalrp.models.auto import (
    AutoMambaLRPForCausalLM,
    AutoMambaLRPForImageClassification,
    AutoMambaLRPForSequenceClassification,
    configuration,
)
from hf_mambalrp.results.audit import Audit

PACKAGE = Path(__file__).parents[1]
IN_WHEEL, IN_SOURCES = PACKAGE / "space" / "template", PACKAGE.parent / "spaces_app"
"""Where the Space's own files are: setup.py puts the folder of the source tree into a wheel."""
REQUIREMENTS = "requirements.txt"
EXTRA = re.compile(r"""extra == ["'](\w+)["']""")
EXTRAS = ("plot", "compare")
"""Of the package, which the app uses."""
MODELS = "models.json"
"""The app's list of the models that it may load."""
AUDIT = "audit.json"
"""Beside the list, the audit of its model; so does ``hf-mambalrp audit`` call the file in its folder."""
APP = "app.py"
RUNS = ("sdk", "sdk_version", "python_version", "app_file", "models")
"""Front matter that goes with the app; the rest is how the Space looks, which its owner may change."""
LEFT_OUT = ("__pycache__", ".*", "*.pyc")
TASKS = {
    "ForSequenceClassification": ("text-classification", AutoMambaLRPForSequenceClassification.classes),
    "ForImageClassification": ("image-classification", AutoMambaLRPForImageClassification.classes),
    "ForCausalLM": ("text-generation", AutoMambaLRPForCausalLM.classes),
}
"""By the end of an architecture's name."""


def create_space(
    repo_id: str,
    *,
    model_id: str,
    title: str | None = None,
    audit: Audit | str | Path | None = None,
    private: bool | None = None,
    token: Token = None,
) -> Any:
    """Create a Space on the Hub, or renew one, in which people explain predictions of a model.

    It holds a few files that start this package's app, a list of models with ``model_id``, and the package itself, so
    that it runs what is installed here whether or not an index has it. A model in a private repository needs a secret
    ``HF_TOKEN`` in the Space's settings. A call with nothing new makes no commit. Where the app is there, its
    files are renewed; its ``README.md`` stays but for the front matter that the app and ``title`` need.

    Args:
        repo_id: "user/name" of the Space.
        model_id: a model of a known family on the Hub: Mamba, a hybrid with it, or Vision Mamba.
        title: of the Space; by default names the model, and one that is there stays.
        audit: of the model, for a tab: what :func:`hf_mambalrp.audit.audit` returned, the file that it was saved in, or
            the folder of ``hf-mambalrp audit``. By default one that is there stays. The model is not loaded, so its
            weights are not compared with the audit's; the tab names the model that the audit was made of.
        private: visibility of a Space that is created.
        token: by default the one of ``hf auth login`` or ``HF_TOKEN``.

    Returns:
        ``CommitInfo`` of huggingface_hub, a str: the address of the commit.

    Raises:
        MissingRepositoryError: no such model, or a private one that the token does not reach.
        InputError: a model of another family, or without a head that is explained; a Space with another app; a file
            that is no audit.
        NotLoggedInError, RepositoryAccessError, OfflineError, HubConnectionError, HubError: of the Hub.

    Example:
        >>> from hf_mambalrp import create_space
        >>> create_space("me/why", model_id="me/explained-model")  # doctest: +SKIP
    """
    shown = None if audit is None else _read(audit)
    with hub_errors(model_id, "model"):
        hub_api(token).model_info(model_id)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "space"
        write_space(folder, model_id, title=title, audit=shown, token=token)
        repository = open_repository(repo_id, "space", private=private, token=token, space_sdk="gradio")
        files: dict[str, bytes | Path] = {
            path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
        }
        if MODELS in repository.files:
            card = _renewed(card_text(repository.read(CARD) or b""), card_text((folder / CARD).read_bytes()), title)
            files[CARD] = card.encode()
            if shown is None:
                (line,) = json.loads((folder / MODELS).read_text(encoding="utf-8"))
                files[MODELS] = _list({**line, **_audit_there(repository, model_id)})
        elif APP in repository.files:
            raise InputError(f"The Space {repository.repo_id!r} holds another app. Give the name of a new one.")
        return repository.commit(files, f"Explain {model_id} with hf_mambalrp")


def write_space(
    folder: Path, model_id: str, *, title: str | None = None, audit: Audit | None = None, token: Token = None
) -> None:
    """Write the app for a model, a Hub id or a folder, into a new folder."""
    task = _task(model_id, token)
    name = model_id.rstrip("/").rpartition("/")[2]
    template = IN_WHEEL if IN_WHEEL.is_dir() else IN_SOURCES
    if not (template / MODELS).is_file():
        raise MissingExtraError("This installation lacks the Space's files; install hf_mambalrp again from a wheel.")
    shutil.copytree(template, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns(*LEFT_OUT, IN_WHEEL.name))
    listed = (template / REQUIREMENTS).read_text(encoding="utf-8").splitlines()
    (folder / REQUIREMENTS).write_text("".join(f"{line}\n" for line in _requirements(listed)), encoding="utf-8")
    line = {"id": model_id, "title": name, "task": task}
    if audit is not None:
        audit.save(folder / AUDIT)
        line["audit"] = AUDIT
    (folder / MODELS).write_bytes(_list(line))
    card = card_text((folder / CARD).read_bytes())
    values: dict[str, Any] = {"title": title or f"Why did {name} say that?", "models": [model_id]}
    (folder / CARD).write_bytes(with_metadata(card, values).encode())


def _list(line: Mapping[str, str]) -> bytes:
    """The app's list of one model."""
    return (json.dumps([line], indent=1) + "\n").encode()


def _read(audit: Audit | str | Path) -> Audit:
    """An audit, or the one in a file or folder. InputError: there is none."""
    if isinstance(audit, Audit):
        return audit
    if not isinstance(audit, (str, Path)):
        raise InputError(f"audit is a {type(audit).__name__}; give what audit() returned, or the file that it is in.")
    return Audit.load(Path(audit) / AUDIT if Path(audit).is_dir() else audit)


def _audit_there(repository: Repository, model_id: str) -> dict[str, str]:
    """What the list of a Space says of an audit of this model."""
    try:
        listed = json.loads(repository.read(MODELS) or b"")
        named = [line["audit"] for line in listed if line["id"] == model_id and "audit" in line]
    except (ValueError, TypeError, KeyError):  # its owner may have written anything
        return {}
    return {"audit": named[0]} if named else {}


def _requirements(listed: list[str]) -> list[str]:
    """The app's requirements, in the place of the package what it needs, pictures included, where the app says nothing.

    gradio comes from the Space's ``sdk_version``.
    """
    try:
        found = [(text, EXTRA.search(text)) for text in requires(PACKAGE.name) or []]
    except PackageNotFoundError as error:
        raise MissingExtraError(
            "What a Space needs is known from the installed package: pip install . in its folder."
        ) from error
    needed = [text for text, extra in found if extra is None]
    needed += [text.partition(";")[0] for text, extra in found if extra is not None and extra[1] in EXTRAS]
    own = [line for line in listed if _named(line) != PACKAGE.name]
    return own + [text for text in needed if _named(text) not in set(map(_named, own))]


def _named(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _renewed(there: str, template: str, title: str | None) -> str:
    wanted, found = metadata(template), metadata(there)
    needed = {*RUNS, *(("title",) if title else ())}
    values = {key: value for key, value in wanted.items() if key in needed or key not in found}
    return with_metadata(there, values) if there else template


def _task(model_id: str, token: Token) -> str:
    try:
        with hub_errors(model_id, "model"):
            config = configuration(model_id, token=token)
    except MambaLRPError:
        raise
    except (OSError, ValueError) as error:  # of transformers
        said = " ".join(str(error).split())
        raise InputError(f"{model_id!r} has no configuration that transformers can read: {said}") from error
    named = config.architectures or ["ForCausalLM"]  # mamba_ssm's own checkpoints name none
    for ending, (task, classes) in TASKS.items():
        if config.model_type in classes and any(name.endswith(ending) for name in named):
            return task
    raise InputError(
        f"{model_id!r} is of type {config.model_type!r} and holds {config.architectures}. The Space explains language "
        f"models and classifiers of texts of the types {sorted(AutoMambaLRPForCausalLM.classes)}, and classifiers of "
        f"images of {sorted(AutoMambaLRPForImageClassification.classes)}."
    )
