"""Explanations as a dataset repository: shards of Parquet, and a card whose front matter the Hub's viewer reads."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_mambalrp.datasets.arrow import schema, to_records
from hf_mambalrp.datasets.store import SHARDS, Store, write
from hf_mambalrp.errors import InputError
from hf_mambalrp.hub.card import decode, joined, listed, metadata, with_metadata, with_section
from hf_mambalrp.hub.markdown import escaped, literal, table
from hf_mambalrp.hub.repository import CARD, Repository, Token, hub_api, hub_errors, open_repository
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.runs.parquet import parquet_file

DATA = f"data/{SHARDS}"
NUMBERED = DATA.replace("*", "[0-9]" * 6)
"""What a push replaces: names that only ours have, for other programs write part-* as well."""
MANIFEST = "manifest.json"
TAGS = ("explainability", "mamba", "lrp", "hf_mambalrp")
DATA_FILES = [{"split": "train", "path": DATA}]
COLUMNS = [
    ("index, id, text", "the row that was explained"),
    ("tokens, offsets, input_ids, special", "its tokens, their characters in the text, and which are special"),
    ("relevance", "one number a token, in units of the score"),
    ("target, target_text, contrast, contrast_text", "what the score is of: ids and texts"),
    ("score, probability, position", "the score in logits, the target's probability, whose prediction it is"),
    ("conservation", "sum of relevance, what biases absorbed, and the gap to the score"),
    ("method, model, versions", "how it was computed"),
    ("columns", "what else the row holds, as JSON"),
    ("error", "why a row was not explained, else null"),
]


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
    """
    folder = Path(output_dir)
    rows = _rows(_finished(folder))  # read before anything is created on the Hub
    repository = open_repository(repo_id, "dataset", private=private, token=token, revision=revision)
    extra = {MANIFEST: folder / MANIFEST}
    return _push(repository, rows, extra, commit_message, create_pr)


