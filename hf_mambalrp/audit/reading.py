"""What an audit reads: explanations, made where there are none, with texts and labels; and those of a base model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from accelerate import PartialState

from hf_mambalrp.audit.corpus import Source, column_of, explained_texts, rows_of
from hf_mambalrp.audit.positions import Places
from hf_mambalrp.audit.scores import Scores
from hf_mambalrp.audit.words import compare
from hf_mambalrp.calls.explain import model_id
from hf_mambalrp.calls.labels import read_label
from hf_mambalrp.datasets.explaining import explain_dataset
from hf_mambalrp.datasets.reading import SkippedRow
from hf_mambalrp.errors import InputError, OptionError
from hf_mambalrp.results.audit_parts import Change
from hf_mambalrp.results.explanation import Explanation

RISEN = 12
"""Words that are shown of those that changed."""


class Read(NamedTuple):
    """What one reading of the explanations gives."""

    texts: list[str]
    labels: list[Any] | None
    groups: list[str] | None
    skipped: int
    model: str | None
    method: str
    places: Places


@contextmanager
def explanations(
    model: Any, data: Any, output_dir: str | Path | None, name: str, explaining: Mapping[str, Any]
) -> Iterator[Source]:
    """The explanations that data is, or those that are made of it. OptionError: several processes, and no folder."""
    is_folder = isinstance(data, (str, Path)) and Path(data).is_dir()
    if is_folder or isinstance(data, Explanation):
        yield data
        return
    if isinstance(data, (list, tuple)) and data and isinstance(data[0], Explanation):
        yield data
        return
    if output_dir is None and PartialState(cpu=not torch.cuda.is_available()).num_processes > 1:
        raise OptionError("output_dir=None: several processes write into one folder. Give one that all of them share.")
    with TemporaryDirectory() if output_dir is None else nullcontext(output_dir) as folder:
        path = Path(folder) / name
        explain_dataset(model, data, path, on_error="skip", **explaining)
        yield path


def read(source: Source, scores: Scores, label: str | None, groups: str | None, progress: bool) -> Read:
    """Texts, labels, groups and places. InputError: explanations of another model, a text without label or group."""
    skipped = 0
    texts, places = [], Places()
    columns: dict[str, list[Any]] = {name: [] for name in (label, groups) if name is not None}
    own = model_id(scores.network)
    method = ""
    for ex in rows_of(source, progress, "texts"):
        if isinstance(ex, SkippedRow):
            skipped += 1
            continue
        assert ex.texts is not None, "rows_of gives explanations of texts"
        if ex.model_id != own:
            raise InputError(
                f"The explanations are of the model {ex.model_id!r}, and the model given is {own!r}. Give that "
                "model, or explain the data by this one."
            )
        for name, values in columns.items():
            values.append(column_of(ex, name))
        texts.append(ex.texts[0])
        method = ex.method
        places.add(ex)
    labels = None if label is None else [read_label(value, scores.outputs) for value in columns[label]]
    return Read(
        texts, labels, None if groups is None else list(map(str, columns[groups])), skipped, own, method, places
    )


def changed_against(
    source: Source, base: Any, output_dir: str | Path | None, explaining: Mapping[str, Any], min_texts: int
) -> tuple[Change, ...]:
    """The words whose share rose most against another model, or its explanations."""
    is_model = not isinstance(base, (str, Path, list, tuple, Explanation))
    data = [text.text for text in explained_texts(source, False, "")] if is_model else base
    with explanations(base, data, output_dir, "base", explaining) as theirs:
        return tuple(compare(source, theirs, min_texts=min_texts, progress=explaining["progress"])[:RISEN])
