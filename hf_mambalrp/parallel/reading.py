"""Reading back what :func:`hf_mambalrp.parallel.explain_dataset` wrote."""

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from hf_mambalrp.errors import InputError
from hf_mambalrp.explanation import Explanation
from hf_mambalrp.parallel.arrow import parquet_file, to_explanation
from hf_mambalrp.parallel.store import SHARDS, Store

REPOSITORY = re.compile(r"\w[\w.-]*/[\w.-]+")
ROWS = 64
"""Rows in memory at a time."""


def load_explanations(
    path: str | Path, *, revision: str | None = None, token: str | bool | None = None
) -> Iterator[Explanation]:
    """Yield the explanations of a folder or dataset repository, one row each, in order; skipped rows are left out.

    Files are read as rows are asked for. The folder may also be read as a table, rows that were skipped with their
    reason in ``error`` included:
    ``datasets.load_dataset("parquet", data_files="folder/part-*.parquet")``.

    Args:
        path: a folder, or where there is none "user/name" of a dataset repository on the Hub.
        revision: branch, tag or commit of the repository.
        token: by default the one of ``hf auth login`` or ``HF_TOKEN``.

    Warns:
        UserWarning: the run has not ended; what it has finished is read.

    Raises:
        InputError: a folder or repository without explanations, or a folder that lacks some of its shards.
        MissingExtraError: pyarrow is not installed.
        MissingRepositoryError: neither a folder nor a repository that the token reaches.
        OfflineError, HubConnectionError, HubError: of the Hub.
    """
    folder = Path(path)
    if isinstance(path, str) and REPOSITORY.fullmatch(path) and not folder.exists():
        from hf_mambalrp.hub.datasets import fetch_explanations

        folder = fetch_explanations(path, revision=revision, token=token)
    return _explanations(_shards(folder))


def _shards(folder: Path) -> list[Path]:
    """The files in order; those of a run that has ended are in its manifest, a repository's folder has none."""
    found = sorted(folder.glob(SHARDS))
    store = Store(folder)
    manifest = json.loads(store.manifest.read_text(encoding="utf-8")) if store.manifest.is_file() else {}
    if manifest.get("complete"):
        missing = sorted({shard["file"] for shard in manifest["shards"]} - {path.name for path in found})
        if missing:
            raise InputError(f"{str(folder)!r} lacks {missing}, which its manifest names.")
    elif not found:
        raise InputError(
            f"{str(folder)!r} holds no explanations; give the output_dir of an explain_dataset that ended."
        )
    elif manifest:
        warnings.warn(f"The run in {folder} has not ended; these are the rows of its finished windows.", stacklevel=3)
    return found


def _explanations(shards: list[Path]) -> Iterator[Explanation]:
    for shard in shards:
        with parquet_file(shard) as file:
            for batch in file.iter_batches(batch_size=ROWS):
                yield from (to_explanation(record) for record in batch.to_pylist() if record["error"] is None)
