"""Explanations as a dataset on the Hub: their rows as a shard of Parquet, and what its card says about shards."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hf_mambalrp.errors import MissingExtraError
from hf_mambalrp.hub.datasets import Shards, push_shards
from hf_mambalrp.results import card
from hf_mambalrp.results.explanation import Explanation
from hf_mambalrp.results.generation_explanation import GenerationExplanation
from hf_mambalrp.results.image_explanation import ImageExplanation
from hf_mambalrp.results.image_records import image_schema, to_image_explanation, to_image_records
from hf_mambalrp.results.records import Record, records_file, table_of, to_explanation, to_records, write_table


def push_rows(explanation: Explanation | GenerationExplanation | ImageExplanation, repo_id: str, **options: Any) -> Any:
    """Push an explanation; :meth:`hf_mambalrp.Explanation.push_to_hub` documents the options."""
    e = explanation
    schema = image_schema() if isinstance(e, ImageExplanation) else None
    rows = [*_of_steps(e)] if isinstance(e, GenerationExplanation) else _of_rows(e)
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "rows.parquet"
        write_table(shard, table_of(rows, schema))
        return push_shards(shards_of([shard], schema), repo_id, manifest=None, **options)


def _of_rows(e: Explanation | ImageExplanation) -> list[Record]:
    if isinstance(e, ImageExplanation):
        records = to_image_records(e)
    else:
        texts: Sequence[str | None] = e.texts or [None] * len(e)
        records = [{"text": text, **record} for text, record in zip(texts, to_records(e), strict=True)]
    index = e.index or range(len(e))
    ids = e.ids or list(map(str, index))
    columns = [None] * len(e) if e.columns is None else [json.dumps(kept) for kept in e.columns]
    return [
        {"index": number, "id": name, "columns": kept, "error": None, **record}
        for number, name, kept, record in zip(index, ids, columns, records, strict=True)
    ]


def _of_steps(e: GenerationExplanation) -> Iterator[Record]:
    """A row for every token that was generated: what an explanation of it alone would be."""
    number = 0
    for row, one in enumerate(e):
        for t in one.generated():
            (record,) = _of_rows(one.step(t))
            columns = json.dumps({"row": row, "step": t})
            yield {**record, "index": number, "id": f"{row}.{t}", "columns": columns}
            number += 1


def shards_of(paths: Sequence[Path], columns: Any = None) -> Shards:
    """What a card says about shards of texts, or with the ``columns`` of images, and the picture of their first row.

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
    shown = _first(paths, columns)
    return Shards(paths, rows, skipped, sorted(methods), sorted(models), columns is not None, shown)


def _first(paths: Sequence[Path], columns: Any) -> tuple[str, bytes] | None:
    """What the picture of the first row that was explained says, and it; None without a row or what draws it."""
    for path in paths:
        with records_file(path, str(path), columns) as file:
            for batch in file.iter_batches(batch_size=1):
                (record,) = batch.to_pylist()
                if record["error"] is None:
                    one = to_explanation(record) if columns is None else to_image_explanation(record)
                    try:
                        return card.picture_says(one, one.document()), card.picture_of_row(one, 0)
                    except MissingExtraError:
                        return None
    return None
