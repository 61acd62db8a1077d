"""What an audit reads: explanations, made where there are none, with texts and labels; and those of a base model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hf_mambalrp.audit.asked import folder_for
from hf_mambalrp.audit.corpus import Source, column_of, rows_of, text_words
from hf_mambalrp.audit.positions import Places
from hf_mambalrp.audit.scores import Scores, Side, single
from hf_mambalrp.audit.words import WordTables, compare
from hf_mambalrp.calls.labels import read_label
from hf_mambalrp.calls.origin import model_id
from hf_mambalrp.datasets.explaining import explain_dataset
from hf_mambalrp.datasets.reading import SkippedRow
from hf_mambalrp.errors import InputError, TargetError
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
    sides: list[Side] | None
    """Target and contrast of every text of a language model."""


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
    with folder_for(output_dir) as folder:
        path = folder / name
        explain_dataset(model, data, path, on_error="skip", **explaining)
        yield path


def called(data: Any) -> str:
    """What data is called, without where it lies."""
    if isinstance(data, (str, Path)):
        return Path(data).name
    name = getattr(getattr(data, "info", None), "dataset_name", None)  # of datasets
    return str(name or f"a {type(data).__name__}")


def read(
    source: Source, scores: Scores, tables: WordTables, label: str | None, groups: str | None, progress: bool
) -> Read:
    """Texts, labels, groups and places, and the words into ``tables``.

    InputError: explanations of another model, a text without label or group.
    """
    skipped = 0
    texts: list[str] = []
    places = Places()
    columns: dict[str, list[Any]] = {name: [] for name in (label, groups) if name is not None}
    own = model_id(scores.network)
    method = ""
    sides: list[Side] = []
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
        text = text_words(ex)
        places.add(text)
        tables.add(text)
        if scores.network.is_language_model:
            contrast = None if ex.contrast is None else ex.contrast[0]
            sides.append((_side(ex.target[0], "target"), _side(contrast, "contrast")))
    labels = None if label is None else [read_label(value, scores.outputs) for value in columns[label]]
    named = None if groups is None else [str(value) for value in columns[groups]]
    return Read(texts, labels, named, skipped, own, method, places, sides or None)


def _side(ids: Any, name: str) -> int:
    """The token of a side. TargetError: there is none, or several."""
    if ids is None:
        raise TargetError(
            f"The explanations have no {name}: a language model is asked for one token rather than another. Give both."
        )
    return ids if isinstance(ids, int) else single(ids, name)


def changed_against(
    source: Source,
    found: Read,
    base: Any,
    output_dir: str | Path | None,
    explaining: Mapping[str, Any],
    min_texts: int,
) -> tuple[Change, ...]:
    """The words whose share rose most against another model, or its explanations."""
    data = base
    if not isinstance(base, (str, Path, list, tuple, Explanation)):
        data = found.texts
        if found.sides is not None:
            rows = zip(found.texts, found.sides, strict=True)
            data = [{"text": text, "target": target, "contrast": contrast} for text, (target, contrast) in rows]
            explaining = {**explaining, "target_column": "target", "contrast_column": "contrast"}
    with explanations(base, data, output_dir, "base", explaining) as theirs:
        return tuple(compare(source, theirs, min_texts=min_texts, progress=explaining["progress"])[:RISEN])
