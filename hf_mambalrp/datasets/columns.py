"""Explained rows as the columns of a table: a token is never an object of Python, of which a batch has too many."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_mambalrp.calls.explain import Explained
from hf_mambalrp.results.arrays import array, lists, numbers
from hf_mambalrp.results.records import Record, records_of_rows, schema, table_of
from hf_mambalrp.runs.rows import Row


def table_of_explained(explained: Explained, rows: Sequence[Row]) -> Any:
    """A table of the rows of a batch, without their padding.

    Of a row's text target tokens that were fed back are no part: they get an empty span at the end.
    """
    import pyarrow as pa

    values, tokens = explained.values, explained.tokens()
    mask = values["attention_mask"].numpy() != 0
    of_text = np.repeat([len(row.text) for row in rows], mask.sum(1))
    assert tokens.spans is not None, "a dataset has a tokenizer, which names and places every token"
    assert tokens.special is not None
    spans = np.minimum(tokens.spans.numpy()[mask], of_text[:, None])
    of_tokens = {
        "tokens": array(tokens.names, pa.string()).take(numbers(tokens.which.numpy()[mask])),
        "offsets": lists(len(spans) * [2], numbers(spans.ravel().astype(np.int32))),
        "input_ids": numbers(values["input_ids"].numpy()[mask]),
        "special": numbers(tokens.special.numpy()[mask]),
        "relevance": numbers(values["relevance"].numpy()[mask].astype(np.float32)),
    }
    columns = schema()
    short = [field for field in columns if field.name not in of_tokens]
    records = records_of_rows({**values, **explained.names()})
    table = table_of([{**of_row(row), **record} for row, record in zip(rows, records, strict=True)], pa.schema(short))
    arrays = [
        lists(mask.sum(1), of_tokens[field.name]).cast(field.type) if field.name in of_tokens else table[field.name]
        for field in columns
    ]
    return pa.Table.from_arrays(arrays, schema=columns)


def of_row(row: Row) -> Record:
    """What a record has of its row."""
    kept = json.dumps(row.kept) if row.kept else None
    return {"index": row.index, "id": row.id, "text": row.text, "columns": kept, "error": None}
