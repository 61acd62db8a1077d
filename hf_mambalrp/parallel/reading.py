"""Reading back what :func:`hf_mambalrp.parallel.explain_dataset` wrote."""

import re
from collections.abc import Iterator
from pathlib import Path

from hf_mambalrp.errors import InputError
from hf_mambalrp.explanation import Explanation
from hf_mambalrp.parallel.arrow import parquet, to_explanation
from hf_mambalrp.parallel.store import SHARDS

REPOSITORY = re.compile(r"\w[\w.-]*/[\w.-]+")
ROWS = 64
"""Rows in memory at a time."""


def load_explanations(
    path: str | Path, *, revision: str | None = None, token: str | bool | None = None
) -> Iterator[Explanation]:
    """Yield the explanations of a folder or dataset repository, one row each, in order; skipped rows are left out.

    The folder may also be read as a table, rows that were skipped with their reason in ``error`` included:
    ``datasets.load_dataset("parquet", data_files="folder/part-*.parquet")``.

    Args:
        path: a folder, or where there is none "user/name" of a dataset repository on the Hub.
        revision: branch, tag or commit of the repository.
        token: by default the one of ``hf auth login`` or ``HF_TOKEN``.

    Raises:
        InputError: a folder or repository without explanations.
        MissingExtraError: pyarrow is not installed.
        MissingRepositoryError: neither a folder nor a repository that the token reaches.
        OfflineError, HubConnectionError, HubError: of the Hub.
    """
    folder = Path(path)
    if isinstance(path, str) and REPOSITORY.fullmatch(path) and not folder.exists():
        from hf_mambalrp.hub.datasets import fetch_explanations

        folder = fetch_explanations(path, revision=revision, token=token)
    shards = sorted(folder.glob(SHARDS))
    if not shards:
        raise InputError(f"{str(path)!r} holds no explanations; give the output_dir of an explain_dataset that ended.")
    return _explanations(shards)


def _explanations(shards: list[Path]) -> Iterator[Explanation]:
    for shard in shards:
        with parquet().ParquetFile(shard) as file:
            for batch in file.iter_batches(batch_size=ROWS):
                yield from (to_explanation(record) for record in batch.to_pylist() if record["error"] is None)
