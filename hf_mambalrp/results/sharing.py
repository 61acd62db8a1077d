"""Explanations as a dataset on the Hub: their rows as a shard of Parquet, and what its card says about shards."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_mambalrp.hub.datasets import Shards, push_shards
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.results.image_explanation import ImageExplanation
from hf_mambalrp.results.image_records import image_schema, to_image_records
from hf_mambalrp.results.records import records_file, to_records, write_records


def push_rows(explanation: Explanation | ImageExplanation, repo_id: str, **options: Any) -> Any:
    """Push an explanation; :meth:`hf_mambalrp.Explanation.push_to_hub` documents the options."""
    e = explanation
    if isinstance(e, ImageExplanation):
        schema, records = image_schema(), to_image_records(e)
    else:
        texts: Sequence[str | None] = e.texts or [None] * len(e)
        schema, records = None, [{"text": text, **record} for text, record in zip(texts, to_records(e), strict=True)]
    index = e.index or range(len(e))
    ids = e.ids or list(map(str, index))
    columns = [None] * len(e) if e.columns is None else [json.dumps(kept) for kept in e.columns]
    rows = [
        {"index": number, "id": name, "columns": kept, "error": None, **record}
        for number, name, kept, record in zip(index, ids, columns, records, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "rows.parquet"
        write_records(shard, rows, columns=schema)
        return push_shards(shards_of([shard], schema), repo_id, manifest=None, **options)


def shards_of(paths: Sequence[Path], columns: Any = None) -> Shards:
    """What a card says about shards of texts, or with the ``columns`` of images.

    InputError: one is no Parquet file, or does not hold such explanations.
    """
    rows, skipped, methods, models = 0, 0, set(), set()
    for path in paths:
        with records_file(path, str(path), columns) as file:
            for batch in file.iter_batches(columns=["method", "model", "error"]):
                records = batch.to_pylist()
                rows += len(records)
                skipped += sum(record["error"] is not None for record in records)
                methods |= {record["method"] for record in records if record["method"]}
                models |= {record["model"] for record in records if record["model"]}
    return Shards(paths, rows, skipped, sorted(methods), sorted(models), of_images=columns is not None)
