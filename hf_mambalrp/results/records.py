"""Explanations as rows of Parquet."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hf_mambalrp.errors import InputError
from hf_mambalrp.results.arrays import array
from hf_mambalrp.results.explanation import Conservation, Explanation
from hf_mambalrp.runs.parquet import parquet, parquet_file

Record = dict[str, Any]
CONSERVATION = ("relevance", "biases", "softmax", "gap")
LATER = {"method_options"}
"""Columns that earlier files lack."""


def schema() -> Any:
    """The columns of a row; of one that was skipped all but the first three and the last two are null."""
    parquet()
    import pyarrow as pa

    numbers = pa.struct([(name, pa.float32()) for name in CONSERVATION])
    return pa.schema(
        [
            ("index", pa.int64()),
            ("id", pa.string()),
            ("text", pa.string()),
            ("tokens", pa.list_(pa.string())),
            ("offsets", pa.list_(pa.list_(pa.int32()))),
            ("input_ids", pa.list_(pa.int64())),
            ("special", pa.list_(pa.bool_())),
            ("relevance", pa.list_(pa.float32())),
            ("target", pa.list_(pa.int64())),
            ("target_text", pa.string()),
            ("contrast", pa.list_(pa.int64())),
            ("contrast_text", pa.string()),
            ("score", pa.float32()),
            ("probability", pa.float32()),
            ("position", pa.int64()),
            ("conservation", numbers),
            ("method", pa.string()),
            ("method_options", pa.string()),
            ("model", pa.string()),
            ("versions", pa.string()),
            ("columns", pa.string()),
            ("error", pa.string()),
        ]
    )


def table_of(records: Sequence[Record], columns: Any = None) -> Any:
    """Records as a table, with other ``columns`` than texts have. MissingExtraError: pyarrow is missing."""
    columns = columns or schema()
    import pyarrow as pa

    arrays = [array([record.get(field.name) for record in records], field.type) for field in columns]
    return pa.Table.from_arrays(arrays, schema=columns)


def write_table(path: str | Path, table: Any, metadata: Mapping[bytes, bytes] | None = None) -> None:
    """Write a table as Parquet, and more ``metadata`` with it."""
    import pyarrow as pa

    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **(metadata or {})})
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    of_lists = [field for field in table.schema if pa.types.is_list(field.type)]
    texts += [f"{field.name}.list.element" for field in of_lists if pa.types.is_string(field.type.value_type)]
    # Texts repeat; of numbers that do not a dictionary is made in vain.
    parquet().write_table(table, path, compression="zstd", use_dictionary=texts)


def records_file(path: Path, name: str, columns: Any = None) -> Any:
    """An open Parquet file of records of texts, or with other ``columns``; ``name`` is what its errors call it.

    InputError: it is no Parquet file, or lacks some of the columns.
    """
    file = parquet_file(path)
    needed = (column for column in (columns or schema()).names if column not in LATER)
    lacking = [column for column in needed if column not in file.schema_arrow.names]
    if lacking:
        file.close()
        raise InputError(f"{name} does not hold explanations: it lacks the columns {', '.join(lacking)}.")
    return file


def to_records(explanation: Explanation) -> list[Record]:
    """One record for each row of an explanation of texts, without its padding."""
    e = explanation
    records = records_of_rows(vars(e))
    for row, record in enumerate(records):
        kept = e.attention_mask[row].nonzero().flatten()
        places = kept.tolist()
        for name, values in (("tokens", e.tokens), ("offsets", e.offsets)):
            record[name] = None if values is None else [values[row][i] for i in places]
        tensors = {"input_ids": e.input_ids, "special": e.special_tokens_mask, "relevance": e.relevance}
        for name, tensor in tensors.items():
            record[name] = None if tensor is None else tensor[row][kept].tolist()
    return records


def records_of_rows(values: Mapping[str, Any]) -> list[Record]:
    """What a record has of a row beside its tokens, by the fields of an explanation of texts."""
    mask, position, contrast = values["attention_mask"] != 0, values["position"], values["contrast"]
    many = len(mask) * [None]
    read = many
    if position is not None:  # among the tokens that are not padding
        read = (mask & (torch.arange(mask.shape[1]) < position[:, None])).sum(1).tolist()
    columns = {
        "target": map(_ids, values["target"]),
        "target_text": values["target_text"],
        "contrast": many if contrast is None else map(_ids, contrast),
        "contrast_text": many if contrast is None else values["contrast_text"],
        "score": values["score"].tolist(),
        "probability": many if values["probability"] is None else values["probability"].tolist(),
        "position": read,
        "conservation": records_of_conservation(values["conservation"]),
    }
    same = made_by(values)
    return [{**dict(zip(columns, row, strict=True)), **same} for row in zip(*columns.values(), strict=True)]


def to_explanation(record: Record) -> Explanation:
    """The explanation, of one row, that :func:`to_records` made ``record`` of."""

    def tensor(value: Any, dtype: torch.dtype) -> Any:
        return None if value is None else torch.tensor([value], dtype=dtype)

    contrast, offsets = _target(record["contrast"]), record["offsets"]
    return Explanation(
        relevance=tensor(record["relevance"], torch.float32),
        tokens=[record["tokens"]],
        input_ids=tensor(record["input_ids"], torch.int64),
        attention_mask=torch.ones(1, len(record["tokens"]), dtype=torch.int64),
        target=[_target(record["target"])],
        target_text=[record["target_text"]],
        contrast=None if contrast is None else [contrast],
        contrast_text=None if contrast is None else [record["contrast_text"]],
        score=tensor(record["score"], torch.float32),
        probability=tensor(record["probability"], torch.float32),
        conservation=conservation_from(record),
        position=tensor(record["position"], torch.int64),
        offsets=None if offsets is None else [[(start, end) for start, end in offsets]],
        texts=None if offsets is None else [record["text"]],
        special_tokens_mask=tensor(record["special"], torch.bool),
        **origin_of(record),
    )


def records_of_conservation(conservation: Conservation) -> list[Record]:
    """Where the score of every row went, beside the score itself."""
    parts = [getattr(conservation, name) for name in CONSERVATION]
    columns = [[None] * len(conservation.score) if part is None else part.tolist() for part in parts]
    return [dict(zip(CONSERVATION, row, strict=True)) for row in zip(*columns, strict=True)]


def conservation_from(record: Record) -> Conservation:
    """What :func:`records_of_conservation` was given, of one row."""
    held = {"score": record["score"], **record["conservation"]}
    names = (name for name in Conservation._names() if held.get(name) is not None)
    return Conservation(**{name: torch.tensor([held[name]], dtype=torch.float32) for name in names})


def made_by(values: Mapping[str, Any]) -> Record:
    """What made a result, by its fields; the same in each of its rows."""
    options = values["method_options"]
    return {
        "method": values["method"],
        "method_options": json.dumps(options, sort_keys=True) if options else None,
        "model": values["model_id"],
        "versions": json.dumps(values["versions"], sort_keys=True),
    }


def origin_of(record: Record) -> Record:
    """Fields of a result that say what made a row and where it comes from."""
    options = record.get("method_options")
    return {
        "method": record["method"],
        "method_options": {} if options is None else json.loads(options),
        "model_id": record["model"],
        "versions": json.loads(record["versions"]),
        "index": [record["index"]],
        "ids": [record["id"]],
        "columns": None if record["columns"] is None else [json.loads(record["columns"])],
    }


def _ids(target: int | tuple[int, ...] | None) -> list[int] | None:
    if target is None:
        return None
    return [target] if isinstance(target, int) else list(target)


def _target(ids: list[int] | None) -> int | tuple[int, ...] | None:
    if ids is None:
        return None
    return ids[0] if len(ids) == 1 else tuple(ids)
