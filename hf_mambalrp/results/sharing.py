"""Explanations as a dataset on the Hub: their rows as a shard of Parquet, and what its card says about shards."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_mambalrp.hub.datasets import Shards, push_shards
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.results.records import records_file, to_records, write_records


def push_rows(explanation: Explanation, repo_id: str, **options: Any) -> Any:
    """Push an explanation; :meth:`hf_mambalrp.Explanation.push_to_hub` documents the options."""
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
        shard = Path(folder) / "rows.parquet"
        write_records(shard, records)
        return push_shards(shards_of([shard]), repo_id, manifest=None, **options)


def shards_of(paths: Sequence[Path]) -> Shards:
    """What a card says about shards. InputError: one is no Parquet file, or does not hold explanations."""
    rows, skipped, methods, models = 0, 0, set(), set()
    for path in paths:
        with records_file(path, str(path)) as file:
            for batch in file.iter_batches(columns=["method", "model", "error"]):
                records = batch.to_pylist()
                rows += len(records)
                skipped += sum(record["error"] is not None for record in records)
                methods |= {record["method"] for record in records if record["method"]}
                models |= {record["model"] for record in records if record["model"]}
    return Shards(paths, rows, skipped, sorted(methods), sorted(models))