def push_rows(
    explanation: Explanation,
    repo_id: str,
    *,
    private: bool | None,
    token: Token,
    revision: str | None,
    create_pr: bool,
    commit_message: str | None,
) -> Any:
    """Push an explanation; :meth:`hf_mambalrp.Explanation.push_to_hub` documents the arguments."""
    e = explanation
    index = e.index or range(len(e))
    ids = e.ids or list(map(str, index))
    texts: Sequence[str | None] = e.texts or [None] * len(e)
    columns = [None] * len(e) if e.columns is None else [json.dumps(kept) for kept in e.columns]
    records = [
        {"index": number, "id": name, "text": text, "columns": kept, "error": None, **record}
        for number, name, text, kept, record in zip(index, ids, texts, columns, to_records(e), strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        shard = Store(folder).shard(0)
        write(shard, records)
        rows = _rows([shard])
        repository = open_repository(repo_id, "dataset", private=private, token=token, revision=revision)
        return _push(repository, rows, {}, commit_message, create_pr)


def fetch_explanations(repo_id: str, *, revision: str | None, token: Token) -> Path:
    """Download the shards of a dataset repository, those of one commit; returns their folder.

    Raises:
        MissingRepositoryError: no such repository, or a private one that the token does not reach.
        InputError: a repository without explanations, or with other data than ours.
        OfflineError, HubConnectionError, HubError: of the Hub.
    """
    with hub_errors(repo_id, "dataset"):
        found = hub_api(token).snapshot_download(
            repo_id, repo_type="dataset", revision=revision, allow_patterns=[NUMBERED]
        )
    folder = Path(found) / Path(DATA).parent
    shards = sorted(folder.glob(SHARDS))
    if not shards:
        raise InputError(f"The dataset repository {repo_id!r} holds no explanations: it has no {DATA}.")
    for shard in shards:
        _opened(shard, f"The file {shard.name} of the dataset repository {repo_id!r}").close()
    return folder


def _opened(shard: Path, name: str) -> Any:
    """A shard's Parquet file. InputError: it is none, or was not written by us."""
    file = parquet_file(shard)
    lacking = [column for column in schema().names if column not in file.schema_arrow.names]
    if lacking:
        file.close()
        raise InputError(f"{name} does not hold explanations: it lacks the columns {', '.join(lacking)}.")
    return file


def _finished(folder: Path) -> list[Path]:
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise InputError(f"{str(folder)!r} holds no run; give the output_dir of explain_dataset.")
    try:
        contents = json.loads(manifest.read_text(encoding="utf-8"))
        complete = contents["complete"]
        shards = [folder / shard["file"] for shard in (contents["shards"] if complete else [])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{str(manifest)!r} is not the manifest of a run: {error!r} in it.") from error
    if not complete:
        raise InputError(
            f"The run in {str(folder)!r} has not ended; call explain_dataset again, which goes on with it."
        )
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise InputError(f"{str(folder)!r} lacks {missing}, which its manifest names.")
    return shards


@dataclass(frozen=True)
class _Rows:
    """The shards of a push, and what their card says about them."""

    shards: list[Path]
    count: int
    skipped: int
    methods: list[str]
    models: list[str]


def _rows(shards: list[Path]) -> _Rows:
    """InputError: a shard is no Parquet file, or does not hold explanations."""
    count, skipped, methods, models = 0, 0, set(), set()
    for shard in shards:
        with _opened(shard, str(shard)) as file:
            for batch in file.iter_batches(columns=["method", "model", "error"]):
                records = batch.to_pylist()
                count += len(records)
                skipped += sum(record["error"] is not None for record in records)
                methods |= {record["method"] for record in records if record["method"]}
                models |= {record["model"] for record in records if record["model"]}
    return _Rows(shards, count, skipped, sorted(methods), sorted(models))


def _push(repository: Repository, rows: _Rows, extra: Mapping[str, Path], message: str | None, create_pr: bool) -> Any:
    card = _card(decode(repository.read(CARD) or b""), repository.repo_id, rows)
    files: dict[str, bytes | Path] = {CARD: card.encode(), **extra}
    files |= {(Path(DATA).parent / shard.name).as_posix(): shard for shard in rows.shards}
    stale = [NUMBERED, *({MANIFEST} - {*extra})]
    return repository.commit(
        files, message or "Upload explanations with hf_mambalrp", replaced=stale, create_pr=create_pr
    )


def _card(there: str, repo_id: str, rows: _Rows) -> str:
    name = repo_id.rpartition("/")[2]
    card = there or f"# {escaped(name)}\n\nExplanations of a Mamba model, token by token.\n"
    found = metadata(card)
    configs = listed(found, "configs")
    ours = next((one for one in configs if isinstance(one, dict) and DATA in str(one.get("data_files"))), None)
    if ours is None:  # configurations of other data stay, and ours comes after them
        ours = {"config_name": "explanations" if configs else "default", "data_files": DATA_FILES}
        configs = [*configs, ours]
    card = with_metadata(card, {"tags": joined(listed(found, "tags"), TAGS), "configs": configs})
    return with_section(card, "\n\n".join(_section(repo_id, ours.get("config_name", "default"), rows)))


def _section(repo_id: str, config: str, rows: _Rows) -> Iterator[str]:
    yield "## Explanations"
    yield table(
        ["Rows", "Not explained", "Method", "Model"],
        [
            [str(rows.count), str(rows.skipped)]
            + [escaped(", ".join(names)) if names else "-" for names in (rows.methods, rows.models)]
        ],
    )
    yield (
        "```python\nfrom hf_mambalrp import load_explanations\n\n"
        f"for explanation in load_explanations({literal(repo_id)}):\n    print(explanation)\n```"
    )
    asked = literal(repo_id) if config == "default" else f"{literal(repo_id)}, {literal(config)}"
    yield (
        f"As a table: `datasets.load_dataset({asked})`. A positive relevance speaks for the target, a negative one "
        "against it; relevance, biases and gap of a row add up to its score."
    )
    yield table(["Columns", "What they hold"], [[names, meaning] for names, meaning in COLUMNS]).replace("---:", "---")
