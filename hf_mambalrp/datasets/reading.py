"""Reading back what :func:`hf_mambalrp.datasets.explain_dataset` wrote."""

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

from hf_mambalrp.datasets.store import SHARDS, Store
from hf_mambalrp.errors import InputError
from hf_mambalrp.hub.datasets import fetch_shards
from hf_mambalrp.hub.repository import Token
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.results.image_explanation import ImageExplanation
from hf_mambalrp.results.image_records import image_schema, to_image_explanation
from hf_mambalrp.results.records import records_file, to_explanation
from hf_mambalrp.runs.folder import FORMAT
from hf_mambalrp.runs.parquet import parquet_file

REPOSITORY = re.compile(r"\w[\w.-]*/[\w.-]+")
ROWS = 64
"""Rows in memory at a time."""


@dataclass(frozen=True)
class SkippedRow:
    """A row of a dataset that was not explained."""

    index: int
    """Its number in the dataset."""
    id: str
    text: str | None
    error: str
    columns: Mapping[str, Any] | None = None
    """Values of the dataset's columns that travel with a row."""


@overload
def load_explanations(
    path: str | Path, *, skipped: Literal[False] = ..., revision: str | None = ..., token: str | bool | None = ...
) -> Iterator[Explanation | ImageExplanation]: ...
@overload
def load_explanations(
    path: str | Path, *, skipped: bool, revision: str | None = ..., token: str | bool | None = ...
) -> Iterator[Explanation | ImageExplanation | SkippedRow]: ...
def load_explanations(
    path: str | Path, *, skipped: bool = False, revision: str | None = None, token: str | bool | None = None
) -> Iterator[Any]:
    """Yield the explanations of a folder or dataset repository, one row each, in the order of the dataset.

    They are of texts, or of images where an :class:`hf_mambalrp.ImageExplanation` was pushed.

    Each knows its row: ``index`` and ``ids``, and ``columns`` where ``explain_dataset`` was told which.
    ``Explanation.concat(load_explanations(path))`` is all of them as one. Files are read as rows are
    asked for. The folder may also be read as a table, rows that were skipped with their
    reason in ``error`` included:
    ``datasets.load_dataset("parquet", data_files="folder/part-*.parquet")``.

    Args:
        path: a folder, or where there is none "user/name" of a dataset repository on the Hub.
        skipped: yield a :class:`SkippedRow` for a row that was not explained, so that the rows of the dataset and what
            is yielded go together one by one; by default it is left out.
        revision: branch, tag or commit of the repository.
        token: by default the one of ``hf auth login`` or ``HF_TOKEN``.

    Warns:
        UserWarning: the run has not ended; what it has finished is read. Or a row was skipped and is left out.

    Raises:
        InputError: a folder or repository without explanations, or of another version of this package, or a folder
            that lacks some of its shards.
        MissingExtraError: pyarrow is not installed.
        MissingRepositoryError: neither a folder nor a repository that the token reaches.
        OfflineError, HubConnectionError, HubError: of the Hub.

    Example:
        >>> from hf_mambalrp import DEMO_MODEL, AutoMambaLRPForSequenceClassification
        >>> from hf_mambalrp import explain_dataset, load_explanations
        >>> model = AutoMambaLRPForSequenceClassification.from_pretrained(DEMO_MODEL)
        >>> run = explain_dataset(model, ["A dull film.", "A lovely film."], "out/explained", progress=False)
        >>> [ex.target_text for ex in load_explanations("out/explained")]
        [['negative'], ['positive']]
    """
    folder = Path(path)
    if isinstance(path, str) and REPOSITORY.fullmatch(path) and not folder.exists():
        return _rows(_fetched(path, revision, token), skipped)
    return _rows(_shards(folder), skipped)


def _fetched(repo_id: str, revision: str | None, token: Token) -> list[Path]:
    """The files of a dataset repository in order."""
    shards = fetch_shards(repo_id, revision=revision, token=token)
    for shard in shards:
        records_file(shard, f"The file {shard.name} of the dataset repository {repo_id!r}", _columns(shard)).close()
    return shards


def _columns(shard: Path) -> Any:
    """The columns that a file of explanations of images has, or None for those of texts."""
    with parquet_file(shard) as file:
        return image_schema() if "image" in file.schema_arrow.names else None


def _shards(folder: Path) -> list[Path]:
    """The files in order; those of a run that has ended are in its manifest."""
    found = sorted(folder.glob(SHARDS))
    store = Store(folder)
    manifest = store.read_manifest()
    if manifest.get("format", FORMAT) != FORMAT:
        raise InputError(
            f"{str(folder)!r} was written in format {manifest['format']}; this is {FORMAT}. Explain the dataset again."
        )
    if "shards" in manifest:
        store.named(shard["file"] for shard in manifest["shards"])
    elif not found:
        raise InputError(
            f"{str(folder)!r} holds no explanations; give the output_dir of an explain_dataset that ended."
        )
    elif manifest:
        warnings.warn(f"The run in {folder} has not ended; these are the rows of its finished windows.", stacklevel=3)
    return found


def _rows(shards: list[Path], skipped: bool) -> Iterator[Explanation | ImageExplanation | SkippedRow]:
    said = skipped
    for shard in shards:
        with parquet_file(shard) as file:
            for batch in file.iter_batches(batch_size=ROWS):
                for record in batch.to_pylist():
                    if record["error"] is None:
                        yield to_image_explanation(record) if "image" in record else to_explanation(record)
                    elif skipped:
                        kept = None if record["columns"] is None else json.loads(record["columns"])
                        yield SkippedRow(record["index"], record["id"], record["text"], record["error"], kept)
                    elif not said:
                        said = True
                        warnings.warn(
                            f"Row {record['index']} (id {record['id']!r}) was not explained and is left out, as all "
                            "such rows are: skipped=True gives them in their places.",
                            stacklevel=2,
                        )
