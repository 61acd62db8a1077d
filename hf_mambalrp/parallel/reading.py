"""Reading back what :func:`hf_mambalrp.parallel.explain_dataset` wrote."""

from collections.abc import Iterator
from pathlib import Path

from hf_mambalrp.errors import InputError
from hf_mambalrp.explanation import Explanation
from hf_mambalrp.parallel.arrow import parquet, to_explanation
from hf_mambalrp.parallel.store import SHARDS

ROWS = 64
"""Rows in memory at a time."""


def load_explanations(path: str | Path) -> Iterator[Explanation]:
    """Yield the explanations of a folder, one row each, in the order of the input; skipped rows are left out.

    The folder may also be read as a table, rows that were skipped with their reason in ``error`` included:
    ``datasets.load_dataset("parquet", data_files="folder/part-*.parquet")``.

    Raises:
        InputError: a folder without explanations.
        MissingExtraError: pyarrow is not installed.
    """
    folder = Path(path)
    shards = sorted(folder.glob(SHARDS))
    if not shards:
        raise InputError(f"{str(path)!r} holds no explanations; give the output_dir of an explain_dataset that ended.")
    return _explanations(shards)


def _explanations(shards: list[Path]) -> Iterator[Explanation]:
    for shard in shards:
        with parquet().ParquetFile(shard) as file:
            for batch in file.iter_batches(batch_size=ROWS):
                yield from (to_explanation(record) for record in batch.to_pylist() if record["error"] is None)
