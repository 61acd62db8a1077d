"""Explanations as rows of Parquet."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hf_mambalrp.errors import InputError
from hf_mambalrp.results.explanation import Conservation, Explanation
from hf_mambalrp.runs.parquet import parquet, parquet_file

if TYPE_CHECKING:
    from hf_mambalrp.results.image_explanation import ImageExplanation

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


def write_records(
    path: str | Path, records: Sequence[Record], metadata: Mapping[bytes, bytes] | None = None, columns: Any = None
) -> None:
    """Write records as Parquet, with other ``columns`` than texts have. MissingExtraError: pyarrow is missing."""
    module, columns = parquet(), columns or schema()
    import pyarrow as pa

    table = pa.Table.from_pylist(
        list(records), schema=columns.with_metadata({**(columns.metadata or {}), **(metadata or {})})
    )
    module.write_table(table, path, compression="zstd")


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


def to_records(explanation: Explanation, texts: Sequence[str] | None = None) -> list[Record]:
    """One record for each row of an explanation of texts, without its padding.

    Of the caller's ``texts`` target tokens that were fed back are no part: they get an empty span at the end.
    """
    e = explanation
    records = []
    for row in range(len(e)):
        kept = e.attention_mask[row].nonzero().flatten()
        places = kept.tolist()

        def picked(values: Any, row: int = row, kept: Any = kept, places: list[int] = places) -> Any:
            """This row's entries of a (B, L) tensor or list that are not padding."""
            if values is None:
                return None
            return values[row][kept].tolist() if isinstance(values, torch.Tensor) else [values[row][i] for i in places]

        records.append(
            {
                "tokens": picked(e.tokens),
                "offsets": _inside(picked(e.offsets), None if texts is None else texts[row]),
                "input_ids": picked(e.input_ids),
                "special": picked(e.special_tokens_mask),
                "relevance": picked(e.relevance),
                "target": _ids(e.target[row]),
                "target_text": e.target_text[row],
                "contrast": None if e.contrast is None else _ids(e.contrast[row]),
                "contrast_text": None if e.contrast_text is None else e.contrast_text[row],
                "score": e.score[row].item(),
                "probability": None if e.probability is None else e.probability[row].item(),
                "position": None if e.position is None else int((kept < e.position[row]).sum()),
                "conservation": conservation_of(e.conservation, row),
                **made_by(e),
            }
        )
    return records


def _inside(offsets: list[tuple[int, int]] | None, text: str | None) -> list[tuple[int, int]] | None:
    if offsets is None or text is None:
        return offsets
    end = len(text)
    if offsets and max(offsets[-1]) <= end:  # what is fed back stands behind the text
        return offsets
    return [(min(first, end), min(last, end)) for first, last in offsets]


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


def conservation_of(conservation: Conservation, row: int) -> Record:
    """Where the score of a row went, beside the score itself."""
    parts = {name: getattr(conservation, name) for name in CONSERVATION}
    return {name: None if part is None else part[row].item() for name, part in parts.items()}


def conservation_from(record: Record) -> Conservation:
    """What :func:`conservation_of` was given."""
    held = {"score": record["score"], **record["conservation"]}
    names = (name for name in Conservation._names() if held.get(name) is not None)
    return Conservation(**{name: torch.tensor([held[name]], dtype=torch.float32) for name in names})


def made_by(explanation: "Explanation | ImageExplanation") -> Record:
    """What made a result, the same in each of its rows."""
    options = explanation.method_options
    return {
        "method": explanation.method,
        "method_options": json.dumps(options, sort_keys=True) if options else None,
        "model": explanation.model_id,
        "versions": json.dumps(explanation.versions, sort_keys=True),
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
