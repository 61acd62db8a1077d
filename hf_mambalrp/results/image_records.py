"""Explanations of images as rows of Parquet, whose images ``datasets`` and the Hub's viewer show."""

import json
from typing import Any

import torch

from hf_mambalrp.results.image_explanation import ImageExplanation
from hf_mambalrp.results.records import (
    CONSERVATION,
    Record,
    conservation_from,
    made_by,
    origin_of,
    records_of_conservation,
)
from hf_mambalrp.runs.parquet import parquet
from hf_mambalrp.viz.picture import from_png, png

FEATURES = {b"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}}).encode()}
"""What says that a column holds images, as ``datasets`` writes it into a file."""


def image_schema() -> Any:
    """The columns of a row, and that one of them is an image. MissingExtraError: pyarrow is not installed."""
    parquet()
    import pyarrow as pa

    return pa.schema(
        [
            ("index", pa.int64()),
            ("id", pa.string()),
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("relevance", pa.list_(pa.list_(pa.float32()))),
            ("class_relevance", pa.list_(pa.float32())),
            ("patch_size", pa.int64()),
            ("stride", pa.int64()),
            ("target", pa.int64()),
            ("target_text", pa.string()),
            ("contrast", pa.int64()),
            ("contrast_text", pa.string()),
            ("score", pa.float32()),
            ("probability", pa.float32()),
            ("conservation", pa.struct([(name, pa.float32()) for name in CONSERVATION])),
            ("convergence_delta", pa.float32()),
            ("gamma", pa.float64()),
            ("gamma_on", pa.list_(pa.string())),
            ("method", pa.string()),
            ("method_options", pa.string()),
            ("model", pa.string()),
            ("versions", pa.string()),
            ("columns", pa.string()),
            ("error", pa.string()),
        ],
        metadata=FEATURES,
    )


def to_image_records(explanation: ImageExplanation) -> list[Record]:
    """One record for each row, without the relevance of layers and pixels."""
    e = explanation
    return [
        {
            "image": {"bytes": png(e.images[row]), "path": None if e.sources is None else e.sources[row]},
            "relevance": e.relevance[row].tolist(),
            "class_relevance": e.class_relevance[row].tolist(),
            "patch_size": e.patch_size,
            "stride": e.stride,
            "target": e.target[row],
            "target_text": e.target_text[row],
            "contrast": None if e.contrast is None else e.contrast[row],
            "contrast_text": None if e.contrast_text is None else e.contrast_text[row],
            "score": e.score[row].item(),
            "probability": None if e.probability is None else e.probability[row].item(),
            "conservation": conservation,
            "convergence_delta": None if e.convergence_delta is None else e.convergence_delta[row].item(),
            "gamma": e.gamma,
            "gamma_on": list(e.gamma_on),
            **made_by(vars(e)),
        }
        for row, conservation in enumerate(records_of_conservation(e.conservation))
    ]


def to_image_explanation(record: Record) -> ImageExplanation:
    """The explanation, of one row, that :func:`to_image_records` made ``record`` of."""

    def number(value: Any) -> Any:
        return None if value is None else torch.tensor([value], dtype=torch.float32)

    has_contrast = record["contrast_text"] is not None
    return ImageExplanation(
        relevance=torch.tensor([record["relevance"]], dtype=torch.float32),
        class_relevance=torch.tensor([record["class_relevance"]], dtype=torch.float32),
        images=from_png(record["image"]["bytes"])[None],
        target=[record["target"]],
        target_text=[record["target_text"]],
        contrast=[record["contrast"]] if has_contrast else None,
        contrast_text=[record["contrast_text"]] if has_contrast else None,
        score=number(record["score"]),
        probability=number(record["probability"]),
        conservation=conservation_from(record),
        patch_size=record["patch_size"],
        stride=record["stride"],
        gamma=record["gamma"],
        gamma_on=tuple(record["gamma_on"]),
        sources=[record["image"]["path"]],
        convergence_delta=number(record["convergence_delta"]),
        **origin_of(record),
    )
