"""What a run of :func:`hf_mambalrp.explain_dataset` wrote, as a dataset on the Hub."""

import json
from pathlib import Path
from typing import Any

from hf_mambalrp.datasets.store import Store
from hf_mambalrp.errors import InputError
from hf_mambalrp.hub.datasets import push_shards
from hf_mambalrp.hub.repository import Token
from hf_mambalrp.results.sharing import shards_of


def push_explanations(
    output_dir: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: Token = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
) -> Any:
    """Push what :func:`hf_mambalrp.explain_dataset` wrote as a dataset that the Hub's viewer shows.

    The shards, ``data/part-*.parquet``, replace those of an earlier push; a card that is there is extended between
    markers. It is one commit. What has been uploaded when a connection breaks is not sent again by the next call, and
    a call with nothing new makes no commit. :func:`hf_mambalrp.load_explanations` reads the repository back.

    Args:
        output_dir: the folder of a run that has ended.
        repo_id: "user/name"; created if it is not there.
        private: visibility of a repository that is created.
        token: by default the one of ``hf auth login`` or ``HF_TOKEN``.
        revision: the branch; created if it is not there.
        create_pr: propose the change instead of making it.
        commit_message: title of the commit.

    Returns:
        ``CommitInfo`` of huggingface_hub, a str: the address of the commit.

    Raises:
        InputError: no folder of a run, of one that has not ended, or one with a file that is missing or damaged.
        MissingExtraError: pyarrow is not installed.
        NotLoggedInError, RepositoryAccessError, OfflineError, HubConnectionError, HubError: of the Hub.
        CardError: the card that is there cannot be extended.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
        >>> from hf_mambalrp import explain_dataset, push_explanations
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> run = explain_dataset(model, ["A dull film.", "A lovely film."], "out/explained", progress=False)
        >>> push_explanations("out/explained", "me/corpus-explained")  # doctest: +SKIP
    """
    folder = Path(output_dir)
    return push_shards(
        shards_of(_finished(folder)),  # read before anything is created on the Hub
        repo_id,
        manifest=Store(folder).manifest,
        private=private,
        token=token,
        revision=revision,
        create_pr=create_pr,
        commit_message=commit_message,
    )


def _finished(folder: Path) -> list[Path]:
    store = Store(folder)
    if not store.manifest.is_file():
        raise InputError(f"{str(folder)!r} holds no run; give the output_dir of explain_dataset.")
    try:
        contents = json.loads(store.manifest.read_text(encoding="utf-8"))
        complete = contents["complete"]
        names = [shard["file"] for shard in (contents["shards"] if complete else [])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{str(store.manifest)!r} is not the manifest of a run: {error!r} in it.") from error
    if not complete:
        raise InputError(
            f"The run in {str(folder)!r} has not ended; call explain_dataset again, which goes on with it."
        )
    return store.named(names)
